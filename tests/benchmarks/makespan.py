"""How long a run takes on so many cores, replayed from a stored one. Run by hand:

    python tests/benchmarks/makespan.py RUN [--cores 2,4,8,16,32,64] [--variant pre-ln] [--markdown]

RUN is a finished `lr-range`. Its ramps and holds are dealt out again, in steps of one replica: as before, where a
process trained one cell and its search tried three octaves at once; as now, one at a time; and as now with cores that
are free training ahead. Each search is the real one, answered by what is stored; a hold that was not taken lasts its
full length. A row of three costs --row-of-three of a row alone, theory so many steps (before and now).
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tables import show

from stresstest.measurements.hold import OCTAVE, HoldAnswer, HoldSearch

OFFERED = 6  # as measurements.boundary offers
HIGHEST = 3 * OCTAVE
NOISE = 0.1  # nats


@dataclass
class StoredCell:
    """One cell of the run: the steps of its ramp, and each hold by its place of the grid."""

    ramp_steps: int
    hold_steps: int
    holds: Mapping[int, Mapping[str, Any]]

    def steps(self, place: int) -> int:
        """Of a hold there."""
        return int(self.holds[place]["steps"]) if place in self.holds else self.hold_steps

    def answer(self, place: int) -> HoldAnswer:
        """What became of it; below what was tried it trains."""
        if place not in self.holds:
            return HoldAnswer("stable" if place < min(self.holds) else "exploded", math.inf)
        hold = self.holds[place]
        broke = hold["outcome"] in ("nonfinite", "exploded")
        return HoldAnswer(hold["outcome"], math.inf if broke else hold["last_loss"])

    def search(self) -> HoldSearch:
        """The search whose questions are the stored holds."""
        for guess in self.holds:
            if set(self._asked(HoldSearch(guess, HIGHEST, noise_floor=NOISE))) == set(self.holds):
                return HoldSearch(guess, HIGHEST, noise_floor=NOISE)
        raise SystemExit("the holds of a cell are not those of one search: give a run of lr-range with its defaults")

    def _asked(self, search: HoldSearch) -> Iterator[int]:
        while (place := search.ask()) is not None:
            yield place
            search.tell(place, self.answer(place))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--variant", help="of the run's cells, those of one variant")
    parser.add_argument("--cores", default="2,4,8,16,32,64")
    parser.add_argument("--row-of-three", type=float, default=0.9)
    parser.add_argument("--theory", default="60,30")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    cells = stored(asked.run, asked.variant)
    theories = [float(steps) for steps in asked.theory.split(",")]
    rows = []
    for cores in map(int, asked.cores.split(",")):
        before = three_at_once(cells, cores, asked.row_of_three, theories[0])
        alone, ahead = (Replay(cells, cores, theories[1], lends).run() for lends in (False, True))
        rows.append([str(cores), f"{before:.0f}", f"{alone:.0f}", f"{ahead:.0f}", f"{ahead / before:.2f}"])
    show(["cores", "before, steps", "one at a time", "and trained ahead", "ratio"], rows, asked.markdown)


def stored(run: Path, variant: str | None) -> list[StoredCell]:
    """The cells of a run in the order in which they are trained."""
    result = json.loads((run / "result.json").read_text())
    ordered = sorted(result["cells"], key=lambda cell: (-cell["depth"], cell["seed"], cell["variant"]))
    return [
        StoredCell(
            cell["ramp"]["steps"],
            result["spec"]["hold_steps"],
            {round(math.log2(hold["lr"]) * OCTAVE): hold for hold in cell["hold"]},
        )
        for cell in ordered
        if variant in (None, cell["variant"])
    ]


def three_at_once(cells: Sequence[StoredCell], cores: int, row_of_three: float, theory: float) -> float:
    """Steps until the last cell ends, where each tries the octaves around its guess and then goes on."""
    free = [0.0] * cores
    for cell in cells:
        guess = cell.search().guess
        first = [guess - OCTAVE, guess, guess + OCTAVE]
        rest = sum(cell.steps(place) for place in cell.holds if place not in first)
        steps = cell.ramp_steps + row_of_three * sum(map(cell.steps, first)) + rest + theory
        heapq.heappush(free, heapq.heappop(free) + steps)
    return max(free)


@dataclass
class Replay:
    """Cells in training and cores that are free, event by event, as the driver deals them out."""

    cells: Sequence[StoredCell]
    cores: int
    theory: float
    lends: bool
    now: float = 0.0
    ended: float = 0.0
    events: list[tuple[float, int, str, int, int]] = field(default_factory=list)
    number: Iterator[int] = field(default_factory=count)

    def run(self) -> float:
        """Steps until the last cell ends."""
        self.searches = [cell.search() for cell in self.cells]
        self.doing: list[int | str | None] = ["waits"] * len(self.cells)
        self.given: set[tuple[int, int]] = set()
        self.aside: set[tuple[int, int]] = set()
        self.answered: set[tuple[int, int]] = set()
        self.free, self.waiting = self.cores, list(range(len(self.cells)))
        self._deal()
        while self.events:
            self.now, _, what, i, place = heapq.heappop(self.events)
            if what == "aside":
                if (i, place) not in self.aside:
                    continue  # it was not wanted any more
                self.aside.remove((i, place))
                self.free += 1
                self.answered.add((i, place))
                if self.doing[i] == place:
                    self._go_on(i)
            elif what == "theory":
                self.free += 1
                self.ended = self.now
            else:
                if what == "hold":
                    self.searches[i].tell(place, self.cells[i].answer(place))
                self._go_on(i)
            self._deal()
        return self.ended

    def _go_on(self, i: int) -> None:
        """The next question of a cell: known, under way elsewhere, or trained now; or its theory."""
        search, cell = self.searches[i], self.cells[i]
        while (place := search.ask()) is not None and (i, place) in self.answered:
            search.tell(place, cell.answer(place))
        dropped = {(j, k) for j, k in self.aside if j == i and k not in search.ahead(OFFERED)}
        self.aside -= dropped
        self.free += len(dropped)
        self.doing[i] = place
        if place is None:
            self._begin("theory", i, 0, self.theory)
        elif (i, place) not in self.aside:
            self.given.add((i, place))
            self._begin("hold", i, place, cell.steps(place))

    def _deal(self) -> None:
        while self.free and self.waiting:
            i = self.waiting.pop(0)
            self.free -= 1
            self.doing[i] = "ramps"
            self._begin("ramp", i, 0, self.cells[i].ramp_steps)
        while self.lends and self.free and (best := self._may_follow()) is not None:
            self.given.add(best)
            self.aside.add(best)
            self.free -= 1
            self._begin("aside", *best, self.cells[best[0]].steps(best[1]))

    def _may_follow(self) -> tuple[int, int] | None:
        holding = [i for i, doing in enumerate(self.doing) if isinstance(doing, int)]
        ahead = {i: self.searches[i].ahead(OFFERED) for i in holding}
        ranked = ((i, ahead[i][rank]) for rank in range(1, OFFERED) for i in holding if rank < len(ahead[i]))
        return next((each for each in ranked if each not in self.given), None)

    def _begin(self, what: str, i: int, place: int, steps: float) -> None:
        heapq.heappush(self.events, (self.now + steps, next(self.number), what, i, place))


if __name__ == "__main__":
    main()
