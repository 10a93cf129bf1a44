"""The user's own model through the command line: what works, and one line for each thing that does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stresstest.cli.main import run

SHORT = "--seq-len 16 --batch-size 4".split()
TINY = "--seeds 1 --num-steps 20 --hold-steps 20 --no-theory -j 1 -q".split()  # -q last

TRANSFORMER = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, depth, width, norm_first):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.output = nn.Linear(width, 256)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.output(self.encoder(self.embedding(x), mask=mask, is_causal=True))

def build(depth=1, width=16, variant="post-ln"):
    return Net(depth, width, norm_first=variant == "pre-ln")
"""

RESNET = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
    def forward(self, x):
        return x + self.body(x)

def build(depth=1, width=4):
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=4), *(Block(width) for _ in range(depth)), *ends)

def optimizer(params, lr):
    return torch.optim.SGD(params, lr=lr, momentum=0.9)
"""

LIGHTNING = """
import torch
from pytorch_lightning import LightningModule
from torch import nn

class Lit(LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(256, width), nn.Linear(width, 256))
    def training_step(self, batch, batch_idx):
        x, y = batch
        return {"loss": nn.functional.cross_entropy(self.net(x).flatten(0, 1), y.flatten())}
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)
"""

BAD = """
import os
import torch
from torch import nn

class M(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.calls, self.kept = kind, 0, []
        self.embedding, self.output = nn.Embedding(256, 8), nn.Linear(8, 256)
        if kind == "nan":
            self.output.weight.data.fill_(float("nan"))
        if kind == "unused":
            self.extra = nn.Linear(3, 3)
        if kind == "large":
            self.output.weight.data.mul_(1000.0)
        if kind == "lazy":
            self.output = nn.LazyLinear(256)
        if kind == "unseeded":
            self.output.weight.data.add_(int.from_bytes(os.urandom(2), "big") / 1e6)
        if kind == "same":
            for p in self.parameters():
                p.data.fill_(0.01)

    def forward(self, x):
        self.calls += 1
        if self.kind == "raises" or (self.kind == "late" and self.calls > 30):
            raise ValueError("the tables have turned")
        h = self.embedding(x)
        if self.kind == "shape":
            h = h[:, :-1]
        if self.kind == "leak":
            self.kept.append(h)
        if self.kind == "random":
            h = h + int.from_bytes(os.urandom(2), "big") / 1e5
        return self.output(h.detach()).detach() if self.kind == "detached" else self.output(h)

def build(variant="ok"):
    if variant == "build":
        raise RuntimeError("no such corpus")
    return "a model" if variant == "text" else M(variant)

def ok():
    return M("ok")

def pairs(step, batch_size, generator):
    x = torch.randint(0, 256, (batch_size, 9), generator=generator)
    return x[:, :-1], x[:, 1:]

def ends(step, batch_size, generator):
    if step >= 30:
        raise StopIteration
    return pairs(step, batch_size, generator)

loader = iter([pairs(0, 4, None) for _ in range(50)])
def stateful(step, batch_size, generator):
    return next(loader)

def words(step, batch_size, generator):
    return ["not", "a", "batch"]

def array(model, batch):
    return model(batch[0])
"""


PLAIN = """
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Embedding(256, width), nn.Linear(width, 256))
"""


EATS = """
from torch import nn

class M(nn.Module):
    def __init__(self, eats):
        super().__init__()
        self.eats, self.calls = eats, 0
        self.embedding, self.output = nn.Embedding(256, 8), nn.Linear(8, 256)

    def forward(self, x):
        self.calls += 1
        if self.eats and self.calls > 30:
            raise MemoryError("can't allocate memory")
        return self.output(self.embedding(x))

def build(variant="ok"):
    return M(variant == "eats")
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the models' files, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STRESSTEST_")]:
        monkeypatch.delenv(name)
    files = {"enc.py": TRANSFORMER, "resnet.py": RESNET, "lit.py": LIGHTNING, "bad.py": BAD, "plain.py": PLAIN}
    for name, text in files.items():
        Path(name).write_text(text)
    return tmp_path


def result_of(*words: str) -> dict[str, Any]:
    code = run([*words, *TINY, "--run-dir", "run"])
    assert code == 0
    stored: dict[str, Any] = json.loads(Path("run/result.json").read_text())
    return stored


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a wrong setting or model ends with."""
    assert run([*words, *TINY]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert not Path(".stresstest/runs").exists()
    return err


def test_a_transformer_of_torch_with_its_norm_first_switch_as_the_variant() -> None:
    words = ["lr-range", "--model", "enc.py:build", "--variant", "post-ln,pre-ln", "--depth", "2"]
    found = result_of(*words, *SHORT)
    assert {(cell["variant"], cell["depth"], cell["status"]) for cell in found["cells"]} == {
        ("post-ln", 2, "done"),
        ("pre-ln", 2, "done"),
    }
    assert found["data"]["takes"] == ["depth", "width", "variant"]
    assert found["data"]["baseline_loss"] == pytest.approx(3.18, abs=0.01)


def test_a_resnet_with_batch_norm_over_depth_with_its_own_optimizer() -> None:
    found = result_of("depth-sweep", "--model", "resnet.py:build", "--task", "images", "--depths", "1,2")
    assert [cell["depth"] for cell in found["cells"]] == [1, 2]
    assert found["spec"]["optimizer"] == "own"
    assert all("max_stable_lr" in cell["metrics"] for cell in found["cells"])


def test_a_hugging_face_config_over_depth_without_weights_or_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("transformers")
    settings = ["--model", "hf:gpt2", "--set", "n_embd=16,n_head=2"]
    found = result_of("depth-sweep", *settings, "--depths", "1,2", "--seq-len", "16")
    assert [cell["status"] for cell in found["cells"]] == ["done", "done"]
    assert found["cells"][0]["ramp"]["initial_loss"] == pytest.approx(5.55, abs=0.1)  # ln 256


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_lightning_module_with_its_own_optimizer() -> None:
    pytest.importorskip("pytorch_lightning")
    found = result_of("lr-range", "--model", "lit.py:Lit", "--seq-len", "16")
    assert found["spec"]["optimizer"] == "own"
    assert found["data"]["baseline_loss"] == pytest.approx(3.18, abs=0.01)  # taken for a cross-entropy


def test_warmup_takes_it_too() -> None:
    words = "warmup --model enc.py:build --warmup-steps 0,5 --num-lrs 2 --train-steps 20 --trials 0 --seeds 1 -q -j 1"
    assert run([*words.split(), *SHORT, "--run-dir", "run"]) == 0
    found = json.loads(Path("run/result.json").read_text())
    assert len(found["cells"]) == 4
    assert {cell["status"] for cell in found["cells"]} == {"done"}


def test_the_same_command_trains_nothing_again_and_other_code_everything(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lr-range", "--model", "plain.py:build", *SHORT, *TINY]
    program = [sys.executable, "-m", "stresstest", *words]
    runs = [subprocess.run(program, capture_output=True, text=True, check=True) for _ in range(2)]
    lines = Path(".stresstest/runs").glob("*/cells.jsonl")
    assert [len(path.read_text().splitlines()) for path in lines] == [1]
    assert runs[0].stdout == runs[1].stdout
    Path("plain.py").write_text(PLAIN.replace("width=4", "width=8"))
    subprocess.run(program, capture_output=True, text=True, check=True)
    cells = [path.read_text() for path in Path(".stresstest/runs").glob("*/cells.jsonl")]
    assert len({json.loads(text)["key"] for text in cells}) == 2


def test_a_function_or_setting_beside_the_model_decides_its_cells() -> None:
    loss = "def loss_fn(model, batch):\n    return nn.functional.cross_entropy(model(batch[0]).mT, batch[1])\n"
    Path("beside.py").write_text(RESNET + loss)
    runs = [[], ["--loss-fn", "beside.py:loss_fn"], ["--optimizer-fn", "beside.py:optimizer"], ["--set", "width=8"]]
    keys = set()
    for index, more in enumerate(runs):
        folder = f"run{index}"
        words = ["lr-range", "--model", "plain.py:build", *SHORT, *TINY, *more, "--run-dir", folder]
        assert run(words) in (0, 3)
        keys |= {cell["key"] for cell in json.loads(Path(folder, "result.json").read_text())["cells"]}
    assert len(keys) == len(runs)


def test_two_processes_find_what_one_finds() -> None:
    words = "lr-range --model enc.py:build --seeds 2 --num-steps 20 --hold-steps 20 -q".split()
    for jobs in ("1", "2"):
        assert run([*words, *SHORT, "--no-theory", "-j", jobs, "--run-dir", jobs, "--fresh"]) == 0
    one, two = (json.loads(Path(jobs, "result.json").read_text())["cells"] for jobs in ("1", "2"))
    for cell in (*one, *two):
        del cell["seconds"], cell["probe_seconds"]
    assert one == two


def test_a_scenario_gives_a_factory_its_arguments_and_the_line_that_repeats_it_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = {"factory": "enc.py:build", "args": {"width": 8}}
    experiment = {"command": "lr-range", "model": model, "seeds": 1, "num_steps": 20, "hold_steps": 20, "theory": False}
    sizes = {"seq_len": 16, "batch_size": 4}
    Path("ours.yaml").write_text(yaml.safe_dump({"experiments": {"ours": experiment | sizes}}))
    assert run(["run", "ours.yaml", "-q"]) == 0
    out = capsys.readouterr().out
    assert "enc.py:build, depth 1, width 8" in out
    again = re.search(r"^again: stresstest (.*)$", out, re.MULTILINE)
    assert again is not None
    assert "--model enc.py:build --set width=8" in again[1]
    assert run([*again[1].split(), "-q"]) == 0
    assert len(list(Path(".stresstest").glob("runs/**/cells.jsonl"))) == 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{args: {width: 8}}", "has no factory"),
        ('{factory: "enc.py:build", args: {width: [8]}}', "is not a plain value"),
        ('{factory: "enc.py:build", arg: {width: 8}}', "unknown key; did you mean 'args'?"),
    ],
)
def test_a_scenarios_factory_that_is_wrong_is_said_with_its_place(
    capsys: pytest.CaptureFixture[str], model: str, said: str
) -> None:
    Path("ours.yaml").write_text(f"experiments:\n  ours:\n    command: lr-range\n    model: {model}\n")
    assert run(["run", "ours.yaml"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "ours.yaml:4:" in err


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("build", "raised RuntimeError: no such corpus (bad.py:"),
        ("text", "returned str; return a torch.nn.Module"),
        ("lazy", "parameter output.weight has no shape yet; run its lazy module once before you return the model"),
        ("raises", "raised ValueError: the tables have turned (bad.py:"),
        ("nan", "the loss at initialisation is nan; the first output that is not finite is that of output"),
        ("shape", "model(x) is float32 [8, 63, 256] and y is int64 [8, 64]"),
        ("unseeded", "the same seed built two different models (output.weight differs)"),
        ("random", "the loss of one batch is"),
        ("detached", "the loss has no gradient"),
    ],
)
def test_a_model_that_makes_results_meaningless_is_one_line_before_any_training(
    capsys: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    assert f"bad.py:build, {kind}: " in (
        line := error_of(capsys, "lr-range", "--model", "bad.py:build", "--variant", kind)
    )
    assert said in line
    if "raised" in said:
        assert "Traceback" in Path(".stresstest/traceback.txt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model bad.py:ok --batch-fn bad.py:stateful", "two batches for the same step and generator"),
        ("--model bad.py:ok --batch-fn bad.py:words", "cannot infer a loss from a batch of"),
        ("--model bad.py:ok --loss-fn bad.py:array", "returned float32 [8, 64, 256], not a loss"),
        ("--model bad.py:ok --loss-fn bad.py:nothing", "function 'nothing' not found"),
        ("--model bad.py:ok --depth 3", "has no argument 'depth'"),
        ("--model bad.py:ok --variant pre-ln", "has no argument 'variant'"),
        ("--model bad.py:ok --set widht=3", "has no argument 'widht'"),
        ("--model enc.py:build --set widht=3", "did you mean 'width'?"),
        ("--model enc.py:build --set width=8 --width 16", "keep one"),
        ("--model enc.py:build --set width", "is not KEY=VALUE"),
        ("--model enc.py:build --heads 8", "use set heads=..."),
        ("--model enc.py:biuld", "did you mean 'build'?"),
        ("--model gone.py:build", "file gone.py not found"),
        ("--model gone.module:build", "module 'gone.module' not found"),
        ("--model enc.py", "is it enc.py:FUNCTION?"),
        ("--model decodre", "did you mean 'decoder'?"),
        ("--model decoder --set width=8", "works only with your own model"),
        ("--model enc.py:build --optimizer own", "and so is an optimizer(params, lr)"),
        ("--model hf:gpt-2", "has no model type 'gpt-2'"),
        ("--model hf:gpt2 --set n_layers=2", "did you mean 'n_layer'?"),
    ],
)
def test_a_wrong_name_or_setting_is_one_line_with_what_to_do(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert said in error_of(capsys, "lr-range", *words.split())


def test_a_sweep_over_depth_needs_a_factory_that_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no argument 'depth'" in error_of(capsys, "depth-sweep", "--model", "bad.py:ok")
    line = error_of(capsys, "depth-sweep", "--model", "enc.py:build", "--init-only")
    assert "init_only works only with built-in models" in line


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unused", "warning: bad.py:build, unused: extra.weight and 1 more never gets a gradient"),
        ("leak", "more tensors stay alive after every step"),
        ("large", "is far above a uniform guess's"),
        ("same", "every seed builds the same model"),
    ],
)
def test_what_is_only_doubtful_is_a_warning_and_a_clean_model_has_none(
    capsys: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    words = ["lr-range", "--model", "bad.py:build", *TINY[:-1], "--dry-run", "--variant"]
    assert run([*words, kind]) == 0
    assert said in capsys.readouterr().err
    assert run([*words, "ok"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_model_that_fails_later_costs_its_own_cells_only_and_its_traceback_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        "lr-range",
        "--model",
        "bad.py:build",
        "--variant",
        "late,ok",
        *TINY,
        "--run-dir",
        "run",
        "--num-steps",
        "60",
    ]
    assert run(words) == 4
    out = " ".join(capsys.readouterr().out.split())
    assert "crashed: late depth 1 seed 0 has no result" in out
    assert "raised ValueError: the tables have turned (bad.py:" in out
    cells = json.loads(Path("run/result.json").read_text())["cells"]
    assert {cell["variant"]: cell["status"] for cell in cells} == {"late": "crashed", "ok": "done"}
    key = next(cell["key"] for cell in cells if cell["status"] == "crashed")
    assert "Traceback" in Path("run/errors", f"{key}.txt").read_text()


def test_data_that_ends_is_said_with_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lr-range", "--model", "bad.py:ok", "--batch-fn", "bad.py:ends", "--seeds", "1", "--num-steps", "40"]
    assert run([*words, "-q", "--no-theory"]) == 4
    assert "ran out of data at step 30" in " ".join(capsys.readouterr().out.split())


def test_a_model_that_eats_the_memory_costs_its_own_cells_only_and_says_where(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("eats.py").write_text(EATS)
    words = [
        "lr-range",
        "--model",
        "eats.py:build",
        "--variant",
        "eats,ok",
        *TINY,
        "--run-dir",
        "run",
        "--num-steps",
        "60",
    ]
    assert run(words) == 4
    assert "oom: eats depth 1 seed 0 has no result" in " ".join(capsys.readouterr().out.split())
    cells = json.loads(Path("run/result.json").read_text())["cells"]
    assert {cell["variant"]: cell["status"] for cell in cells} == {"eats": "oom", "ok": "done"}
    key = next(cell["key"] for cell in cells if cell["status"] == "oom")
    kept = Path("run/errors", f"{key}.txt").read_text()
    assert "eats.py" in kept
    assert "raise MemoryError" in kept


def test_set_may_stand_several_times(capsys: pytest.CaptureFixture[str]) -> None:
    Path("two.py").write_text("from torch import nn\n\ndef build(a, b):\n    return nn.Embedding(256, 256)\n")
    assert run(["lr-range", "--model", "two.py:build", "--set", "a=1", "--set", "b=2", "--dry-run"]) == 0
    assert "a=1,b=2" in capsys.readouterr().out
    assert run(["lr-range", "--model", "two.py:build", "--set", "a=1", "--set", "a=2", "--dry-run"]) == 2
    assert "set gives 'a' twice" in capsys.readouterr().err
