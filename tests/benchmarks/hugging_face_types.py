"""Types of transformers with no option but sizes: python -m tests.benchmarks.hugging_face_types [FILE]."""

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

SIZES = "--depth 2 --width 32"
SHORT = "--seq-len 32 --batch-size 8 --num-steps 40 --hold-steps 60"  # so that a type takes seconds
OPTIONS = "--seeds 1 --no-theory --probes off -j 1"
TYPES = {
    "masked": "bert roberta distilbert electra modernbert albert fnet reformer",
    "seq2seq": "t5 bart marian prophetnet",
    "image-classification": "vit deit swin convnextv2 resnet dinov2 segformer imagegpt dinat",
    "sequence-classification": "bert:sequence-classification gpt2:sequence-classification canine layoutlmv2",
    "causal": "gpt2 llama qwen3 gemma3_text gpt_neo deepseek_v3 bloom opt mamba2 rwkv",
    "audio-classification": "wav2vec2 audio-spectrogram-transformer whisper:audio-classification",
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
        print(f"transformers {transformers.__version__}: `stresstest lr-range --model hf:TYPE {SIZES}`,")
        print(f"one seed, and shorter than by default: `{SHORT}`.")
        print("A boundary is the last constant learning rate that trained and the first that did not.\n")
        print("| type | task | parameters | boundary, or what is said | seconds |\n|---|---|---:|---|---:|", flush=True)
        told = Counter[str]()
        for family, names in TYPES.items():
            for name in names.split():
                began = time.monotonic()
                parameters, verdict = ask(name)
                told["refused" if parameters == "-" else "without a boundary" if "no " in verdict else "trained"] += 1
                print(f"| {name} | {family} | {parameters} | {verdict} | {time.monotonic() - began:.0f} |", flush=True)
        counted = ", ".join(f"{count} {what}" for what, count in told.items())
        print(f"\n{sum(told.values())} types over {len(TYPES)} tasks: {counted}.")


def ask(name: str) -> tuple[str, str]:
    """(trainable parameters, the boundary) of a type, or ("-", the line that refuses it)."""
    said, printed = io.StringIO(), io.StringIO()
    with _in_a_folder() as folder, contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = run(
            ["lr-range", "--model", f"hf:{name}", *f"{SIZES} {SHORT} {OPTIONS}".split(), "--run-dir", str(folder / "r")]
        )
        stored = json.loads((folder / "r/result.json").read_text()) if code == 0 else {}
    text = said.getvalue() + printed.getvalue()
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
