// Who cost whom how much: a row for each tenant that was answered, a column for each cause.

const MIXED = 62; // percent of colour in the worst cell
const costCell = (us, most, color, title, facts) => {
  const share = most > 0 ? Math.min(Math.max(us / most, 0), 1) : 0;
  const cell = element("td", {
    class: "cost", tabindex: 0, "aria-label": `${title}: ${duration(us)} a request`,
    style: share ? { background: `color-mix(in srgb, ${color} ${(Math.sqrt(share) * MIXED).toFixed(1)}%, transparent)` } : {},
  }, us === 0 ? element("span", { class: "quiet" }, "–") : duration(us));
  const show = (x, y) => showTip(x, y, title, facts);
  cell.addEventListener("pointermove", (event) => show(event.clientX, event.clientY));
  cell.addEventListener("focus", () => { const box = cell.getBoundingClientRect(); show(box.left, box.bottom); });
  for (const gone of ["pointerleave", "blur"]) cell.addEventListener(gone, hideTip);
  return cell;
};

const costMatrix = (run) => {
  const { names, rows } = run.costs;
  const answered = rows.filter((row) => row.requests);
  const mean = (row, us) => us / row.requests;
  const dot = (name) => element("i", { class: "dot", style: { background: cssColor(Math.max(run.tenants.findIndex((tenant) => tenant.name === name), 0)) } });
  const most = Math.max(0, ...answered.flatMap((row) => [...row.waited_us.map((us, i) => mean(row, us + row.slowed_us[i])), mean(row, row.outsiders_us)]));
  const mostSelf = Math.max(0, ...answered.map((row) => mean(row, row.self_us)));
  const ofExcess = (row, us) => (row.excess_us > 0 ? percent(us / row.excess_us) : "–");
  const body = answered.map((row) => element("tr", {},
    element("th", { class: "left name", scope: "row" }, dot(row.tenant), row.tenant),
    element("td", {}, number(row.requests)), element("td", {}, duration(mean(row, row.solo_us))), element("td", { class: "excess" }, duration(mean(row, row.excess_us))),
    element("td", { class: "left" }, row.noisiest == null ? element("span", { class: "quiet" }, "none") : [dot(row.noisiest), row.noisiest]),
    costCell(mean(row, row.self_us), mostSelf, "var(--quiet)", `${row.tenant}, by itself`, [
      ["other cores and variants than alone", duration(mean(row, row.chosen_us))], ["hand-overs, times that stray", duration(mean(row, row.self_us - row.chosen_us))],
      ["of the excess", ofExcess(row, row.self_us)], ["in all", duration(row.self_us)]]),
    costCell(mean(row, row.outsiders_us), most, "var(--bad)", `${row.tenant}, by processes that are not ours`, [["of the excess", ofExcess(row, row.outsiders_us)], ["in all", duration(row.outsiders_us)]]),
    ...names.map((name, i) => {
      const us = row.waited_us[i] + row.slowed_us[i];
      const own = name === row.tenant;
      return costCell(mean(row, us), most, own ? "var(--quiet)" : "var(--bad)", own ? `${name}, by other requests of its own` : `${row.tenant}, by ${name}`, [
        ["waited for its cores", duration(mean(row, row.waited_us[i]))], ["slowed beside it", duration(mean(row, row.slowed_us[i]))],
        ["of the excess", ofExcess(row, us)], ["in all", duration(us)]]);
    })));
  const head = ["Slowed", "Answers", "Alone", "Excess", "Noisiest neighbour", "By itself", "By outsiders", ...names.map((name) => [dot(name), name])];
  const left = new Set([0, 4]);
  return card("", "Who cost whom how much", "What an answer took beyond its time alone on this machine, on average, and by whom: of whom it waited for, who ran beside it, and what was its own. Refused and dropped requests have no time to split.",
    answered.length ? element("div", { class: "scroll" }, element("table", { class: "matrix", "aria-label": "Mean excess of each tenant's requests, by cause" },
      element("thead", {}, element("tr", {}, head.map((name, i) => element("th", { class: left.has(i) ? "left" : "", scope: "col" }, name)))), element("tbody", {}, body))) : empty("No request was answered."));
};
