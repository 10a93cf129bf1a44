"""A verdict as JUnit XML: one test case for each line."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from stresstest.gate.records import PASSES, UNDECIDED, CheckVerdict, GateLine, LimitLine
from stresstest.gate.verdict_words import limit_words, place_name, told_words

_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(verdict: CheckVerdict) -> str:
    """A crossed gate is a failure, a cell without a result an error, what is undecided is skipped.

    What is at level warn never fails; with --lenient nothing changes, as skipped cases fail no job.
    """
    suite = Xml.Element("testsuite", name=_clean(f"stresstest.{verdict.scenario}"))
    for failure in verdict.failures:
        Xml.SubElement(_case(suite, verdict, failure), "error", message=_clean(failure))
    lines: list[GateLine | LimitLine] = [*verdict.lines, *verdict.limits]
    for line in lines:
        _add(suite, verdict, line)
    counts = {tag: len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")}
    names = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    suite.set("tests", str(len(suite)))
    for tag, number in counts.items():
        suite.set(names[tag], str(number))
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(suite: Xml.Element, verdict: CheckVerdict, line: GateLine | LimitLine) -> None:
    case = _case(suite, verdict, f"{place_name(line.place, line.metric)} {line.threshold}")
    if isinstance(line, LimitLine):
        said, good = f"{line.threshold}: {limit_words(line)}", line.passed
        bad, undecided = not good, False
    else:
        said = f"{line.verdict}: {', '.join(told_words(line))} {line.reason}".strip()
        bad, undecided = line.verdict == "regressed", line.verdict in UNDECIDED
        good = line.verdict in PASSES
        properties = Xml.SubElement(case, "properties") if line.differences else None
        for seed, (low, high) in line.differences.items():
            value = "" if low is None else f"{low:g}" if low == high else f"{low:g}.."
            assert properties is not None, "there are differences"
            Xml.SubElement(properties, "property", name=f"seed {seed} ({line.unit})", value=value or f"..{high}")
    if bad and line.level == "error":
        Xml.SubElement(case, "failure", message=_clean(said)).text = _clean(line.reproduce)
    elif not good and not bad and not undecided:
        Xml.SubElement(case, "error", message=_clean(said))
    elif not good:
        Xml.SubElement(case, "skipped", message=_clean(said))


def _case(suite: Xml.Element, verdict: CheckVerdict, name: str) -> Xml.Element:
    return Xml.SubElement(suite, "testcase", classname=_clean(f"stresstest.{verdict.scenario}"), name=_clean(name))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
