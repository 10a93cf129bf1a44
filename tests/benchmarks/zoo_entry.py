"""What an entry of the zoo is."""

from __future__ import annotations

from dataclasses import dataclass

# The commits that were run, by repository.
COMMITS = {
    "karpathy/nanoGPT": "3adf61e154c3fe3fca428ad6bc3818b27a3b8291",
    "karpathy/minGPT": "37baab71b9abea1b76ab957409a1cc2fbfba8a26",
    "majumderb/rezero": "e2c94a825c5564217e8cf4d75a28d59cab1d7029",
    "Lightning-AI/pytorch-lightning": "7f0c3436cd3f6ad3753125672024fc415cbcb414",
    "pytorch/examples": "77f55b912142e11fcfdf5b530231fb9c52f181e8",
}


@dataclass(frozen=True)
class Entry:
    """One model or script.

    `source` is PACKAGE, PACKAGE:FILE or REPOSITORY:PATH. `arguments` follow `lr-range --model`; SOURCE stands for the
    file. `wrote` are the lines of mine.py that the user had to write, beside the file of a repository. `has` is what
    such a user has already, in data.py: a made data set in place of theirs.
    """

    name: str
    source: str
    arguments: str
    wrote: str = ""
    has: str = ""


def plain(name: str, source: str, arguments: str, wrote: str = "", has: str = "") -> Entry:
    """With what the user wrote and has."""
    return Entry(name, source, arguments, wrote.strip("\n"), has.strip("\n"))
