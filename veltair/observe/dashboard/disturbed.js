// What came from elsewhere: alarms of drifting times, and processes that are not ours.

const driftText = ({ over }) => (over ? "near its tables again" : "far from its tables");
const driftCard = (run) => {
  const rows = run.drifts.map((alarm) => element("tr", {},
    element("td", {}, duration(alarm.at - run.begin_us)), element("td", { class: "left" }, alarm.model),
    element("td", { class: "left" }, element("span", { class: `badge ${alarm.over ? "good" : "bad"}` }, driftText(alarm))),
    element("td", {}, `${alarm.ratio.toFixed(2)}×`)));
  const head = ["At", "Model", "Its times are", "Measured over predicted"];
  return card("half", "Drift", "Alarms where the times of a model's units leave what its tables say, and where they are back; dashed in the occupancy above.",
    rows.length
      ? element("div", { class: "scroll", style: { maxHeight: "240px" } }, element("table", { "aria-label": "Drift alarms" },
        element("thead", {}, element("tr", {}, head.map((name, i) => element("th", { class: i === 1 || i === 2 ? "left" : "", scope: "col" }, name)))), element("tbody", {}, rows)))
      : empty("No alarm was raised in this run."));
};

const wasWatched = ({ outsiders }) => outsiders.sources.length > 0 || outsiders.at.length > 0;
const outsidersCard = (run) => {
  const { sources, held_share, mean_pressure, most_pressure } = run.outsiders;
  const held = Object.entries(held_share);
  const about = "Share of the run for which processes that are not ours held each CPU; a line under its row in the occupancy above.";
  const pressed = most_pressure > 0 ? `They pressed ${percent(mean_pressure, 0)} of the memory bandwidth on average, at most ${percent(most_pressure, 0)}` : "They did not press on the memory bandwidth";
  const body = wasWatched(run)
    ? [element("p", {}, `${pressed}${sources.length ? `; told by ${sources.join(", ")}` : ""}.`),
      held.length
        ? element("div", { class: "hbar" }, held.flatMap(([core, share]) => [
          element("span", {}, `CPU ${core}`),
          element("div", { class: "track", role: "img", "aria-label": `CPU ${core} held ${percent(share)} of the run` }, element("i", { style: { width: `${share * 100}%`, background: "var(--bad)" } })),
          element("em", {}, percent(share, 0))]))
        : empty("They held no CPU.")]
    : [empty("Nobody looked for them: no source of outside pressure was read.")];
  return card("half", "Other processes", about, ...body);
};

// What they pressed at the middle of each bin, null before the first word of it.
const outsidePressure = ({ outsiders, begin_us }, step, bins) => {
  let last = -1;
  return Array.from({ length: bins }, (_, bin) => {
    while (last + 1 < outsiders.at.length && outsiders.at[last + 1] <= begin_us + (bin + 0.5) * step) last++;
    return last < 0 ? null : outsiders.pressure[last];
  });
};

// Stretches of time for which they held this core: [from, to] in microseconds.
const heldSpans = ({ outsiders, end_us }, core) => {
  const spans = [];
  outsiders.at.forEach((at, i) => {
    if (!outsiders.held[i].includes(core)) return;
    const until = outsiders.at[i + 1] ?? end_us;
    if (spans.length && spans[spans.length - 1][1] === at) spans[spans.length - 1][1] = until; else spans.push([at, until]);
  });
  return spans;
};
