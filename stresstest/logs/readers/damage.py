"""What was dropped of a damaged file, and the marks that git leaves where it could not merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Damage:
    """Counts of what a reader left out, and its sentences."""

    malformed: int = 0
    headers: int = 0
    wide: int = 0
    cut: bool = False
    marks: int = 0
    twice: int = 0
    example: int | None = None

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind."""
        said = []
        if self.cut:
            said.append("the last line is cut short and was dropped")
        if self.malformed:
            where = "" if self.example is None else f" (first: line {self.example})"
            said.append(f"{_lines(self.malformed)} could not be read and {_were(self.malformed)} dropped{where}")
        if self.wide:
            said.append(f"{_lines(self.wide)} had more fields than the header; the fields beyond it were dropped")
        if self.headers:
            said.append(f"the header is repeated {self.headers} time{'s' * (self.headers > 1)}: the file was continued")
        if self.marks:
            said.append(
                f"marks of a merge conflict were dropped: {self.marks} lines"
                + (f"; {self.twice} rows of both sides were kept once" if self.twice else "")
            )
        return tuple(said)


def _lines(count: int) -> str:
    return f"{count} line{'s' * (count > 1)}"


def _were(count: int) -> str:
    return "were" if count > 1 else "was"


@dataclass
class ConflictFilter:
    """Lines without the marks of merge conflicts; a row that both sides have is kept once. Lines come in blocks."""

    damage: Damage
    _side: str = ""
    _ours: set[str] = field(default_factory=set)

    def __call__(self, lines: Sequence[str]) -> Sequence[str]:
        """A block without its marks."""
        if not self._side and "<<<<<<<" not in "".join(lines):
            return lines
        return list(self._kept(lines))

    def _kept(self, lines: Sequence[str]) -> Iterator[str]:
        for line in lines:
            side = self._mark(line)
            if side is not None:
                self._side = side
                self.damage.marks += 1
            elif self._side == "theirs" and line in self._ours:
                self.damage.twice += 1
            elif self._side != "base":
                if self._side == "ours":
                    self._ours.add(line)
                yield line

    def _mark(self, line: str) -> str | None:
        """The side that a mark begins; None of a line that is none."""
        if line.startswith("<<<<<<<"):
            self._ours = set()
            return "ours"
        if not self._side:
            return None
        if line.startswith("|||||||"):
            return "base"
        if line.startswith("======="):
            return "theirs"
        return "" if line.startswith(">>>>>>>") else None
