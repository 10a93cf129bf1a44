"""Models of Hugging Face: types of every task, what follows when a size is another, folders with weights."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stresstest.cli.main import run
from stresstest.errors import ConfigError

transformers = pytest.importorskip("transformers")

from stresstest.user_model.hugging_face import Feed, hugging_face  # noqa: E402
from stresstest.user_model.hugging_face.families import FAMILIES  # noqa: E402
from stresstest.user_model.hugging_face.load import Loaded  # noqa: E402
from stresstest.user_model.hugging_face.shape import continued, fitting_heads  # noqa: E402

FEED = Feed("synthetic", 32, 16)
TRAINED = [
    ("gpt2", "causal"),
    ("llama", "causal"),
    ("gpt_neo", "causal"),
    ("mixtral", "causal"),
    ("mamba2", "causal"),
    ("bert", "masked"),
    ("roberta", "masked"),
    ("electra", "masked"),
    ("t5", "seq2seq"),
    ("bart", "seq2seq"),
    ("vit", "image-classification"),
    ("swin", "image-classification"),
    ("resnet", "image-classification"),
    ("wav2vec2", "audio-classification"),
    ("bert", "sequence-classification"),
    ("gpt2", "sequence-classification"),
    ("bert", "token-classification"),
    ("bert", "question-answering"),
]
FEWER_STEPS = {"mamba2": 15}  # a step of its scan takes as long as thirty of the others


def loaded(what: str, **args: Any) -> Loaded:
    return hugging_face(f"hf:{what}", args, FEED, random_init=False)


def config_of(what: str, depth: int | None = None, width: int | None = None, **args: Any) -> Any:
    swept = {name: value for name, value in (("depth", depth), ("width", width)) if value is not None}
    return loaded(what, **args).build(**swept, **args).config


@pytest.mark.filterwarnings("ignore")  # those of transformers
@pytest.mark.parametrize(("kind", "task"), TRAINED)
def test_a_type_with_no_option_but_sizes_learns_on_the_batches_of_its_task(kind: str, task: str) -> None:
    found = loaded(f"{kind}:{task}")
    torch.manual_seed(0)
    model = found.build(depth=2, width=32).train()
    assert sum(p.numel() for p in model.parameters()) < 2_000_000
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for step in range(FEWER_STEPS.get(kind, 40)):
        optimizer.zero_grad()
        loss = model(**drawn(found, step)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5]), f"{losses[:5]} to {losses[-5:]}"


def drawn(found: Loaded, step: int) -> dict[str, torch.Tensor]:
    """A batch of the task; for a causal language model on bytes, the built-in ones."""
    if found.stream is not None:
        batch: dict[str, torch.Tensor] = found.stream.draw(0, step, 0)
        return batch
    from stresstest.engine.train import Batches
    from stresstest.tasks import load_task

    x = Batches(load_task("language", "synthetic", 16, 32), torch.device("cpu")).batch([0], step).inputs[0]
    return {"input_ids": x, "labels": x}


@pytest.mark.parametrize(
    ("what", "task"),
    [
        ("gpt2", "causal"),
        ("bert", "masked"),
        ("bart", "seq2seq"),
        ("t5", "seq2seq"),
        ("vit", "image-classification"),
        ("hubert", "audio-classification"),
        ("canine", "sequence-classification"),
    ],
)
def test_a_type_alone_has_its_natural_task(what: str, task: str) -> None:
    from stresstest.user_model.hugging_face.naming import named

    assert named(f"hf:{what}", {}).family.name == task


def test_an_encoder_that_is_told_to_decode_is_a_causal_language_model() -> None:
    assert loaded("bert", is_decoder=True).shifts_labels
    assert config_of("bert:causal", 1, 32).is_decoder


@pytest.mark.parametrize("task", ["masked", "seq2seq", "image-classification", "question-answering"])
def test_a_batch_depends_on_seed_step_and_stream_and_on_nothing_else(task: str) -> None:
    kind = {"masked": "bert", "seq2seq": "bart", "image-classification": "vit", "question-answering": "bert"}[task]
    stream = loaded(f"{kind}:{task}").stream
    assert stream is not None
    first = stream.draw(0, 3, 0)
    torch.manual_seed(99)
    assert all(torch.equal(value, stream.draw(0, 3, 0)[name]) for name, value in first.items())
    for other in ((1, 3, 0), (0, 4, 0), (0, 3, 2)):
        assert any(not torch.equal(value, stream.draw(*other)[name]) for name, value in first.items())


def test_masked_batches_ask_for_15_percent_and_hide_the_most_of_it() -> None:
    stream = hugging_face("hf:bert", {}, Feed("synthetic", 64, 64), random_init=False).stream
    assert stream is not None
    batch = stream.draw(0, 0, 0)
    asked = batch["labels"] != -100
    assert asked.float().mean() == pytest.approx(0.15, abs=0.01)
    hidden = (batch["input_ids"] == 3)[asked].float().mean()
    assert hidden == pytest.approx(0.8, abs=0.06)
    assert int((batch["input_ids"][~asked] < 8).sum()) == 2 * 64  # a begin and an end a row


# What follows a depth or width.


def test_heads_divide_the_width_and_those_of_keys_divide_the_heads() -> None:
    for width in (24, 32, 48, 64, 96, 100):
        config = (
            config_of("llama", 2, width, num_key_value_heads=None) if width == 24 else config_of("mistral", 2, width)
        )
        assert config.hidden_size == width
        assert width % config.num_attention_heads == 0
        assert config.num_attention_heads % config.num_key_value_heads == 0
        assert config.head_dim * config.num_attention_heads == width


def test_heads_are_as_many_as_leave_even_sizes_of_16() -> None:
    assert fitting_heads(32, 4096, 64) == 4
    assert fitting_heads(32, 4096, 4096) == 32
    assert fitting_heads(12, 768, 48) == 3
    assert fitting_heads(12, 768, 34) == 1


def test_the_hidden_layer_stays_in_proportion() -> None:
    config = config_of("llama", 2, 64)
    assert config.intermediate_size == 176  # 64 x 11008 / 4096, to a multiple of 8
    assert config_of("t5", 2, 64).d_ff == 256
    assert config_of("t5", 2, 64).d_kv * config_of("t5", 2, 64).num_heads == 64


def test_what_is_set_by_name_stays() -> None:
    config = config_of("llama", 2, 64, intermediate_size=100, num_attention_heads=2)
    assert (config.intermediate_size, config.num_attention_heads, config.head_dim) == (100, 2, 32)
    assert config_of("gpt2", 2, 64, vocab_size=300).vocab_size == 300


def test_both_stacks_have_the_depth_and_stages_are_in_proportion() -> None:
    bart = config_of("bart", 3, 32)
    assert (bart.encoder_layers, bart.decoder_layers) == (3, 3)
    assert config_of("convnextv2", 3, 16).depths == [1, 1, 3, 1]  # of 3, 3, 9, 3
    assert config_of("convnextv2", 3, 16).hidden_sizes == [16, 32, 64, 128]
    assert config_of("swin", 2, 16).num_heads == [1, 2, 4, 8]


def test_experts_are_few_in_a_narrow_model() -> None:
    config = config_of("deepseek_v3", 4, 64)
    assert config.n_routed_experts == 8
    assert config.num_experts_per_tok == 2


def test_a_list_with_an_entry_a_layer_follows_the_depth(tmp_path: Path) -> None:
    assert len(config_of("gpt_neo", 3, 32).attention_layers) == 3
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    stored = {"model_type": "gemma3_text", "num_hidden_layers": 12, "layer_types": kinds * 2, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config = config_of(f"{tmp_path}/config.json", 4, 32)
    assert config.num_hidden_layers == len(config.layer_types) == 4
    assert set(config.layer_types) == set(kinds)


def test_a_list_is_continued_in_its_period_and_keeps_each_kind() -> None:
    assert continued(["a", "a", "b"] * 2, 8) == ["a", "a", "b", "a", "a", "b", "a", "a"]
    assert continued(["a", "a", "a", "b"], 2) == ["a", "b"]
    assert continued(["a", "b"], 1) == ["a"]
    assert continued([1.0, 2.0, 3.0], 2) == [1.0, 2.0]


def test_special_tokens_lie_inside_the_vocabulary() -> None:
    for what in ("bert", "t5", "bart", "xlm-roberta", "gpt2:sequence-classification"):
        config = config_of(what, 1, 32)
        ids = {name: value for name, value in vars(config).items() if name.endswith("_token_id")}
        outside = {name: value for name, value in ids.items() if isinstance(value, int) and value >= config.vocab_size}
        assert config.vocab_size == 264
        assert outside == {}, what


# Bad input.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("hf:gtp2", "did you mean 'gpt2'"),
        ("hf:no/such", "there is no such folder (nothing is downloaded)"),
        ("hf:bert:sequence", "unknown task 'sequence'; choose from seq2seq, masked"),
        ("hf:vit:causal", "vit has no task causal; it has image-classification"),
        ("hf:bert --seq-len 4000", "seq-len 4000 is more than its 512 positions; use --seq-len 512"),
        ("hf:vit --set image_size=30", "image_size 30 is not a multiple of patch_size 16"),
        ("hf:bert:sequence-classification --set num_labels=9", "the built-in classes of text are 2 to 4"),
        ("hf:whisper:audio-classification", "no recordings are built in for whisper"),
        ("hf:gpt2 --random-init", "has no weights to leave out"),
        ("hf:gpt2 --depth 1 --width 16 --task images", "task images: hf:gpt2 comes with its batches, language; leave"),
        ("hf:vit --depth 1 --width 16 --task language", "task language: hf:vit comes with its batches, images; leave"),
        ("hf:", "hf: names no model; give hf:TYPE such as hf:gpt2"),
        ("hf::causal", "names no model"),
        ("hf:gpt2 --depth 1 --width 16 --seq-len 1", "has no next token to predict; use --seq-len 2"),
        ("hf:gpt2 --depth 2 --set n_layer=3", "set has n_layer=3 already; keep one"),
        ("hf:llama", "billion parameters; give --depth and --width"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_taken_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(f"lr-range --model {words} --seeds 1 -q".split()) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_name_that_is_none_gets_five_suggestions_at_most() -> None:
    with pytest.raises(ConfigError) as caught:
        loaded("qwen9")
    assert 1 <= str(caught.value).count("'qwen") - 1 <= 5


def test_every_task_names_classes_that_transformers_has() -> None:
    for family in FAMILIES.values():
        assert hasattr(transformers, family.auto)
        assert len(family.types()) > 5


# Folders with weights.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 as save_pretrained() writes it, with a tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from stresstest.tasks.generator import generate_text

    place = tmp_path_factory.mktemp("hub") / "base"
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet)
    words.train_from_iterator([generate_text(50_000).decode()], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    tokenizer.save_pretrained(place)
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_head=2, n_layer=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(place)
    return place


def test_every_seed_starts_from_the_folders_weights_to_the_bit(folder: Path) -> None:
    build: Callable[..., Any] = loaded(str(folder)).build
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).state_dict()
    for seed in (0, 1):
        torch.manual_seed(seed)
        ours = build().state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_text_goes_through_the_folders_tokenizer(folder: Path) -> None:
    from stresstest.tasks.language import load_language

    found = loaded(str(folder))
    assert found.stream is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = load_language("synthetic", 4, 32).training.tobytes().decode()
    row = found.stream.draw(0, 0, 0)["input_ids"][0]
    assert tokenizer.decode(row) in text
    assert int(row.max()) > 0


def test_a_head_that_the_weights_lack_is_named_and_differs_by_seed(folder: Path) -> None:
    found = loaded(f"{folder}:sequence-classification")
    assert "score.weight: drawn anew for each seed" in found.notes[0]
    heads = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        heads.append(found.build().score.weight.detach())
    assert not torch.equal(*heads)


def test_random_init_builds_the_config_alone_and_takes_sizes(folder: Path) -> None:
    found = hugging_face(f"hf:{folder}", {}, FEED, random_init=True)
    torch.manual_seed(1)
    model: Any = found.build(depth=1, width=16)
    assert (model.config.n_layer, model.config.n_embd) == (1, 16)
    assert found.start == ""
    assert {"depth", "width"} <= found.takes.keys()


def test_other_weights_are_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(folder, tmp_path / "base")
    assert loaded(str(other)).fingerprint == loaded(str(folder)).fingerprint
    model = transformers.GPT2LMHeadModel.from_pretrained(other)
    model.transformer.wte.weight.data[0, 0] += 1.0
    model.save_pretrained(other)
    assert loaded(str(other)).fingerprint != loaded(str(folder)).fingerprint


@pytest.mark.filterwarnings("ignore")
def test_an_adapters_folder_trains_the_adapter_alone(folder: Path) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    base = transformers.GPT2LMHeadModel.from_pretrained(folder)
    adapted = peft.get_peft_model(base, lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.01)
    place = folder.parent / "adapter"
    adapted.save_pretrained(place)
    model = loaded(str(place)).build()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    theirs = peft.PeftModel.from_pretrained(transformers.GPT2LMHeadModel.from_pretrained(folder), place).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


def without(keep: int, folder: Path) -> None:
    """Leave the first so many tensors of a file of weights."""
    from safetensors.torch import load_file, save_file

    file = next(folder.glob("*model.safetensors"))
    kept = dict(list(load_file(file).items())[:keep])
    save_file(kept or {"other": torch.zeros(2)}, file, metadata={"format": "pt"})


def settings(folder: Path, **changed: Any) -> None:
    file = next(folder / name for name in ("adapter_config.json", "config.json") if (folder / name).is_file())
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda base: (base / "model.safetensors").write_bytes(b"?" * 64), "the weights in .* cannot be read"),
        (lambda base: os.truncate(base / "model.safetensors", 5000), "the weights in .* cannot be read"),
        (lambda base: (base / "model.safetensors").unlink(), "the weights in .* cannot be read"),
        (
            lambda base: settings(base, n_embd=64),
            r"the weights in .* are of other sizes: .* is \[\d+\] there and",
        ),
        (lambda base: without(0, base), "the weights in .* hold none of the model's parameters, but other; give its"),
    ],
)
def test_a_folder_whose_weights_do_not_serve_is_one_line(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    damage(Path(shutil.copytree(folder, tmp_path / "base")))
    with pytest.raises(ConfigError, match=f"hf:.*: {said}.*--random-init"):
        loaded(str(tmp_path / "base"))


def test_weights_that_the_model_has_no_place_for_are_named(folder: Path) -> None:
    [said] = loaded(str(folder), n_layer=1).notes
    assert re.search(r"has transformer\.h\.1\..* and \d+ more, which the model has not: left out", said)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda place: (place / "adapter_model.safetensors").unlink(), "has none of adapter_model.safetensors"),
        (lambda place: without(1, place), "the weights of the adapter are not of its adapter_config.json"),
        (lambda place: settings(place, r=8), "the adapter in .* cannot be read .*size mismatch.*its base is "),
        (lambda place: settings(place, target_modules=["none"]), "the adapter in .* cannot be read .*Target modules"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    place = tmp_path / "adapter"
    peft.get_peft_model(transformers.GPT2LMHeadModel.from_pretrained(folder), lora).save_pretrained(place)
    damage(place)
    with pytest.raises(ConfigError, match=said):
        loaded(str(place))


@pytest.mark.filterwarnings("ignore")
def test_the_command_says_what_every_seed_starts_from(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder.parent)
    words = (
        "lr-range --model hf:base --seq-len 32 --seeds 1 --num-steps 20 --hold-steps 20 --no-theory --probes off -j 1"
    )
    assert run([*words.split(), "--run-dir", str(tmp_path / "run")]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "starts from the weights in base: seeds differ in their batches and dropout alone" in said
    assert "they do not beat the constant predictor on this data" in said
    assert "every seed builds the same model" not in said
    stored = json.loads((tmp_path / "run/result.json").read_text())
    assert stored["data"]["starts_from"] == "the weights in base"
    assert run("lr-range --model hf:base --seq-len 32 --depth 3".split()) == 2
    assert "starts from its weights, which fix its shape; --random-init" in capsys.readouterr().err
