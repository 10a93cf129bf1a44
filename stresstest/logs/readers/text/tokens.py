"""A printed line taken apart: its numbers, the name before each, and what measures nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stresstest.logs.readers.text.words import Kind, is_loss, is_validation, kind_of, names_training, says_validation
from stresstest.logs.roles import has_a_role

NUMBER = r"[-+]?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
NON_FINITE = r"[-+]?(?:nan|inf(?:inity)?)(?=(?:ms|s)?(?![A-Za-z_]))"

# Digits that measure nothing: dates, clocks, places in source files, versions, addresses, percentages, hashes.
_NO_MEASUREMENT = (
    r"\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?)?"
    r"|\d{1,3}:\d{2}(?::\d{2})?(?:[.,]\d+)?(?![\d.])"
    r"|[\w/.\-]+\.(?:py|cc|cpp|cu|h):\d+(?::\w+)?"
    r"|\b[A-Za-z_]\w*(?:\.\w+)*:(?!(?:\w*loss\w*|step|iter|iteration|epoch|batch|lr):)[A-Za-z_<]\w*>?:\d+(?![.\d])"
    r"|\b\w+(?:\.\w+)+:\d+(?![.\d])"
    r"|\d+(?:\.\d+){2,}"
    r"|(?<![\w.])\d+(?:\.\d+)?\s?%"
    r"|(?<![\w.])0x[0-9a-f]+|(?<![\w.])[0-9a-f]*[a-df][0-9a-f]*\d[0-9a-f]{5,}(?![\w.])"
)
_TOKEN = re.compile(
    rf"(?P<skip>{_NO_MEASUREMENT})|(?<![\w.])(?<!\w-)(?P<plain>{NUMBER}|(?i:{NON_FINITE}))"
    rf"|\b(?P<glued>[Ee]|[Ee]p|[Ee]poch|[Ss]tep|[Ii]ter|[Rr]ank)(?P<after>\d+)(?![\w.])"
)
_DICT = re.compile(r"\{\s*['\"][\w/ .@()-]+['\"]\s*:[^{}]*\}")
_DICT_PAIR = re.compile(
    rf"['\"](?P<name>[\w/ .@()-]+)['\"]\s*:\s*['\"]?(?P<plain>{NUMBER}|(?i:{NON_FINITE}))(?=['\"\s,}}])"
)
_SEPARATOR = re.compile(r"\s-\s|\s-{2,}\s|[|,;\t\[\])}{>]|\s{2,}|(?<!\b[A-Za-z]{3})\.\s|(?<=\w):\s")
_UNIT_AFTER = re.compile(r"^(?:[A-Za-zµ%]+(?:/[A-Za-z]+)?)(?=[\s,;|\])-]|$)")
_FILLER = re.compile(r"(?:\s(?:is|was|are|of|at|equals|now|value|so far))+$", re.I)
_WRAPPED = re.compile(r"(?:\b(?:np|numpy|torch|jnp)\.)?\b(?:tensor|float\d*|float_|array|Array|Tensor)\(\[?$")
_LEADING = re.compile(r"^(?:[^\w(]+|(?:after|at|in|on|the|end of|finished|completed)\s+)+", re.I)
_EPOCH_AND_BATCH = re.compile(r"\s*\[\s*\d+\s*,\s+\d+\s*\]\s*\w")
_LOSS_AT_INDEX = re.compile(r"(?P<loss>.+?)\s+(?:at|after|on|for|in|of)\s+(?:the\s+)?(?P<index>\w+)$", re.I)
_MAX_LINE = 4000


@dataclass(frozen=True)
class Token:
    """A number in a line, from `start` to `end`, and what it is."""

    name: str
    kind: Kind
    start: int
    end: int


@dataclass(frozen=True)
class Parsed:
    """A line taken apart. begin, end: the part of it that was read, the whole or a dict within."""

    tokens: tuple[Token, ...]
    begin: int
    end: int

    def has(self, *kinds: Kind) -> bool:
        """Whether a number of one of these kinds is there."""
        return any(token.kind in kinds for token in self.tokens)


def parse(line: str) -> Parsed:
    """The numbers of a line; where it holds a dict with a loss, those of the dict alone."""
    line = line[:_MAX_LINE]
    for found in _DICT.finditer(line):
        parsed = _of_dict(line, found.start(), found.end())
        if parsed.has("loss"):
            return _with_what_stands_before(line, parsed)
    return Parsed(tuple(_named(line)), 0, len(line))


def _with_what_stands_before(line: str, parsed: Parsed) -> Parsed:
    """A dict's numbers, and a step named before it: `Step 10: {...}`."""
    before = _named(line[: parsed.begin])
    if parsed.has("step") or not any(token.kind == "step" for token in before):
        return parsed
    return Parsed((*before, *parsed.tokens), 0, parsed.end)


def _of_dict(line: str, begin: int, end: int) -> Parsed:
    tokens = []
    validation = says_validation(line[max(0, begin - 60) : begin])
    for pair in _DICT_PAIR.finditer(line, begin, end):
        name = pair["name"]
        kind = kind_of(name)
        if validation and kind == "loss" and not names_training(name) and not is_validation(name):
            name = f"val {name}"
        if kind in ("step", "batch", "rank") and not pair["plain"].isdigit():
            kind = "noise"
        tokens.append(Token(name, kind, pair.start("plain"), pair.end("plain")))
    return Parsed(tuple(tokens), begin, end)


def _named(line: str) -> list[Token]:
    tokens: list[Token] = []
    phase: str | None = None
    before = 0
    waiting = ""  # the name before a number in parentheses, whose value comes behind it
    for found in _TOKEN.finditer(line):
        if found["skip"]:
            if phase is None and says_validation(line[before : found.start()]):
                phase = "val"
            before = found.end()
            continue
        group = "plain" if found["plain"] else "after"
        gap = line[before : found.start()]
        start, end = found.span(group)
        name = found["glued"] if group == "after" else name_before(gap, bool(tokens) or before > 0)
        if found[group][-1] in "nNfFyY" and _is_word(name, gap):
            continue
        if phase is None:
            phase = "val" if says_validation(gap) else "train" if names_training(gap) else None
        at_index = _loss_at_index(name)
        if at_index is not None:
            waiting, index = at_index
            tokens.append(_token(line, tokens, index, gap, start, end, phase))
        elif _numbers_a_name(line, name, gap, start, end):
            tokens.append(Token("", "noise", start, end))
            waiting = name
        else:
            tokens.append(_token(line, tokens, name or waiting, gap, start, end, phase))
            waiting = ""
        before = end
    return _with_epoch(_with_pair(line, tokens))


def _with_pair(line: str, tokens: list[Token]) -> list[Token]:
    """`[2,  2000] loss: 1.9` and `[2/5][20/90] loss: 1.9`: an epoch and a batch."""
    if [token.kind for token in tokens[:4]] == ["batch", "total"] * 2 and not any(t.kind == "epoch" for t in tokens):
        return [Token("epoch", "epoch", tokens[0].start, tokens[0].end), *tokens[1:]]
    if len(tokens) < 3 or tokens[0].name or tokens[1].name or not _EPOCH_AND_BATCH.match(line):
        return tokens
    epoch, batch = tokens[:2]
    return [
        Token("epoch", "epoch", epoch.start, epoch.end),
        Token("batch", "batch", batch.start, batch.end),
        *tokens[2:],
    ]


def _with_epoch(tokens: list[Token]) -> list[Token]:
    """`Train: 3 [ 10/1251]` and `Train: [3/300][10/1251]`: the number after "Train" is the epoch."""
    kinds = {token.kind for token in tokens}
    if "batch" not in kinds or kinds & {"epoch", "step"}:
        return tokens
    at = next((at for at, token in enumerate(tokens) if re.search(r"(?:^|\W)train(?:ing)?$", token.name, re.I)), None)
    if at is None or tokens[at].kind != "value":
        return tokens
    epoch = Token("epoch", "epoch", tokens[at].start, tokens[at].end)
    return [*tokens[:at], epoch, *tokens[at + 1 :]]


def _token(line: str, tokens: list[Token], name: str, gap: str, start: int, end: int, phase: str | None) -> Token:
    """The kind of a number, which may hang on the one before: `3/20` is one of a total."""
    last = tokens[-1] if tokens else None
    if last is not None and re.fullmatch(r"\s*(?:/|\bof\b)\s*", gap):
        if not last.name and last.kind == "noise" and _may_count(line, last):
            tokens[-1] = Token("batch", "batch", last.start, last.end)
            return Token("batches", "total", start, end)
        return Token(f"{last.name} total", "total" if last.kind in ("step", "batch", "epoch") else "noise", start, end)
    if not name:
        first = last is None and re.fullmatch(r"\s*\[?\s*", gap) and re.match(r"\s*\]|:[\s\t]", line[end:])
        return Token("iteration", "step", start, end) if first else Token("", "noise", start, end)
    if len(name) == 1 and name in "Ee":
        name = "epoch"
    kind = kind_of(name)
    if kind == "loss" and phase == "val" and not names_training(name) and not is_validation(name):
        name = f"val {name}"
    if kind in ("step", "batch", "rank") and not re.fullmatch(r"[-+]?[\d,]+(?:\.\d*)?", line[start:end]):
        kind = "noise"
    return Token(name, kind, start, end)


def _loss_at_index(name: str) -> tuple[str, str] | None:
    """`Loss at step` of "Loss at step 3: 0.5": the name of the loss that follows, and that of the index."""
    found = _LOSS_AT_INDEX.fullmatch(name)
    if found is None or kind_of(found["loss"]) != "loss" or kind_of(found["index"]) not in ("step", "batch", "epoch"):
        return None
    return found["loss"], found["index"]


def _numbers_a_name(line: str, name: str, gap: str, start: int, end: int) -> bool:
    """`Train Loss (12): 0.5`: a number in parentheses before the colon is not the loss."""
    in_parentheses = gap.rstrip().endswith("(") and re.match(r"\s*\)\s*[:=]\s*[-+.\dnNiI]", line[end:])
    return bool(in_parentheses) and line[start:end].isdigit() and kind_of(name) == "loss"


def _is_word(name: str, gap: str) -> bool:
    """Whether "nan" or "inf" is a word of the text: "number of nan iterations"."""
    return gap[-1:].isspace() and gap.rstrip()[-1:].isalnum() and not is_loss(name) and not has_a_role(name)


def _may_count(line: str, token: Token) -> bool:
    return line[token.start : token.end].replace(",", "").isdigit()


def name_before(gap: str, follows: bool) -> str:
    """The name that ends a gap between two numbers; "" where there is none."""
    text = _UNIT_AFTER.sub("", gap) if follows else gap
    text = _WRAPPED.sub("", text.rstrip()).rstrip().rstrip("=:>~≈|").rstrip()
    text = re.sub(r"\s*[(\[<{'\"$]*$", "", text).rstrip("=: '\"")
    text = _FILLER.sub("", text)
    unit = re.search(r"\s*\([a-zA-Z/%]{1,8}\)$", text)
    core = text[: unit.start()] if unit else text
    core = re.sub(r"\s*[:=]$", "", core)
    last = _SEPARATOR.split(core)[-1].strip(" '\"`*#_-:=<([.")
    words = last.split()
    if len(words) > 5:
        words = words[-3:]
    name = " ".join(words).rsplit("=", 1)[-1].strip(" '\"`*.")
    if not re.search(r"[^\W\d_]", name):
        return ""
    name = _LEADING.sub("", name) or name
    if ":" in name and not is_loss(name.rsplit(":", 1)[0]):
        name = name.rsplit(":", 1)[-1]
    return name
