"""JUnit XML: a suite of test cases, as CI systems read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.etree import ElementTree as Xml

Told = Literal["", "failure", "error", "skipped"]

_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COUNTS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True)
class Case:
    """One test case: what is told of it, in a line and in more; nothing of one that passes."""

    name: str
    told: Told = ""
    message: str = ""
    text: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


def render_suite(name: str, cases: Sequence[Case]) -> str:
    """The XML of one suite; characters that XML forbids become question marks."""
    suite = Xml.Element("testsuite", name=_clean(name), tests=str(len(cases)))
    for told, count in _COUNTS.items():
        suite.set(count, str(sum(case.told == told for case in cases)))
    for case in cases:
        _add(suite, name, case)
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(suite: Xml.Element, classname: str, case: Case) -> None:
    element = Xml.SubElement(suite, "testcase", classname=_clean(classname), name=_clean(case.name))
    if case.properties:
        properties = Xml.SubElement(element, "properties")
        for key, value in case.properties.items():
            Xml.SubElement(properties, "property", name=_clean(key), value=_clean(value))
    if case.told:
        told = Xml.SubElement(element, case.told, message=_clean(case.message))
        told.text = _clean(case.text) or None


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
