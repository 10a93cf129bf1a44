"""Types of transformers with no option but sizes: python -m tests.benchmarks.hugging_face_types [FILE].

A learning-rate range test of some of each task, then one forward and backward pass of every type of every task.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from stresstest.cli.main import run
from stresstest.runs.identity import environment
from stresstest.user_model.hugging_face import Feed, hugging_face
from stresstest.user_model.hugging_face.families import FAMILIES

SIZES = "--depth 2 --width 32"
OPTIONS = "--seeds 1 --no-theory --probes off -j 1"
SHORT = "--num-steps 100 --hold-steps 100"  # of causal models, which learn sooner than the others
_INTERRUPTED = (130, 143)  # exit codes after SIGINT and SIGTERM
TYPES = {
    "causal": "gpt2 llama qwen3 gemma3_text gpt_neo mixtral deepseek_v3 falcon bloom opt mamba2 jamba qwen2 mistral "
    "phi3 stablelm gpt_neox gptj codegen starcoder2 olmo olmo2 granite cohere helium nemotron xglm biogpt glm "
    "gemma2 smollm3 reformer",
    "masked": "bert roberta distilbert electra modernbert albert fnet",
    "seq2seq": "t5 bart marian prophetnet",
    "image-classification": "vit deit swin convnextv2 resnet dinov2 segformer imagegpt dinat",
    "sequence-classification": "bert:sequence-classification gpt2:sequence-classification canine layoutlmv2",
    "audio-classification": "wav2vec2 hubert audio-spectrogram-transformer whisper:audio-classification",
    "token-classification": "bert:token-classification qwen2:token-classification",
    "question-answering": "bert:question-answering splinter",
}


def main() -> None:
    """Write the page, row by row, to a file or to where output goes."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import transformers

    out = Path(sys.argv[1]).resolve().open("w", encoding="utf-8") if len(sys.argv) > 1 else sys.stdout
    with contextlib.redirect_stdout(out):
        print("# Types of Hugging Face, with no option but sizes\n")
        print(f"Made by `tests/benchmarks/hugging_face_types.py` on {environment('cpu', 'float32')['key']} with")
        print(f"transformers {transformers.__version__}: `stresstest lr-range --model hf:TYPE {SIZES}`, one seed.")
        print("Causal models ramp and hold for 100 steps, the others for as many as their task has by default.")
        print("A boundary is the last constant learning rate that trained and the first that did not.\n")
        print("| type | task | parameters | boundary, or what is said | seconds |\n|---|---|---:|---|---:|", flush=True)
        told = Counter[str]()
        for family, names in TYPES.items():
            for name in names.split():
                began = time.monotonic()
                parameters, verdict = ask(name, SHORT if family == "causal" else "")
                told["refused" if parameters == "-" else "without a boundary" if "no " in verdict else "trained"] += 1
                print(f"| {name} | {family} | {parameters} | {verdict} | {time.monotonic() - began:.0f} |", flush=True)
        counted = ", ".join(f"{count} {what}" for what, count in told.items())
        print(f"\n{sum(told.values())} types over {len(TYPES)} tasks: {counted}.\n")
        one_step_each()


def one_step_each() -> None:
    """Print how many types of each task take a forward and backward pass at a small size, and why others do not."""
    print("## Every type, one step\n\n| task | types | take a step | others |\n|---|---:|---:|---|")
    for family in FAMILIES.values():
        refused = {}
        kinds = sorted({config.model_type for config in family.types()})
        for kind in kinds:
            if why := _refusal(kind, family.name):
                refused[kind] = why
        others = "; ".join(f"{kind}: {why}" for kind, why in refused.items())
        print(f"| {family.name} | {len(kinds)} | {len(kinds) - len(refused)} | {others} |", flush=True)


def _refusal(kind: str, task: str) -> str:
    """Why a type does not take a step, or nothing."""
    try:
        found = hugging_face(f"hf:{kind}:{task}", {}, Feed("synthetic", 64, 8), random_init=False)
        sizes = {name: size for name, size in {"depth": 2, "width": 32}.items() if name in found.takes}
        tokens = torch.randint(256, (8, 64))
        batch = {"input_ids": tokens, "labels": tokens} if found.stream is None else found.stream.draw(0, 0, 0)
        found.build(**sizes).train()(**batch).loss.backward()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}".replace("|", "/")
    return ""


def ask(name: str, steps: str) -> tuple[str, str]:
    """(trainable parameters, the boundary) of a type, or ("-", the line that refuses it)."""
    said, printed = io.StringIO(), io.StringIO()
    with _in_a_folder() as folder, contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = run(
            ["lr-range", "--model", f"hf:{name}", *f"{SIZES} {OPTIONS} {steps}".split(), "--run-dir", str(folder / "r")]
        )
        stored = json.loads((folder / "r/result.json").read_text()) if code == 0 else {}
    text = said.getvalue() + printed.getvalue()
    if code in _INTERRUPTED:
        raise KeyboardInterrupt  # which is no refusal
    if code != 0:
        return "-", " ".join(text.strip().splitlines()[-1].removeprefix("stresstest: ").replace("|", "/").split())
    count = re.search(r"([\d,]+) trainable parameters", text)
    bracket = stored["cells"][0]["metrics"]["max_stable_lr"]
    boundary = f"{bracket['low']:.2g}..{bracket['high']:.2g}" if bracket.get("low") else "no held LR trained"
    return count[1] if count else "?", boundary


@contextlib.contextmanager
def _in_a_folder() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


if __name__ == "__main__":
    main()
