// The page: a tab per run, and a comparison first where there are several.

const content = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main"), tabs = document.getElementById("tabs");

const comparison = () => {
  const keys = [...new Map(content.runs.flatMap((run) => run.summary.tenants.map((t) => [JSON.stringify([t.name, t.model]), t]))).entries()];
  const find = (run, key) => run.summary.tenants.find((t) => JSON.stringify([t.name, t.model]) === key);
  const rows = keys.flatMap(([key, first], i) => content.runs.map((run, r) => {
    const tenant = find(run, key);
    return element("tr", {},
      element("td", { class: "left" }, r ? "" : [element("i", { class: "dot", style: { background: cssColor(i) } }), first.name]),
      element("td", { class: "left quiet" }, r ? "" : first.model), element("td", { class: "left" }, run.label),
      ...(tenant ? [
        element("td", {}, `${percent(tenant.percentile, 0)} in ${duration(tenant.qos_us)}`),
        element("td", {}, attainmentMeter(tenant.attainment, tenant.percentile, i), element("span", { class: "share" }, percent(tenant.attainment))),
        ...[tenant.p50_us, tenant.p95_us, tenant.p99_us].map((us) => element("td", {}, duration(us))), element("td", {}, percent(tenant.coverage)),
        ...[tenant.requests, tenant.refused, tenant.dropped].map((count) => element("td", {}, number(count))),
        element("td", {}, metBadge(tenant.met)),
      ] : Array.from({ length: 10 }, () => element("td", { class: "quiet" }, "–"))));
  }));
  const head = ["Tenant", "Model", "Run", "Target", "In time", "p50", "p95", "p99", "As foretold", "Requests", "Refused", "Dropped", ""];
  return [
    element("div", { class: "head" }, element("h1", {}, "Runs side by side"), element("p", {}, content.runs.map((run) => `${run.label} (${run.source}, ${duration(run.summary.duration_us)})`).join(" · "))),
    card("", "Tenants", "Refused and dropped requests count as misses; percentiles are over answered ones.",
      element("div", { class: "scroll" }, element("table", { "aria-label": "What each tenant got in each run" },
        element("thead", {}, element("tr", {}, head.map((name, i) => element("th", { class: i < 3 ? "left" : "", scope: "col" }, name)))), element("tbody", {}, rows)))),
    ...content.runs.filter((run) => run.requests.id.length).map((run) => { const chart = attainmentChart(run); chart.querySelector("h2").textContent = `${run.label}: requests answered in time`; return chart; }),
  ];
};

const sections = content.runs.map((run) => [run.label, () => runSection(run)]);
if (content.runs.length > 1) sections.unshift(["Compare", comparison]);
const built = new Map();
const select = (chosen) => {
  sections.forEach(([, build], i) => {
    if (i === chosen && !built.has(i)) {
      const section = element("section", { role: "tabpanel", id: `panel${i}`, "aria-labelledby": `tab${i}` }, build());
      if (content.torn) section.prepend(element("p", { class: "note" }, `${content.torn} line${content.torn > 1 ? "s were" : " was"} cut short by a crash and left out.`));
      main.append(section);
      built.set(i, section);
    }
    if (built.has(i)) built.get(i).hidden = i !== chosen;
    const tab = tabs.children[i];
    tab.setAttribute("aria-selected", String(i === chosen));
    tab.tabIndex = i === chosen ? 0 : -1;
  });
  hideTip();
  redrawAll();
};
sections.forEach(([label], i) => tabs.append(element("button", { type: "button", role: "tab", id: `tab${i}`, "aria-controls": `panel${i}`, onclick: () => { location.hash = `run${i}`; select(i); } }, label)));
tabs.addEventListener("keydown", (event) => {
  const now = [...tabs.children].findIndex((tab) => tab.getAttribute("aria-selected") === "true");
  const next = { ArrowRight: now + 1, ArrowLeft: now - 1 }[event.key];
  if (next !== undefined && tabs.children[next]) { select(next); tabs.children[next].focus(); }
});
if (sections.length < 2) tabs.hidden = true;
const asked = Number(location.hash.replace("#run", ""));
select(Number.isInteger(asked) && asked < sections.length && location.hash ? asked : 0);
