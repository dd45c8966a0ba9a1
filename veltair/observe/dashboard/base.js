// Small helpers: elements, numbers with units, colours. Text from a log only ever enters the page as text.

const element = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
};

const duration = (us) => {
  if (us == null) return "–";
  const size = Math.abs(us);
  if (size < 1000) return `${Math.round(us)} µs`;
  if (size < 1e6) return `${(us / 1000).toFixed(size < 1e4 ? 2 : size < 1e5 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(size < 1e7 ? 2 : 1)} s`;
};
const percent = (share, digits = 1) => (share == null ? "–" : `${(share * 100).toFixed(digits)} %`);
const number = (value) => (value == null ? "–" : value.toLocaleString("en-US"));

const colorNumber = (tenant) => tenant % 8;
const cssColor = (tenant) => `var(--t${colorNumber(tenant)})`;
const theme = () => {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    ink: read("--ink"), quiet: read("--quiet"), line: read("--line"), soft: read("--soft"), card: read("--card"),
    accent: read("--accent"), bad: read("--bad"), tenants: Array.from({ length: 8 }, (_, i) => read(`--t${i}`)),
  };
};

const tenantName = (run, tenant) => {
  const { name, model } = run.tenants[tenant];
  return run.tenants.filter((other) => other.name === name).length > 1 ? `${name} · ${model}` : name;
};
const legend = (run) =>
  element("div", { class: "legend" },
    run.tenants.map((_, i) => element("span", {}, element("i", { class: "dot", style: { background: cssColor(i) } }), tenantName(run, i))));

const card = (size, title, about, ...content) =>
  element("div", { class: `card ${size}` }, element("h2", {}, title), element("p", {}, about), ...content);
const empty = (text) => element("div", { class: "empty" }, text);

const tip = document.getElementById("tip");
const hideTip = () => { tip.hidden = true; };
const showTip = (x, y, title, facts) => {
  tip.replaceChildren(element("b", {}, title),
    element("dl", {}, facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 16 + height > innerHeight ? Math.max(6, y - height - 12) : y + 16}px`;
};

// Round steps for axes: 1, 2 or 5 times a power of ten.
const roundStep = (span, count) => {
  const raw = span / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  return power * ([1, 2, 5, 10].find((factor) => power * factor >= raw) ?? 10);
};
const ticks = (from, to, count) => {
  const step = roundStep(to - from, count);
  const values = [];
  for (let i = Math.ceil(from / step - 1e-9) + 0; i * step <= to + step * 1e-6; i++) values.push(i * step);
  return values;
};
