// Draws the charts of a page over their static pictures, light or dark as the page is.
"use strict";
(() => {
  const source = document.getElementById("charts");
  if (!source || typeof vega === "undefined" || typeof vegaLite === "undefined") return;
  const { charts, palettes, config, dashes } = JSON.parse(source.textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const number = (value) => (typeof value === "number" ? Number(value.toPrecision(4)).toString() : String(value));

  const colored = (value, palette) => {
    if (Array.isArray(value)) return value.map((each) => colored(each, palette));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, colored(each, palette)]));
    return typeof value === "string" && value[0] === "@" ? palette[value.slice(1)] ?? value : value;
  };
  const rows = (packed) => {
    const names = Object.keys(packed);
    const columns = Object.fromEntries(Object.entries(packed).map(([name, column]) =>
      [name, column.runs ? column.runs.flatMap(([value, times]) => Array(times).fill(value)) : column]));
    return (columns[names[0]] ?? []).map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  };
  const element = (name, attributes = {}, text = "") => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  // How the line at a place in the order of series looks.
  const swatch = (place) => {
    const [svg, line] = ["svg", "line"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
    const drawn = { x1: 0, x2: 32, y1: 4, y2: 4, class: `line c${place % 8}`, "stroke-dasharray": dashes[place % dashes.length] };
    const frame = { class: "swatch", width: 32, height: 8, "aria-hidden": "true" };
    for (const [key, value] of Object.entries(frame)) svg.setAttribute(key, value);
    for (const [key, value] of Object.entries(drawn)) line.setAttribute(key, value);
    svg.append(line);
    return svg;
  };

  // What a pointer is over, as lines of name and value: text, never markup.
  const tip = element("div", { class: "tip", hidden: "" });
  document.body.append(tip);
  const tooltip = (_, event, item, value) => {
    tip.hidden = value === null || value === undefined || value === "";
    if (tip.hidden) return;
    const lines = typeof value === "object" ? Object.entries(value).filter(([, each]) => each !== "") : [["", value]];
    tip.textContent = lines.map(([key, each]) => (key ? `${key}: ${number(each)}` : number(each))).join("\n");
    const left = Math.min(event.pageX + 12, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${event.pageY + 14}px`;
  };

  // The page has keys of its own instead of legends, which wrap and can be reached by keyboard.
  const withoutLegend = (value) => {
    if (Array.isArray(value)) return value.map(withoutLegend);
    if (!value || typeof value !== "object") return value;
    const made = Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withoutLegend(each)]));
    return made.field === "series" && made.scale ? { ...made, legend: null } : made;
  };

  const whole = (chart, width, legend) => {
    const theme = palettes[isDark() ? "dark" : "light"];
    const spec = structuredClone(chart.spec);
    for (const view of spec.vconcat ?? [spec]) view.width = width;
    const datasets = Object.fromEntries(Object.entries(chart.data).map(([name, columns]) => [name, rows(columns)]));
    const shown = colored(legend ? spec : withoutLegend(spec), theme);
    return { background: theme.paper, config: colored(config, theme), datasets, ...shown };
  };

  const save = (name, href) => element("a", { download: name, href }).click();
  const csv = (chart) => {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const names = [...new Set(Object.values(chart.data).flatMap(Object.keys))];
    const lines = Object.entries(chart.data).flatMap(([part, columns]) =>
      rows(columns).map((row) => [part, ...names.map((name) => row[name])].map(cell).join(",")));
    return [["part", ...names].join(","), ...lines].join("\n") + "\n";
  };

  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const chart = charts[figure.dataset.chart];
    const live = element("div", { class: "live" });
    const legend = element("div", { class: "legend", role: "group", "aria-label": "series shown" });
    const tools = element("div", { class: "tools" });
    const hidden = new Set();
    let view = null;

    const draw = async () => {
      const room = Math.max(200, figure.clientWidth);
      let width = Math.max(chart.least, room - 90);
      for (let attempt = 0; attempt < 3; attempt++) {
        const drawn = await compiled(width, false);
        const over = live.firstElementChild.getBoundingClientRect().width - room;
        view = drawn;
        if (over <= 0 && over > -24) break;
        width = Math.max(chart.least, width - Math.ceil(over) - (over > 0 ? 1 : 0));
      }
    };
    const compiled = async (width, withLegend) => {
      view?.finalize();
      live.replaceChildren();
      const spec = whole(chart, width, withLegend);
      delete spec.title; // stands above the figure
      const next = new vega.View(vega.parse(vegaLite.compile(spec).spec), { renderer: "svg", container: live, hover: true });
      next.tooltip(tooltip);
      if (chart.names.length) next.signal("hidden", [...hidden]);
      await next.runAsync();
      live.querySelector("svg")?.setAttribute("aria-label", figure.dataset.title);
      for (const mute of live.querySelectorAll("[role=graphics-symbol]:not([aria-label])")) mute.removeAttribute("role");
      return next;
    };
    const picture = async () => {
      const spec = whole(chart, 640, true);
      return new vega.View(vega.parse(vegaLite.compile(spec).spec), { renderer: "none" });
    };

    chart.names.forEach((name, place) => {
      const key = element("button", { type: "button", "aria-pressed": "true", class: "key" });
      key.append(swatch(place), document.createTextNode(name));
      key.addEventListener("click", () => {
        const on = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", String(on));
        if (on) hidden.delete(name);
        else hidden.add(name);
        view.signal("hidden", [...hidden]).runAsync();
      });
      legend.append(key);
    });
    for (const kind of ["SVG", "PNG", "CSV"]) {
      const button = element("button", { type: "button", "aria-label": `download ${figure.dataset.title} as ${kind}` }, kind);
      const name = `${figure.dataset.name}.${kind.toLowerCase()}`;
      button.addEventListener("click", async () => {
        if (kind === "CSV") save(name, URL.createObjectURL(new Blob([csv(chart)], { type: "text/csv" })));
        else save(name, await (await picture()).toImageURL(kind.toLowerCase(), 2));
      });
      tools.append(button);
    }
    if (chart.zoom) tools.append(element("span", { class: "mouse" }, "Ctrl + wheel zooms, drag moves, double click resets"));

    figure.append(live, legend, tools);
    draw()
      .then(() => {
        figure.classList.add("drawn");
        dark.addEventListener("change", draw);
        let before = figure.clientWidth;
        new ResizeObserver(() => {
          if (Math.abs(figure.clientWidth - before) < 8) return;
          before = figure.clientWidth;
          requestAnimationFrame(draw); // after this look at the sizes, which drawing changes
        }).observe(figure);
      })
      .catch((error) => {
        for (const part of [live, legend, tools]) part.remove();
        console.error(error);
      });
  }
})();
