// One run of an engine: all cards of its tab.

const attainmentMeter = (share, target, tenant) =>
  element("span", { class: "meter", role: "img", "aria-label": `${percent(share)} of requests in time, target ${percent(target, 0)}` },
    element("i", { style: { width: `${(share ?? 0) * 100}%`, background: cssColor(tenant) } }), element("u", { style: { left: `calc(${target * 100}% - 1px)` } }));
const metBadge = (met) =>
  element("span", { class: `badge ${met == null ? "none" : met ? "good" : "bad"}` }, met == null ? "no requests" : met ? "✓ met" : "✗ not met");

const tenantTable = (run) => {
  const head = ["Tenant", "Model", "Target", "In time", "p50", "p95", "p99", "As foretold", "Requests", "Refused", "Dropped", ""];
  const rows = run.summary.tenants.map((tenant, i) =>
    element("tr", {},
      element("td", { class: "left" }, element("i", { class: "dot", style: { background: cssColor(i) } }), tenant.name),
      element("td", { class: "left quiet" }, tenant.model),
      element("td", {}, `${percent(tenant.percentile, 0)} in ${duration(tenant.qos_us)}`),
      element("td", {}, attainmentMeter(tenant.attainment, tenant.percentile, i), element("span", { class: "share" }, percent(tenant.attainment))),
      ...[tenant.p50_us, tenant.p95_us, tenant.p99_us].map((us) => element("td", {}, duration(us))), element("td", {}, percent(tenant.coverage)),
      ...[tenant.requests, tenant.refused, tenant.dropped].map((count) => element("td", {}, number(count))),
      element("td", {}, metBadge(tenant.met))));
  return element("div", { class: "scroll" }, element("table", { "aria-label": "What each tenant got" },
    element("thead", {}, element("tr", {}, head.map((name, i) => element("th", { class: i < 2 ? "left" : "", scope: "col" }, name)))),
    element("tbody", {}, rows)));
};

const attainmentChart = (run) => {
  const { requests } = run;
  const span = Math.max(run.end_us - run.begin_us, 1);
  const windows = Math.min(40, Math.max(8, requests.id.length / (10 * run.tenants.length))); // some ten requests in each
  const step = Math.max(roundStep(span, windows), 1000);
  const bins = Math.ceil(span / step);
  const total = run.tenants.map(() => new Array(bins).fill(0)), good = run.tenants.map(() => new Array(bins).fill(0));
  requests.arrived.forEach((at, i) => {
    if (requests.outcome[i] === "open" && !(requests.deadline[i] < run.end_us)) return;
    const bin = Math.min(Math.floor((at - run.begin_us) / step), bins - 1);
    total[requests.tenant[i]][bin]++;
    good[requests.tenant[i]][bin] += requests.in_time[i];
  });
  const series = run.tenants.map((_, t) => ({
    name: tenantName(run, t), color: (colors) => colors.tenants[colorNumber(t)],
    values: total[t].map((count, i) => (count ? good[t][i] / count : null)),
  }));
  const axis = { from: 0, to: 1.05, ticks: [0, 0.25, 0.5, 0.75, 1], label: (share) => `${share * 100} %` };
  return card("half", "Requests answered in time", `Share per tenant, by arrival, in windows of ${duration(step)}; dashed: target.`,
    lineChart(run, "Share of requests answered in time over time, per tenant", step, series, axis, (share) => percent(share, 0), { guides: [...new Set(run.summary.tenants.map((t) => t.percentile))], tall: 268 }), legend(run));
};

const binned = (run, column) => {
  const span = Math.max(run.end_us - run.begin_us, 1);
  const step = Math.max(roundStep(span, 150), 100);
  const bins = Math.ceil(span / step);
  const mean = new Array(bins).fill(null), most = new Array(bins).fill(null), count = new Array(bins).fill(0);
  run.units.start.forEach((at, i) => {
    const bin = Math.min(Math.max(Math.floor((at - run.begin_us) / step), 0), bins - 1);
    mean[bin] = (mean[bin] ?? 0) + column[i];
    most[bin] = Math.max(most[bin] ?? 0, column[i]);
    count[bin]++;
  });
  return { step, mean: mean.map((sum, i) => (count[i] ? sum / count[i] : null)), most };
};
const meanAndMost = ({ mean, most }, color) => [
  { name: "highest", values: most, area: true, color }, { name: "mean", values: mean, color }];
const pressureChart = (run) => {
  const bins = binned(run, run.units.pressure);
  const axis = { from: 0, to: 1.03, ticks: [0, 0.25, 0.5, 0.75, 1], label: (share) => `${share * 100} %` };
  const series = meanAndMost(bins, (colors) => colors.tenants[4]);
  if (run.outsiders.at.length) series.push({ name: "other processes", values: outsidePressure(run, bins.step, bins.mean.length), color: (colors) => colors.quiet });
  const alone = run.outsiders.at.length ? " Grey: what other processes press, as the scheduler was told." : "";
  return card("half", "Pressure", `What running units and other processes press on memory bandwidth, as seen at each dispatch: mean, and shaded the highest, per ${duration(bins.step)}.${alone}`,
    lineChart(run, "Pressure over time", bins.step, series, axis, (share) => percent(share, 0)));
};
const queueChart = (run) => {
  const bins = binned(run, run.units.waiting);
  const most = Math.max(4, ...bins.most.map((value) => value ?? 0));
  const axis = { from: 0, to: most * 1.06, ticks: ticks(0, most, 4).filter(Number.isInteger), label: number };
  return card("half", "Waiting requests", `After each dispatch: mean, and shaded the highest, per ${duration(bins.step)}.`,
    lineChart(run, "Waiting requests over time", bins.step, meanAndMost(bins, (colors) => colors.accent), axis, (value) => (Number.isInteger(value) ? number(value) : value.toFixed(1))));
};

const bars = (entries, color) => {
  const total = entries.reduce((sum, [, count]) => sum + count, 0);
  return entries.flatMap(([name, count]) => [
    element("span", { title: name }, name),
    element("div", { class: "track", role: "img", "aria-label": `${name}: ${number(count)}, ${percent(count / total, 0)}` },
      element("i", { style: { width: `${(count / total) * 100}%`, background: color } })),
    element("em", { title: number(count) }, percent(count / total, 0)),
  ]);
};
const MOST_BARS = 8;
const choices = (run) => {
  const groups = Object.entries(run.summary.variant_blocks).map(([model, counts]) => {
    const sorted = Object.entries(counts).sort((a, b) => b[1] - a[1]);
    const rest = sorted.slice(MOST_BARS).reduce((sum, [, count]) => sum + count, 0);
    const shown = rest ? [...sorted.slice(0, MOST_BARS), [`${sorted.length - MOST_BARS} others`, rest]] : sorted;
    const color = cssColor(Math.max(run.tenants.findIndex((tenant) => tenant.model === model), 0));
    return shown.length ? [element("h3", {}, model), ...bars(shown, color)] : [];
  });
  const cores = Object.entries(run.summary.cores_units).map(([count, units]) => [`${count} core${count === "1" ? "" : "s"}`, units]);
  return [
    card("half", "Variants chosen", "Per model, share of the blocks that ran.", element("div", { class: "hbar" }, groups.flat())),
    card("half", "Cores", "Share of units by cores leased; then each core's time under lease.",
      element("div", { class: "hbar" }, element("h3", {}, "Units on"), bars(cores, "var(--accent)"), element("h3", {}, "Busy"),
        Object.entries(run.summary.core_busy).flatMap(([core, share]) => [
          element("span", {}, `core ${core}`),
          element("div", { class: "track", role: "img", "aria-label": `core ${core} busy ${percent(share)}` }, element("i", { style: { width: `${share * 100}%`, background: "var(--quiet)" } })),
          element("em", {}, percent(share, 0))]))),
  ];
};

const slowestTable = (run, show) => {
  const { requests } = run;
  const rows = run.slowest.map(({ request, took_us, running_us, causes }) => {
    const budget = requests.deadline[request] == null ? null : requests.deadline[request] - requests.arrived[request];
    const waiting = Math.max(took_us - running_us, 0);
    const outcome = requests.outcome[request];
    const why = requests.whys[requests.why[request]][1];
    const fate = requests.in_time[request] ? "in time" : outcome === "answered" ? `${duration(took_us - budget)} late` : outcome === "open" ? "no answer" : outcome;
    const cause = why || causes.slice(0, 2).map(([what, us]) => `${duration(us)} ${what}`).join(", ");
    const go = () => show(request);
    return element("tr", { class: "link", tabindex: 0, title: "Show in the timeline", onclick: go, onkeydown: (event) => { if (event.key === "Enter") go(); } },
      element("td", { class: "left" }, element("i", { class: "dot", style: { background: cssColor(requests.tenant[request]) } }), tenantName(run, requests.tenant[request])),
      element("td", { class: "left quiet" }, requests.id[request]), element("td", {}, duration(requests.arrived[request] - run.begin_us)),
      element("td", {}, duration(took_us)), element("td", {}, duration(budget)),
      element("td", { class: "left" }, element("span", { class: "split", role: "img", "aria-label": `${duration(waiting)} waiting, ${duration(running_us)} running` },
        element("i", { class: "wait", style: { width: `${(waiting / Math.max(took_us, 1)) * 100}%` } }),
        element("i", { style: { width: `${(running_us / Math.max(took_us, 1)) * 100}%`, background: cssColor(requests.tenant[request]) } }))),
      element("td", {}, duration(waiting)), element("td", {}, duration(running_us)),
      element("td", { class: "left" }, element("span", { class: `badge ${requests.in_time[request] ? "good" : "bad"}` }, fate)), element("td", { class: "left wrap" }, cause));
  });
  const head = ["Tenant", "Request", "Arrived", "Took", "Deadline", "Waiting | running", "Waited", "Ran", "", "Why"];
  const left = new Set([0, 1, 5, 8, 9]);
  const body = element("tbody", {}, rows.slice(0, 12));
  const more = rows.length > 12 ? element("div", { class: "tools", style: { marginTop: "8px" } }, element("button", { type: "button", onclick: (event) => { body.replaceChildren(...rows); event.target.remove(); } }, `Show ${rows.length}`)) : null;
  return card("", "Missed and slowest requests", "Worst first, by how much of its deadline each took; why: the largest parts of what it took beyond its time alone. Select one to see it in the timeline.",
    element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, head.map((name, i) => element("th", { class: left.has(i) ? "left" : "", scope: "col" }, name)))), body)), more);
};

const tile = (value, name) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, name));
const runSection = (run) => {
  const { summary } = run;
  const all = summary.tenants.reduce((sum, tenant) => sum + tenant.requests, 0);
  const good = summary.tenants.reduce((sum, tenant) => sum + tenant.in_time, 0);
  const busy = Object.values(summary.core_busy);
  const met = summary.tenants.filter((tenant) => tenant.met).length;
  const asked = summary.tenants.filter((tenant) => tenant.met != null).length;
  const began = new Date(run.wall_time_s * 1000);
  const head = [
    element("div", { class: "head" }, element("h1", {}, `Policy ${run.policy}`),
      element("p", {}, `${run.machine} · cores ${run.cores.join(", ")} · models ${Object.keys(run.blocks).join(", ") || "none"} · veltair ${run.version} · started ${isNaN(began) ? "?" : began.toISOString().slice(0, 19).replace("T", " ")} UTC · ${run.source}`)),
    element("div", { class: "tiles" },
      tile(all ? percent(good / all) : "–", `in time, of ${number(all)} requests`), tile(asked ? `${met} of ${asked}` : "–", "tenants met their target"),
      tile(duration(summary.duration_us), "from first arrival to the end"), tile(busy.length ? percent(busy.reduce((a, b) => a + b, 0) / busy.length, 0) : "–", "of core time under lease"),
      tile(summary.measured_over_predicted == null ? "–" : `${summary.measured_over_predicted.toFixed(2)}×`, "measured over predicted, median"), tile(number(summary.units), "units dispatched")),
  ];
  if (run.lost) head.push(element("p", { class: "note" }, `${number(run.lost)} records of this run were lost while it was logged: counts and charts are incomplete.`));
  if (run.hidden_units) head.push(element("p", { class: "note" }, `The oldest ${number(run.hidden_units)} units are left out of the charts; tiles and tables cover the whole run.`));
  const table = card("", "Tenants", "Refused and dropped requests count as misses; percentiles are over answered ones.", tenantTable(run));
  if (!run.requests.id.length) return [...head, table, card("", "Nothing to draw yet", "", empty("No request has reached this engine. Send some, for example with `veltair bench`, and make the page again."))];
  if (!run.units.start.length) return [...head, table, attainmentChart(run), card("half", "Core occupancy", "", empty("No unit was dispatched: every request was refused or dropped."))];
  const cores = timeline(run);
  return [
    ...head, table, attainmentChart(run),
    card("half", "Predicted and measured", `Time of each unit, logarithmic; on the line the prediction was exact. Median ${summary.measured_over_predicted?.toFixed(2) ?? "–"}×.`, scatterChartOr(run)),
    costMatrix(run),
    card("", "Core occupancy", "Drag to zoom, shift-drag or swipe to move, ctrl-wheel to zoom; point at a unit for the decision, click it to see its request.",
      element("div", { class: "bar-row" }, legend(run), cores.tools), cores.canvas),
    driftCard(run), outsidersCard(run), pressureChart(run), queueChart(run),
    slowestTable(run, cores.show), ...choices(run),
  ];
};
const scatterChartOr = (run) => (run.units.measured.some((us) => us > 0) ? scatterChart(run, "Predicted against measured time of every unit") : empty("No unit has finished."));
