"""A page in a real browser: what a reader of it would complain about.

Run by pytest through the fixture `complaints`; needs Chromium (CHROMIUM names another one's path).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = (390, 800, 1400)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

# Texts of a drawn chart that overlap, are cut off by their picture, or are missing.
PROBLEMS = """
() => {
  const found = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) found.push(`the page is ${root.scrollWidth} wide in ${root.clientWidth}`);
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    if (!figure.getClientRects().length) continue;
    const name = figure.dataset.name;
    const svg = figure.querySelector(".live svg");
    if (!svg) { found.push(`${name} is not drawn`); continue; }
    const frame = svg.getBoundingClientRect();
    const beyond = frame.right - root.clientWidth;
    if (beyond > 1) found.push(`${name} reaches ${beyond} beyond the window`);
    const texts = [...svg.querySelectorAll("text")].filter((t) => t.textContent.trim()
      && getComputedStyle(t).opacity !== "0" && getComputedStyle(t).display !== "none");
    const boxes = texts.map((t) => [t.textContent, t.getBoundingClientRect()]);
    const few = (labels) => {
      const words = [...labels.querySelectorAll("text")].map((text) => text.textContent).filter(Boolean);
      return words.length < 1 + words.every((word) => Number.isFinite(Number(word.replace("\u2212", "-"))));
    };
    const ends = [...svg.querySelectorAll(".role-axis-label")].filter(few);
    if (!svg.querySelector(".role-axis-label") || ends.length) found.push(`${name} has an axis with too few ticks`);
    if (!svg.querySelector(".role-axis-title")) found.push(`${name} has no axis title`);
    for (const [text, box] of boxes)
      if (box.left < frame.left - 1 || box.right > frame.right + 1
        || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.push(`${name}: "${text}" is cut off`);
    for (let i = 0; i < boxes.length; i++)
      for (let j = i + 1; j < boxes.length; j++) {
        const [a, b] = [boxes[i][1], boxes[j][1]];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 2 && high > 3) found.push(`${name}: "${boxes[i][0]}" overlaps "${boxes[j][0]}"`);
      }
  }
  for (const box of document.querySelectorAll("h1, h2, p, li, td, th, summary, button"))
    if (box.scrollWidth > box.clientWidth + 2 && getComputedStyle(box).overflowX === "hidden")
      found.push(`"${box.textContent.slice(0, 40)}" is clipped`);
  return found;
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; the test is skipped where there is none, unless STRESSTEST_BROWSER asks for it."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None and "STRESSTEST_BROWSER" not in os.environ:
        pytest.skip("no Chromium: install one, or name it in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, path: Path, width: int, scheme: Any, **context: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page of a file, drawn, and what the browser said of it."""
    said: list[str] = []
    with browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **context
    ) as made:
        page = made.new_page()
        page.on("console", lambda message: said.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on(
            "request", lambda request: said.append(f"asks for {request.url}") if request.url != path.as_uri() else None
        )
        page.goto(path.as_uri())
        yield page, said


def complaints_of(browser: Browser, path: Path) -> list[str]:
    """What is wrong with a page at three widths, light and dark, with everything folded out; nothing of a good one."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        with opened(browser, path, WIDTHS[0], scheme) as (page, said):
            page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(250)
                page.wait_for_function("document.querySelectorAll('figure[data-chart]:not(.drawn)').length === 0")
                found += [f"{width} {scheme}: {each}" for each in page.evaluate(PROBLEMS)]
            found += said
            for violation in Axe().run(page).response["violations"]:
                places = [node["html"][:80] for node in violation["nodes"][:3]]
                found.append(f"{scheme}: {violation['id']}: {violation['help']}: {places}")
    return found
