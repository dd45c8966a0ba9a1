// Attainment against load, and how long answers took: one line a policy. Keys switch lines off in both.

const hidden = new Set();
const charts = [];
const shownPolicies = () => policies.map((_, i) => i).filter((i) => !hidden.has(i));
// The lead is drawn last, over the others.
const drawOrder = () => shownPolicies().sort((a, b) => (a === content.lead) - (b === content.lead));
const keys = (about = () => "") => {
  const host = element("div", { class: "keys", role: "group", "aria-label": "Policies shown" });
  policies.forEach((policy, i) => {
    const button = element("button", { type: "button", "aria-pressed": "true", title: "Show or hide this policy" }, policyKey(i), element("span", {}, policy.name, about(policy)));
    button.addEventListener("click", () => {
      if (hidden.has(i)) hidden.delete(i); else hidden.add(i);
      document.querySelectorAll(`[data-policy="${i}"]`).forEach((other) => other.setAttribute("aria-pressed", String(!hidden.has(i))));
      charts.forEach((chart) => chart.redraw());
    });
    button.dataset.policy = i;
    host.append(button);
  });
  return host;
};

const WORST = -1;
const attainmentCard = () => {
  const loads = [...new Set(policies.flatMap(({ curve }) => curve.per_s))].sort((a, b) => a - b);
  const title = "Requests in QoS against load";
  if (!loads.length) return anchored("load", card("", title, "", empty("No curve was asked for: only largest loads were searched.")));
  let tenant = WORST;
  const goals = [...new Set(scenario.tenants.map(({ percentile }) => percentile))];
  const tenantAt = (curve, k) => (tenant === WORST ? curve.worst[k] : tenant);
  const seen = (curve, k) => { const at = tenantAt(curve, k); return at == null ? null : curve.attainment[at][k]; };
  const most = Math.max(loads.at(-1), ...policies.map(({ largest }) => largest.high_per_s));
  const x = {
    from: 0, to: most * 1.03, ticks: (pixels) => ticks(0, most, Math.max(3, pixels / 90)), label: rate,
    title: `requests a second, all tenants together (100 % of capacity: ${rate(scenario.capacity_per_s)})`,
  };
  const paint = (box) => [
    ...goals.map((goal) => svg("line", { class: "goal", x1: box.left, x2: box.right, y1: box.toY(goal), y2: box.toY(goal) })),
    ...(scenario.capacity_per_s <= x.to ? [svg("line", { class: "axis", x1: box.toX(scenario.capacity_per_s), x2: box.toX(scenario.capacity_per_s), y1: box.top, y2: box.bottom })] : []),
    ...drawOrder().flatMap((i) => {
      const { curve, largest } = policies[i], color = policyColor(i);
      const points = curve.per_s.map((load, k) => [load, seen(curve, k)]).filter(([, share]) => share != null);
      const at = points.map(([load, [mean]]) => [box.toX(load), box.toY(mean)]);
      const band = [...points.map(([load, [, , high]]) => [box.toX(load), box.toY(high)]), ...points.toReversed().map(([load, [, low]]) => [box.toX(load), box.toY(low)])];
      const goal = box.toY(tenant === WORST ? Math.min(...goals) : scenario.tenants[tenant].percentile);
      return [
        points.length > 1 ? svg("path", { class: "band", d: `${path(band)}Z`, fill: color }) : null,
        svg("path", { class: "line", d: path(at), stroke: color, "stroke-width": i === content.lead ? 3 : 1.8, "stroke-dasharray": policyDash(i) }),
        ...at.map(([px, py]) => policyMark(i, px, py, 3)),
        tenant === WORST && largest.per_s > 0 ? svg("path", { d: `M${box.toX(Math.max(largest.low_per_s, 0))} ${goal}H${box.toX(largest.high_per_s)}M${box.toX(largest.per_s)} ${goal - 6}V${goal + 6}`, stroke: color, "stroke-width": 3 }) : null,
      ];
    }),
  ];
  const inspect = (load) => {
    const nearest = loads.reduce((best, each) => (Math.abs(each - load) < Math.abs(best - load) ? each : best));
    const facts = shownPolicies().flatMap((i) => {
      const { curve, name } = policies[i], k = curve.per_s.indexOf(nearest), share = k < 0 ? null : seen(curve, k);
      if (share == null) return [];
      const who = tenant === WORST && scenario.tenants.length > 1 ? `, ${tenantLabel(curve.worst[k])}` : "";
      return [[share[0], name, `${percent(share[0])}${who}${share[1] < share[2] ? ` (seeds ${percent(share[1])} to ${percent(share[2])})` : ""}`]];
    }).sort((a, b) => b[0] - a[0]);
    const k = policies[0].curve.per_s.indexOf(nearest);
    return { at: nearest, title: `${rate(nearest)} requests a second${k < 0 ? "" : `, ${percent(policies[0].curve.of_capacity[k], 0)} of capacity`}`, facts: facts.map(([, name, text]) => [name, text]) };
  };
  const chart = plot("Share of requests in QoS against load, one line a policy", 340, x, { ...shareAxis(), to: 1.02 }, paint, inspect, loads);
  charts.push(chart);
  const which = choose("Tenant", [[WORST, "whoever is worst off"], ...scenario.tenants.map((_, i) => [i, tenantLabel(i)])], WORST, (value) => { tenant = value; chart.redraw(); });
  const about = (policy) => (scenario.tenants.length > 1 && policy.limit ? element("span", { class: "quiet" }, ` · limited by ${limitText(policy.limit)}`) : "");
  const numbers = element("details", {}, element("summary", {}, "Values"), table("Requests in QoS of whoever is worst off, by load",
    ["Policy", ...loads.map((load) => `${rate(load)}/s`)], policies.map(({ name, curve }) => element("tr", {}, element("th", { class: "left", scope: "row" }, name),
      loads.map((load) => { const k = curve.per_s.indexOf(load), who = k < 0 ? null : curve.worst[k]; return element("td", { title: who == null ? "" : tenantLabel(who) }, who == null ? "–" : percent(curve.attainment[who][k][0])); })))));
  return anchored("load", card("", title,
    `Refused and dropped requests count as missed; dashed: the target of ${goals.map((goal) => percent(goal, 0)).join(", ")}. Shaded: from the worst seed to the best. The bars on the target are the largest loads found, with their intervals.`,
    element("div", { class: "bar-row" }, keys(about), scenario.tenants.length > 1 ? which : null), chart.host, numbers));
};

const FEW = 6;
const latencyCard = () => {
  const order = scenario.tenants.map((_, i) => i).sort((a, b) => leastKept(a) - leastKept(b) || a - b);
  const first = scenario.tenants.length > FEW ? order.slice(0, FEW).sort((a, b) => a - b) : scenario.tenants.map((_, i) => i);
  const host = element("div", { class: "small" }, first.map(latencyPlot));
  const rest = order.slice(FEW);
  const more = scenario.tenants.length > FEW
    ? element("div", { class: "tools", style: { marginTop: "10px" } }, element("button", { type: "button", onclick: (event) => { host.append(...rest.sort((a, b) => a - b).map(latencyPlot)); event.target.remove(); } }, `Show the other ${rest.length} tenants`)) : null;
  return anchored("latency", card("", "How long answers took",
    `Share of all requests answered within a time, at ${rate(lead.at_load.per_s)} requests a second; a line that levels off below 100 % refused or dropped the rest. The vertical line is the tenant's QoS: the marks on it are the shares in QoS.${more ? ` The ${FEW} tenants that ${lead.name} served worst.` : ""}`,
    keys(), host, more));
};
const leastKept = (i) => (lead.at_load.tenants[i]?.attainment ?? 1) - scenario.tenants[i].percentile;
const withinAt = (points, us) => {
  const k = points.findIndex(([time]) => time >= us);
  if (k < 0) return points.at(-1)?.[1] ?? 0;
  if (k === 0) return 0;
  const [[a, low], [b, high]] = [points[k - 1], points[k]];
  return low + (high - low) * (Math.log(us / a) / Math.log(b / a));
};
const latencyPlot = (i) => {
  const { qos_us: qos, percentile } = scenario.tenants[i];
  const outcomes = policies.map(({ at_load: detail }) => detail.tenants[i]);
  const spans = outcomes.flatMap((outcome) => outcome?.latency?.answered_within ?? []).map(([us]) => us);
  const from = Math.min(qos / 4, ...spans), to = Math.max(qos * 2, ...spans);
  const x = { from, to, log: true, ticks: (pixels) => logTicks(from, to, to / from > 300 && pixels < 500 ? [1] : [1, 2, 5]), label: shortTime, title: "" };
  const paint = (box) => [
    svg("line", { class: "goal", x1: box.toX(qos), x2: box.toX(qos), y1: box.top, y2: box.bottom }),
    svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.toY(percentile), y2: box.toY(percentile), "stroke-dasharray": "2 3" }),
    ...drawOrder().flatMap((p) => {
      const outcome = outcomes[p];
      if (outcome == null) return [];
      const points = outcome.latency?.answered_within ?? [[from, 0]];
      const line = [[box.toX(from), box.toY(0)], ...points.map(([us, share]) => [box.toX(us), box.toY(share)]), [box.right, box.toY(points.at(-1)[1])]];
      return [svg("path", { class: "line", d: path(line), stroke: policyColor(p), "stroke-width": p === content.lead ? 2.6 : 1.5, "stroke-dasharray": policyDash(p) }),
        policyMark(p, box.toX(qos), box.toY(outcome.attainment), 3)];
    }),
  ];
  const inspect = (us) => {
    const at = Math.min(Math.max(us, from), to);
    const facts = shownPolicies().filter((p) => outcomes[p]).map((p) => {
      const { latency } = outcomes[p], share = latency ? withinAt(latency.answered_within, at) : 0;
      return [share, policies[p].name, `${percent(share)}${latency ? ` · p50 ${duration(latency.p50_us)} · p95 ${duration(latency.p95_us)}` : ", none answered"}`];
    }).sort((a, b) => b[0] - a[0]);
    return { at, title: `${tenantLabel(i)}: answered within ${duration(at)}`, facts: facts.map(([, name, text]) => [name, text]) };
  };
  const stops = Array.from({ length: 41 }, (_, k) => from * (to / from) ** (k / 40));
  const chart = plot(`Share of requests of ${tenantLabel(i)} answered within a time, one line a policy`, 190, x, { ...shareAxis(), to: 1.02 }, paint, inspect, stops);
  charts.push(chart);
  return element("div", {}, element("h3", { title: tenantLabel(i) }, tenantLabel(i), element("small", {}, ` · ${percent(percentile, 0)} in ${duration(qos)}`)), chart.host);
};
