"""The part of a scenario file that is about claims: the claims, and the seeds that they are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from stresstest.errors import ConfigError
from stresstest.scenario.claims import Cause, Claim, parse_claim, parse_statement
from stresstest.scenario.yaml_nodes import YamlReader
from stresstest.specs.parsing import MANY_SEEDS

_KEYS = ("says", "holds", "along", "published", "because", "headline")


@dataclass(frozen=True)
class ClaimSeeds:
    """Which seeds confirm: `look` of them from `first` on, half as many more where a claim is open, and then `most`.

    explored: the seeds with which the settings were chosen, which confirm nothing.
    """

    explored: tuple[int, ...] = ()
    first: int = 1000
    look: int = 12
    most: int = 36

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds at each look."""
        return tuple(dict.fromkeys((self.look, min(self.look + self.look // 2, self.most), self.most)))

    def confirming(self, number: int) -> tuple[int, ...]:
        """So many of them."""
        return tuple(range(self.first, self.first + number))

    def check(self) -> None:
        """Whether they can be; what is wrong is a `ConfigError`."""
        if not 1 <= self.look <= self.most <= MANY_SEEDS:
            raise ConfigError(f"look {self.look} and most {self.most}: give 1 <= look <= most <= {MANY_SEEDS}")
        if self.first < 0 or self.first + self.most > 1 << 32:
            raise ConfigError(f"first {self.first} lies outside of 0 to 2^32 - {self.most}")
        if both := sorted(set(self.explored) & set(self.confirming(self.most))):
            last = max(self.explored)
            raise ConfigError(f"seed {both[0]} was explored and cannot confirm; give a first beyond {last}")


def read_seeds(reader: YamlReader, node: yaml.Node) -> ClaimSeeds | None:
    """`seeds: {explored: [0, 1, 2], first: 1000, look: 12, most: 36}`; the reader hears what is wrong with it."""
    entries = reader.mapping(node, "seeds", ("explored", "first", "look", "most"))
    values: dict[str, Any] = {}
    for name, (_, value) in entries.items():
        many = name == "explored" and isinstance(value, yaml.SequenceNode)
        found = [reader.scalar(item, f"seeds.{name}") for item in (value.value if many else [value])]
        if any(isinstance(one, bool) or not isinstance(one, int) for one in found):
            what = "a list of seeds, such as [0, 1, 2]" if name == "explored" else "a whole number"
            reader.complain(value, f"seeds.{name}", f"is not {what}")
            return None
        values[name] = tuple(found) if name == "explored" else found[0]
    seeds = ClaimSeeds(**values)
    try:
        seeds.check()
    except ConfigError as error:
        reader.complain(node, "seeds", str(error))
        return None
    return seeds


def read_claims(reader: YamlReader, node: yaml.Node) -> Iterator[tuple[str, Claim]]:
    """Each claim of a list with its file:line:col; the reader hears what is wrong with one."""
    if not isinstance(node, yaml.SequenceNode):
        reader.complain(node, "claims", "is not a list; write - {says: ..., holds: EXPERIMENT.METRIC{...} > NUMBER}")
        return
    for number, item in enumerate(node.value, 1):
        path = f"claims.{number}"
        entries = {name: value for name, (_, value) in reader.mapping(item, path, _KEYS).items()}
        if not {"says", "holds"} <= entries.keys():
            reader.complain(item, path, "needs says: (the claim in words) and holds: (its expression)")
            continue
        so_far, texts = len(reader.wrong), _texts(reader, entries, path)
        along, because = _along(reader, entries, path), _cause(reader, entries, path)
        headline = reader.scalar(entries["headline"], f"{path}.headline") if "headline" in entries else False
        if not isinstance(headline, bool):
            reader.complain(entries["headline"], f"{path}.headline", "expects true or false")
        if len(reader.wrong) > so_far:
            continue
        try:
            claim = parse_claim(texts["says"], texts["holds"], along, texts.get("published", ""), because, headline)
        except ConfigError as error:
            reader.complain(entries["holds"], path, str(error))
            continue
        mark = item.start_mark
        yield f"{reader.path}:{mark.line + 1}:{mark.column + 1}", claim


def _texts(reader: YamlReader, entries: Mapping[str, yaml.Node], path: str) -> dict[str, str]:
    named = ((name, entries[name]) for name in ("says", "holds", "published") if name in entries)
    return {name: str(reader.scalar(value, f"{path}.{name}")) for name, value in named}


def _along(reader: YamlReader, entries: Mapping[str, yaml.Node], path: str) -> Mapping[str, Sequence[str]] | None:
    """`along: {depth: [8, 32, 128]}`."""
    if "along" not in entries:
        return None
    found = reader.mapping(entries["along"], f"{path}.along", None)
    lists = {name: value for name, (_, value) in found.items() if isinstance(value, yaml.SequenceNode)}
    if len(found) != 1 or len(lists) != 1 or not all(value.value for value in lists.values()):
        reader.complain(entries["along"], f"{path}.along", "is not one path; write {NAME: [VALUE, ...]}")
        return None
    so_far = len(reader.wrong)
    ((name, value),) = lists.items()
    for item in value.value:
        reader.scalar(item, f"{path}.along")
    return None if len(reader.wrong) > so_far else {name: [item.value for item in value.value]}


def _cause(reader: YamlReader, entries: Mapping[str, yaml.Node], path: str) -> Cause | None:
    """`because: TEXT`, or tested: `because: {says: ..., holds: ...}`."""
    if "because" not in entries:
        return None
    node, here = entries["because"], f"{path}.because"
    if isinstance(node, yaml.ScalarNode):
        return Cause(str(reader.scalar(node, here)))
    inner = {name: value for name, (_, value) in reader.mapping(node, here, ("says", "holds")).items()}
    if inner.keys() != {"says", "holds"}:
        reader.complain(node, here, "needs says: (the cause in words) and holds: (the expression that tests it)")
        return None
    texts = _texts(reader, inner, here)
    try:
        return Cause(texts["says"], parse_statement(texts["holds"]))
    except ConfigError as error:
        reader.complain(inner["holds"], here, str(error))
        return None
