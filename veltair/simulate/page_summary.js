// The first screen: what the lead policy reaches, and every policy in one table.

const lead = policies[content.lead];
const baselineName = content.baseline == null ? null : policies[content.baseline].name;
const rivalName = content.best_rival == null ? null : policies[content.best_rival].name;
const seedsText = (values, text) => values.map((value, i) => `${scenario.seeds[i] ?? i}: ${text(value)}`).join(", ");

const headline = () => {
  const { machine, tenants, models, seeds } = scenario;
  const parts = [
    plural(machine.cores, "core"), `${plural(tenants.length, "tenant")} of ${plural(models.length, "model")}`,
    `${plural(scenario.requests, "request")} a run, the first ${percent(scenario.warmup, 0)} not counted`, plural(seeds.length, "seed"),
    ...(policies.length > 1 ? [plural(policies.length, "policy", "policies")] : []),
  ];
  return element("div", { class: "head" }, element("h1", {}, scenario.name), element("p", {}, parts.join(" · ")));
};

const tile = (value, small, name, title = "") =>
  element("div", { class: "tile", title }, element("b", {}, value, small ? element("small", {}, ` ${small}`) : null), element("span", {}, name));
const ratioTile = (ratio, name) => (ratio == null ? null : tile(times(ratio.of), "", `largest load over ${name}`, `by seed ${seedsText(ratio.by_seed, times)}`));

const tiles = () => {
  const { largest, at_load: same } = lead;
  const base = content.baseline == null || content.baseline === content.lead ? null : policies[content.baseline].at_load;
  const change = base && base.mean_latency_us > 0 && same.mean_latency_us > 0 ? same.mean_latency_us / base.mean_latency_us - 1 : null;
  const spread = (largest.high_per_s - largest.low_per_s) / 2;
  return element("div", { class: "tiles" },
    tile(rate(largest.per_s), `± ${rate(spread)} /s`, `${lead.name}: largest load that keeps every tenant's target`, `95 % interval ${rate(largest.low_per_s)} to ${rate(largest.high_per_s)} requests a second`),
    ratioTile(lead.over_baseline, baselineName),
    rivalName === baselineName ? null : ratioTile(lead.over_best_rival, `${rivalName}, the best rival`),
    tile(duration(same.mean_latency_us), change == null ? "" : Math.abs(change) < 0.005 ? `as ${baselineName}` : `${change > 0 ? "+" : "−"}${Math.abs(change * 100).toFixed(0)} % against ${baselineName}`, `mean latency at ${rate(same.per_s)}/s`),
    tile(percent(same.core_use, 0), "", `of core time leased at ${rate(same.per_s)}/s`),
    tile(percent(same.conflict_rate), "", "of units got fewer cores than they wanted"));
};

const rangeBar = (largest, i) => {
  const most = Math.max(...policies.map((policy) => Math.max(policy.largest.per_s, policy.largest.high_per_s)), 1e-9);
  const share = (value) => `${(Math.max(value, 0) / most) * 100}%`;
  return element("span", { class: "range", "aria-hidden": "true" },
    element("i", { style: { width: share(largest.per_s), background: policyColor(i) } }),
    element("u", { style: { left: share(largest.low_per_s), width: share(largest.high_per_s - Math.max(largest.low_per_s, 0)) } }));
};

const limitText = (limit) => (limit == null ? "nobody at the loads tried" : tenantLabel(limit.tenant));
const policyTable = () => {
  const several = policies.length > 1;
  const columns = [
    ["Largest load, req/s", (p, i) => element("td", { title: `by seed ${seedsText(p.largest.per_seed_per_s, rate)}` },
      rate(p.largest.per_s), element("span", { class: "about" }, ` ${rate(p.largest.low_per_s)}–${rate(p.largest.high_per_s)}`), rangeBar(p.largest, i))],
    ["Of capacity", (p) => element("td", {}, percent(p.largest.of_capacity, 0))],
    ...(several && baselineName != null ? [[`Over ${baselineName}`, (p, i) => ratioCell(p.over_baseline, i === content.baseline, baselineName)]] : []),
    ...(several && rivalName != null && rivalName !== baselineName ? [[`Over ${rivalName}`, (p, i) => ratioCell(p.over_best_rival, i === content.best_rival, rivalName)]] : []),
    ["Limited by", (p) => element("td", { class: "left name", title: p.limit ? `${percent(p.limit.attainment)} in QoS at ${rate(p.limit.per_s)} requests a second` : "" }, p.curve.per_s.length ? limitText(p.limit) : "–")],
    ["In QoS", (p) => element("td", {}, percent(p.at_load.attainment))],
    ["Mean latency", (p) => element("td", {}, duration(p.at_load.mean_latency_us))],
    ["Core use", (p) => element("td", {}, percent(p.at_load.core_use, 0))],
    ["Conflicts", (p) => element("td", {}, percent(p.at_load.conflict_rate))],
    ["Mean latency", (p) => element("td", {}, duration(p.at_largest?.mean_latency_us))],
    ["Core use", (p) => element("td", {}, percent(p.at_largest?.core_use, 0))],
    ["Conflicts", (p) => element("td", {}, percent(p.at_largest?.conflict_rate))],
  ];
  const found = columns.length - 7;
  const rows = policies.map((policy, i) => element("tr", {},
    element("th", { class: "left", scope: "row" }, element("span", { class: "key" }, policyKey(i)), policy.name), columns.map(([, cell]) => cell(policy, i))));
  return anchored("policies", card("", "Policies", `The largest load at which every tenant keeps its share of requests in QoS, with its 95 % interval over ${plural(scenario.seeds.length, "seed")}; then what each did.`,
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Policies" }, element("table", { "aria-label": "Policies" },
      element("thead", {},
        element("tr", {}, element("td"), element("th", { class: "group", colspan: found, scope: "colgroup" }, "found"),
          element("th", { class: "group", colspan: 4, scope: "colgroup" }, `at ${rate(policies[0].at_load.per_s)} requests a second`),
          element("th", { class: "group", colspan: 3, scope: "colgroup" }, "at its own largest load")),
        element("tr", {}, element("th", { class: "left", scope: "col" }, "Policy"), columns.map(([name]) => element("th", { class: name === "Limited by" ? "left" : "", scope: "col" }, name)))),
      element("tbody", {}, rows)))));
};
const ratioCell = (ratio, itself, other) => element("td", { title: ratio ? `by seed ${seedsText(ratio.by_seed, times)}` : itself ? "" : `${other} keeps the targets at no load tried` }, itself ? "1" : times(ratio?.of));
