"""A document as one self-contained HTML page: no network, readable without JavaScript, light and dark."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from stresstest.reports.charts import svg_charts
from stresstest.reports.document import Document

KIND = "html"


def render(document: Document) -> str:
    """The page's text; what comes from a user is text on it, never markup."""
    environment = Environment(
        loader=PackageLoader("stresstest", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2")
    return page.render(
        document=document,
        blocks=document.shown_in(KIND),
        kind_of=lambda block: type(block).__name__,
        charts=svg_charts,
    ).lstrip()
