// What a page offers beside its text: commands that are copied by a click, tables that are sorted by one.
"use strict";
(() => {
  const button = (text, label) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (label) made.setAttribute("aria-label", label);
    return made;
  };

  for (const code of document.querySelectorAll("code.copy")) {
    const copy = button("copy", `copy ${code.textContent}`);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = "copied";
      } catch {
        window.getSelection().selectAllChildren(code);
        copy.textContent = "selected: press Ctrl + C";
      }
      setTimeout(() => { copy.textContent = "copy"; }, 2000);
    });
    code.after(" ", copy);
  }

  // A cell's first number, of "> 5" and "< 5" too; what has none comes last.
  const value = (row, column) => {
    const text = row.cells[column]?.innerText.trim() ?? "";
    const number = text.match(/^[<>~]?\s*(-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|-?inf)/i);
    return { text, number: number ? Number(number[1].replace("inf", "Infinity")) : null };
  };
  const compare = (a, b) => {
    if (a.number !== null && b.number !== null) return a.number - b.number;
    if (a.number !== null || b.number !== null) return a.number === null ? 1 : -1;
    return a.text.localeCompare(b.text);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    heads.forEach((head, column) => {
      const sort = button(head.textContent || "name");
      sort.className = "sort";
      head.replaceChildren(sort);
      sort.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
        const missing = ({ key }) => key.text === "" || key.text === "-";
        rows.sort((a, b) => missing(a) - missing(b) || (up ? compare(a.key, b.key) : compare(b.key, a.key)));
        body.append(...rows.map(({ row }) => row));
      });
    });
  }

  // What is folded away is printed too: paper has nothing to click.
  const folded = () => document.querySelectorAll("details:not([open])");
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...folded()];
    for (const each of opened) each.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });
})();
