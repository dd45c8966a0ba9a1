// Plots drawn as SVG, so that they print sharp. Every line has a colour and a mark of its own shape: colour alone never tells.

const content = JSON.parse(document.getElementById("data").textContent);
const { scenario, policies } = content;

const SVG = document.getElementById("shapes").namespaceURI; // the page names no address, not even that of a namespace
const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) node.setAttribute(name, value);
  node.append(...children.flat().filter((child) => child != null));
  return node;
};

const MARKS = [
  (r) => `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`, // circle
  (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`, // square
  (r) => `M0 ${-1.25 * r}L${1.2 * r} ${r}H${-1.2 * r}Z`, // triangle
  (r) => `M0 ${-1.4 * r}L${1.4 * r} 0L0 ${1.4 * r}L${-1.4 * r} 0Z`, // diamond
  (r) => `M0 ${1.25 * r}L${1.2 * r} ${-r}H${-1.2 * r}Z`, // triangle on its tip
  (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`, // x
  (r) => `M${-1.2 * r} 0H${1.2 * r}M0 ${-1.2 * r}V${1.2 * r}`, // plus
  (r) => `M${-1.2 * r} ${-r}H${1.2 * r}M0 ${-r}V${1.2 * r}`, // T
  (r) => `M${-r} ${-r}L0 ${r}L${r} ${-r}`, // V
];
const policyColor = (i) => (i % 9 === 8 ? "var(--ink)" : `var(--t${i % 9})`);
const policyDash = (i) => (i < 9 ? null : "6 3");
const policyMark = (i, x, y, size = 3.6) => {
  const open = i % 9 >= 5;
  return svg("path", { d: MARKS[i % 9](size), transform: `translate(${x} ${y})`, fill: open ? "none" : policyColor(i), stroke: policyColor(i), "stroke-width": open ? 2 : 1 });
};
const policyKey = (i) =>
  svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: policyColor(i), "stroke-width": i === content.lead ? 3 : 2, "stroke-dasharray": policyDash(i) }), policyMark(i, 13, 6));

const tenantLabel = (i) => {
  const { name, model } = scenario.tenants[i];
  return name === model || scenario.tenants.filter((other) => other.name === name).length < 2 ? name : `${name} · ${model}`;
};

const rate = (perSecond) => (perSecond == null ? "–" : perSecond.toLocaleString("en-US", { maximumSignificantDigits: perSecond < 1000 ? 3 : 4 }));
const times = (ratio) => (ratio == null ? "–" : `${ratio.toFixed(2)}×`);
const shortTime = (us) => (us < 1000 ? `${+us.toPrecision(3)} µs` : us < 1e6 ? `${+(us / 1000).toPrecision(3)} ms` : `${+(us / 1e6).toPrecision(3)} s`);
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
// 1, 2, 3, 4, 8 → "1–4, 8"
const ranges = (values) => {
  const parts = [];
  for (const value of [...values].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && value === last[1] + 1) last[1] = value; else parts.push([value, value]);
  }
  return parts.map(([a, b]) => (a === b ? `${a}` : b === a + 1 ? `${a}, ${b}` : `${a}–${b}`)).join(", ");
};

const logTicks = (from, to, factors = [1, 2, 5]) => {
  const values = [];
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power++) for (const factor of factors) {
    const value = factor * 10 ** power;
    if (value >= from * 0.999 && value <= to * 1.001) values.push(value);
  }
  return values;
};

// x and y: { from, to, ticks(pixels), label(value), title, log }. `paint(box)` returns nodes; `inspect(value)`, where given,
// returns { at, title, facts } for the value under the pointer, or null; arrow keys walk along `stops`, ascending values of x.
const plot = (description, height, x, y, paint, inspect = null, stops = []) => {
  const host = element("div", { class: "plot" });
  let width = 0, box = null, root = null, cursor = null, stop = -1;
  const scale = (axis, low, high) => {
    const f = axis.log ? Math.log10 : (value) => value;
    const [a, b] = [f(axis.from), f(axis.to)];
    return [(value) => low + ((f(value) - a) / (b - a || 1)) * (high - low),
      (pixel) => { const v = a + ((pixel - low) / (high - low)) * (b - a); return axis.log ? 10 ** v : v; }];
  };
  const draw = () => {
    const left = 50, right = width - 14, top = 8, bottom = height - (x.title ? 40 : 22);
    const [toX, fromX] = scale(x, left, right);
    const [toY] = scale(y, bottom, top);
    box = { left, right, top, bottom, toX, toY, fromX };
    let last = -Infinity;
    const marks = [
      ...y.ticks(bottom - top).map((value) => [
        svg("line", { class: "grid", x1: left, x2: right, y1: toY(value), y2: toY(value) }),
        svg("text", { x: left - 8, y: toY(value) + 4, "text-anchor": "end" }, y.label(value))]),
      svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      ...x.ticks(right - left).flatMap((value) => {
        const at = toX(value), text = x.label(value), half = text.length * 3.2;
        const tick = svg("line", { class: "axis", x1: at, x2: at, y1: bottom, y2: bottom + 4 });
        if (at - half < last + 8 || at + half > width) return [tick];
        last = at + half;
        return [tick, svg("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, text)];
      }),
      x.title ? svg("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, x.title) : null,
    ];
    cursor = svg("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
    root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description, tabindex: inspect ? 0 : null }, marks.flat(), cursor, paint(box));
    if (inspect) listen();
    host.replaceChildren(root);
  };
  const show = (value, clientX, clientY) => {
    const found = inspect(value);
    if (!found) { leave(); return; }
    const at = box.toX(found.at);
    for (const [name, to] of [["x1", at], ["x2", at], ["visibility", "visible"]]) cursor.setAttribute(name, to);
    showTip(clientX, clientY, found.title, found.facts);
  };
  const leave = () => { cursor.setAttribute("visibility", "hidden"); hideTip(); };
  const listen = () => {
    root.addEventListener("pointermove", (event) => {
      const bounds = root.getBoundingClientRect();
      const at = ((event.clientX - bounds.left) / bounds.width) * width;
      if (at < box.left - 6 || at > box.right + 6) leave(); else show(box.fromX(at), event.clientX, event.clientY);
    });
    root.addEventListener("pointerleave", leave);
    root.addEventListener("blur", leave);
    root.addEventListener("keydown", (event) => {
      const next = { ArrowRight: stop + 1, ArrowLeft: stop - 1, Home: 0, End: stops.length - 1 }[event.key];
      if (event.key === "Escape") leave();
      if (next === undefined || !stops.length) return;
      event.preventDefault();
      stop = Math.max(0, Math.min(stops.length - 1, next));
      const bounds = root.getBoundingClientRect();
      show(stops[stop], bounds.left + (box.toX(stops[stop]) / width) * bounds.width, bounds.top + bounds.height / 3);
    });
  };
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now > 0 && now !== width) { width = now; requestAnimationFrame(draw); }
  }).observe(host);
  return { host, redraw: () => { if (width) draw(); } };
};

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
const shareAxis = (title) => ({ from: 0, to: 1.0, ticks: (pixels) => (pixels < 140 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]), label: (share) => `${Math.round(share * 100)} %`, title });

const table = (label, head, rows, lefts = 1, tall = false) =>
  element("div", { class: `scroll${tall ? " tall" : ""}`, tabindex: 0, role: "region", "aria-label": label }, element("table", { "aria-label": label },
    element("thead", {}, element("tr", {}, head.map((name, i) => element("th", { class: i < lefts ? "left" : "", scope: "col" }, name)))), element("tbody", {}, rows)));
const anchored = (id, node) => { node.id = id; return node; };
const choose = (label, options, chosen, onchange) => {
  const select = element("select", { "aria-label": label, onchange: () => onchange(Number(select.value)) },
    options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
  return element("label", { class: "chosen" }, label, select);
};
