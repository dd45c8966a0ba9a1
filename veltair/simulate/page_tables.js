// What each tenant got, and what was simulated.

const ALL = -1;
const meter = (share, goal, i) =>
  element("span", { class: "meter", role: "img", "aria-label": `${percent(share)} in QoS, target ${percent(goal, 0)}` },
    element("i", { style: { width: `${(share ?? 0) * 100}%`, background: tenantCss(i) } }), element("u", { style: { left: `calc(${goal * 100}% - 1px)` } }));
const fate = (met) => element("span", { class: `badge ${met == null ? "none" : met ? "good" : "bad"}`, role: "img", "aria-label": met == null ? "none asked" : met ? "target met" : "target not met" }, met == null ? "–" : met ? "✓" : "✗");

const tenantCells = (outcome, tenant, i) => {
  if (!outcome) return Array.from({ length: 13 }, () => element("td", { class: "quiet" }, "–"));
  const { latency } = outcome, share = outcome.asked ? outcome.attainment : null;
  return [
    element("td", {}, meter(share, tenant.percentile, i), element("span", { class: "share" }, percent(share)), fate(share == null ? null : share >= tenant.percentile)),
    ...["asked", "late", "refused", "dropped"].map((name) => element("td", {}, number(outcome[name]))),
    ...["p50_us", "p95_us", "p99_us"].map((name) => element("td", {}, duration(latency?.[name]))),
    element("td", {}, latency ? duration(outcome.queued_mean_us) : "–"), element("td", {}, latency ? duration(outcome.core_us_per_request) : "–"),
    element("td", {}, outcome.units_per_request ? outcome.units_per_request.toFixed(1) : "–"), element("td", {}, outcome.cores_per_unit ? outcome.cores_per_unit.toFixed(1) : "–"),
    element("td", {}, percent(outcome.coverage)),
  ];
};
const tenantsCard = () => {
  let look = "at_load", which = scenario.tenants.length * policies.length <= 24 ? ALL : content.lead;
  const head = ["Tenant", "Policy", "QoS", "In QoS", "Asked", "Late", "Refused", "Dropped", "p50", "p95", "p99", "Queued", "Core time", "Units", "Cores", "Coverage"];
  const host = element("div", { class: "dense" });
  const fill = () => {
    const shown = which === ALL ? policies.map((_, i) => i) : [which];
    const rows = scenario.tenants.flatMap((tenant, i) => shown.map((p, place) => {
      const detail = policies[p][look];
      return element("tr", { class: place === 0 && i > 0 && shown.length > 1 ? "first" : "" },
        element("td", { class: "left name", title: tenantLabel(i) }, place ? "" : [element("i", { class: "dot", style: { background: tenantCss(i) } }), tenantLabel(i)]),
        element("td", { class: "left" }, element("span", { class: "key" }, policyKey(p)), policies[p].name, look === "at_largest" && detail ? element("span", { class: "about" }, ` at ${rate(detail.per_s)}/s`) : null),
        element("td", {}, place ? "" : `${percent(tenant.percentile, 0)} in ${duration(tenant.qos_us)}`), tenantCells(detail?.tenants[i], tenant, i));
    }));
    host.replaceChildren(table("What each tenant got", head, rows, 2, rows.length > 24));
  };
  fill();
  const selects = element("div", { class: "tools" },
    policies.length > 1 ? choose("Policy", [[ALL, "all"], ...policies.map(({ name }, i) => [i, name])], which, (value) => { which = value; fill(); }) : null,
    policies.some((policy) => policy.at_largest) ? choose("At", [[0, `${rate(lead.at_load.per_s)} requests a second`], [1, "each policy's own largest load"]], 0, (value) => { look = value ? "at_largest" : "at_load"; fill(); }) : null);
  return anchored("tenants", card("", "Tenants",
    "Refused and dropped requests count as missed; times and what follows are of answered ones. Core time: cores times time a request; units: a request; cores: a unit. Coverage: answers within the interval foretold on arrival, which aims at 90 %.",
    element("div", { class: "bar-row" }, element("span"), selects), host));
};

const bytes = (count) => (count == null ? "–" : count >= 1e9 ? `${(count / 1e9).toFixed(2)} GB` : count >= 1e6 ? `${(count / 1e6).toFixed(1)} MB` : count >= 1e3 ? `${(count / 1e3).toFixed(0)} kB` : `${count} B`);
const aloneText = (alone) => {
  const entries = Object.entries(alone).map(([cores, us]) => [Number(cores), us]).sort((a, b) => a[0] - b[0]);
  if (!entries.length) return "–";
  const [narrow] = entries, fast = entries.reduce((best, each) => (each[1] < best[1] ? each : best));
  return narrow === fast ? `${duration(fast[1])} on ${fast[0]}` : `${duration(narrow[1])} on ${narrow[0]}, ${duration(fast[1])} on ${fast[0]}`;
};
const scenarioCard = () => {
  const { machine, models, tenants } = scenario;
  const modelled = models.filter((model) => model.modelled_cores.length).length;
  const costs = `${modelled === 0 ? "as the sources below give them at every core count" : `as the sources below give them; ${modelled === models.length ? "for every model" : `for ${modelled} of ${models.length} models`} the core counts that nobody measured are filled in by a scaling law`}`;
  const facts = [
    ["Machine", `${plural(machine.cores, "core")}; ${machine.places}; ${(machine.bandwidth_bytes_per_us / 1000).toFixed(1)} GB/s to memory${machine.weights_budget_bytes == null ? "; all weights resident" : `; ${bytes(machine.weights_budget_bytes)} for weights`}`],
    ["Arrivals", [...new Set(tenants.map((tenant) => tenant.arrivals))].slice(0, 6).join("; ")],
    ["Runs", `${plural(scenario.requests, "request")} each on average, the first ${percent(scenario.warmup, 0)} not counted; seeds ${ranges(scenario.seeds)}`],
    ["Times", costs + (scenario.noise ? `; every unit's time varies by a log-normal factor, σ ${scenario.noise}` : "; they do not vary")],
    ["Interference", (scenario.interference ? "units that run together slow each other down, by their variants' measured or modelled sensitivities" : "none: co-runners do not slow each other down") + scenario.outside.map(([second, pressure, cores]) => `; from ${second} s on outsiders press with ${percent(pressure, 0)} of the bandwidth${cores ? ` and hold ${cores} core${cores > 1 ? "s" : ""}` : ""}`).join("") + (scenario.aware ? "" : "; the scheduler knows nothing of it")],
    ["Between units", `${duration(scenario.handover_us)} to hand cores over`],
    ["Capacity", `${rate(scenario.capacity_per_s)} requests a second would keep every core busy, each model on its thriftiest core count`],
  ];
  const modelRows = models.map((model) => element("tr", {},
    element("th", { class: "left name", scope: "row", title: model.name }, model.name), element("td", { class: "left wrap" }, model.source), element("td", {}, number(model.blocks)), element("td", {}, number(model.variants)),
    element("td", {}, ranges(model.measured_cores) || "–"), element("td", {}, ranges(model.modelled_cores) || "–"), element("td", {}, aloneText(model.alone_us)),
    element("td", {}, model.weights_bytes ? bytes(model.weights_bytes) : "–"), element("td", {}, model.load_us ? duration(model.load_us) : "–")));
  const tenantRows = tenants.map((tenant, i) => element("tr", {},
    element("th", { class: "left name", scope: "row", title: tenant.name }, element("i", { class: "dot", style: { background: tenantCss(i) } }), tenant.name), element("td", { class: "left name", title: tenant.model }, tenant.model), element("td", { class: "left" }, tenant.arrivals),
    element("td", {}, percent(tenant.share)), element("td", {}, `${percent(tenant.percentile, 0)} in ${duration(tenant.qos_us)}`),
    element("td", {}, number(tenant.priority)), element("td", {}, number(tenant.weight)), element("td", {}, tenant.precision)));
  return anchored("simulated", card("", "What was simulated", "The engine's own scheduler on a virtual clock. The same arguments give this page again, byte for byte.",
    element("dl", { class: "facts" }, facts.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])),
    element("h3", { class: "sub" }, "Models and where their times come from"),
    table("Models", ["Model", "Source", "Blocks", "Variants", "Given on cores", "Modelled on cores", "Alone, on cores", "Weights", "To load"], modelRows, 2, models.length > 24),
    element("h3", { class: "sub" }, "Tenants as asked for"),
    table("Tenants as asked for", ["Tenant", "Model", "Arrivals", "Share of requests", "QoS", "Priority", "Weight", "Precision"], tenantRows, 3, tenants.length > 24)));
};
