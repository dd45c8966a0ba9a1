// Who held which core when, in a stretch of one run. A unit on several cores is one block where its cores are neighbours.

const LEFT = 62, RIGHT = 12, AXIS = 26, STRIP = 15;
const STRIPS = [["arrived", "arrived"], ["late", "late"], ["refused", "refused"], ["dropped", "dropped"], ["load", "weights in"], ["evict", "weights out"]];

// Eight colours, then the same again, each time further towards the ink; keys that point at one tenant do the rest.
const tenantInk = (colors, i) => {
  const base = colors.tenants[i % 8], turn = Math.floor(i / 8) % 4;
  return turn ? `color-mix(in srgb, ${base} ${100 - turn * 22}%, ${turn % 2 ? colors.ink : colors.card})` : base;
};
const tenantCss = (i) => {
  const turn = Math.floor(i / 8) % 4;
  return turn ? `color-mix(in srgb, var(--t${i % 8}) ${100 - turn * 22}%, var(--${turn % 2 ? "ink" : "card"}))` : `var(--t${i % 8})`;
};

const coresCard = () => {
  const looks = [["at_load", "the same load for all"], ["at_largest", "each policy's own largest load"]].filter(([key]) => policies.some((policy) => policy[key]?.timeline));
  if (!looks.length) return anchored("cores", card("", "Cores over time", "", empty("This result holds no timeline.")));
  let policy = policies[content.lead][looks[0][0]]?.timeline ? content.lead : policies.findIndex((each) => each[looks[0][0]]?.timeline);
  let look = 0, from = 0, to = 1, tenant = null, marked = null, hovered = null, drag = null, plotWidth = 1;
  const cores = scenario.machine.cores;
  const tall = Math.max(7, Math.min(30, Math.floor(560 / cores))), gap = tall > 12 ? 4 : 1;
  const line = () => policies[policy][looks[look][0]]?.timeline;
  const strips = () => STRIPS.filter(([what]) => line()?.whats.includes(what));
  const top = () => strips().length * STRIP + (strips().length ? 6 : 0);
  const height = () => top() + cores * (tall + gap) + AXIS;
  const canvas = element("canvas", { class: "timeline", tabindex: 0, role: "img" });
  const range = element("output", { "aria-live": "polite" });
  const about = element("p", { class: "quiet", style: { margin: "0 0 8px", fontSize: "12.5px" } });
  const span = () => Math.max(line().end_us - line().begin_us, 1);
  const toX = (us) => LEFT + ((us - from) / (to - from)) * plotWidth; // `from` and `to` count from the timeline's beginning
  const toUs = (x) => from + ((x - LEFT) / plotWidth) * (to - from);
  const rowTop = (core) => top() + core * (tall + gap);
  const lit = (who, request) => (marked !== null ? request === marked : tenant === null || who === tenant);

  // Neighbouring cores of a lease, as [first, last].
  const runsOf = (held) => {
    const runs = [];
    for (const core of [...held].sort((a, b) => a - b)) {
      const last = runs.at(-1);
      if (last && core === last[1] + 1) last[1] = core; else runs.push([core, core]);
    }
    return runs;
  };
  const runs = new Map();
  const runsAt = (data) => { if (!runs.has(data)) runs.set(data, data.cores.map(runsOf)); return runs.get(data); };

  const drawUnits = (pen, colors, data) => {
    const { lease } = data, blocks = runsAt(data), inks = scenario.tenants.map((_, i) => tenantInk(colors, i));
    for (let i = 0; i < lease.begin.length; i++) {
      const begin = lease.begin[i] - data.begin_us, end = lease.end[i] - data.begin_us;
      if (end <= from || begin >= to) continue;
      const a = Math.max(toX(begin), LEFT), b = Math.min(toX(end), LEFT + plotWidth);
      const wide = Math.max(b - a - (b - a > 3 ? 1 : 0), 0.6), bright = lit(lease.tenant[i], lease.request[i]);
      pen.fillStyle = inks[lease.tenant[i]];
      for (const [first, last] of blocks[lease.cores[i]]) {
        const y = rowTop(first), high = (last - first + 1) * (tall + gap) - gap;
        pen.globalAlpha = bright ? 1 : 0.16;
        pen.fillRect(a, y, wide, high);
        if (i === hovered || (marked !== null && bright)) { pen.strokeStyle = colors.ink; pen.lineWidth = 1.5; pen.strokeRect(a + 0.5, y + 0.5, Math.max(wide - 1, 1), high - 1); }
        if (wide < 44 || high < 12 || !bright) continue;
        const count = lease.last[i] - lease.first[i], name = tenantLabel(lease.tenant[i]);
        const text = [`${name} · ${count === 1 ? `block ${lease.first[i]}` : `blocks ${lease.first[i]}–${lease.last[i] - 1}`}`, name].find((each) => pen.measureText(each).width < wide - 12);
        if (!text) continue;
        pen.fillStyle = "rgba(255,255,255,.82)"; pen.fillRect(a + 3, y + high / 2 - 7.5, pen.measureText(text).width + 6, 15);
        pen.fillStyle = "#0b1016"; pen.textAlign = "left"; pen.textBaseline = "middle"; pen.fillText(text, a + 6, y + high / 2 + 0.5);
        pen.fillStyle = inks[lease.tenant[i]];
      }
    }
    pen.globalAlpha = 1;
  };
  const drawMarks = (pen, colors, { mark, whats, begin_us: zero }) => {
    const shown = strips();
    pen.textAlign = "left"; pen.textBaseline = "middle"; pen.fillStyle = colors.quiet;
    shown.forEach(([, name], row) => pen.fillText(name, 2, row * STRIP + STRIP / 2));
    const rows = whats.map((what) => shown.findIndex(([each]) => each === what));
    for (let i = 0; i < mark.at.length; i++) {
      const row = rows[mark.what[i]], at = mark.at[i] - zero;
      if (row < 0 || at < from || at > to) continue;
      pen.globalAlpha = lit(mark.tenant[i], mark.request[i]) ? 1 : 0.12;
      pen.fillStyle = mark.tenant[i] < 0 ? colors.ink : tenantInk(colors, mark.tenant[i]);
      pen.fillRect(toX(at) - 0.75, row * STRIP + 1, 1.5, STRIP - 3);
    }
    pen.globalAlpha = 1;
  };
  const draw = () => {
    const data = line(), ratio = devicePixelRatio || 1, width = canvas.parentElement?.clientWidth ?? 0, high = height();
    if (!width) return;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(high * ratio); canvas.style.height = `${high}px`;
    const pen = canvas.getContext("2d"), colors = theme();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "11.5px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
    plotWidth = Math.max(width - LEFT - RIGHT, 10);
    if (!data) { pen.fillStyle = colors.quiet; pen.fillText("No timeline for this policy at this load.", LEFT, high / 2); return; }
    const count = Math.max(3, width / 120), step = roundStep(to - from, count);
    const inMs = step < 1e6, unit = inMs ? 1e3 : 1e6, digits = Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
    for (let core = 0; core < cores; core++) { pen.fillStyle = colors.soft; pen.fillRect(LEFT, rowTop(core), plotWidth, tall); }
    const every = [1, 2, 4, 8, 16, 32].find((n) => n * (tall + gap) >= 15) ?? 64;
    pen.fillStyle = colors.quiet; pen.textAlign = "left"; pen.textBaseline = "middle";
    for (let core = 0; core < cores; core += every) pen.fillText(`core ${core}`, 2, rowTop(core) + tall / 2);
    drawUnits(pen, colors, data);
    drawMarks(pen, colors, data);
    pen.lineWidth = 1;
    for (const value of ticks(from, to, count)) {
      const x = Math.round(toX(value)) + 0.5, text = `${(value / unit).toFixed(digits)} ${inMs ? "ms" : "s"}`, room = pen.measureText(text).width / 2;
      pen.strokeStyle = colors.line; pen.beginPath(); pen.moveTo(x, high - AXIS); pen.lineTo(x, high - AXIS + 5); pen.stroke();
      pen.fillStyle = colors.quiet; pen.textBaseline = "alphabetic"; pen.textAlign = x + room > width ? "right" : "center";
      pen.fillText(text, Math.min(x, width - 1), high - 5);
    }
    if (drag?.moved && !drag.pan) {
      pen.fillStyle = colors.accent; pen.globalAlpha = 0.2; pen.fillRect(Math.min(drag.x, drag.at), 0, Math.abs(drag.at - drag.x), high - AXIS); pen.globalAlpha = 1;
    }
    range.textContent = `${duration(Math.max(from, 0))} to ${duration(to)} of ${duration(span())}`;
  };
  let asked = 0;
  const redraw = () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(draw); };
  const view = (a, b) => {
    const wide = Math.min(Math.max(b - a, 50), span()), begin = Math.min(Math.max(a, 0), span() - wide);
    [from, to] = [begin, begin + wide];
    redraw();
  };
  // Begin with a stretch in which single units can be told apart; "All" shows the rest.
  const opening = () => {
    const { lease } = line(), wide = lease.begin.length ? lease.begin.reduce((sum, at, i) => sum + lease.end[i] - at, 0) / lease.begin.length : span();
    return Math.min(span(), Math.max(wide * 24, 1000));
  };
  const zoom = (factor, at = (from + to) / 2) => view(at - (at - from) * factor, at + (to - at) * factor);
  const pan = (share) => view(from + (to - from) * share, to + (to - from) * share);
  const reset = () => { marked = null; view(0, span()); };
  const turnTo = (next, nextLook) => {
    [policy, look] = [next, nextLook];
    [marked, hovered] = [null, null];
    const data = line(), detail = policies[policy][looks[look][0]];
    tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", String(i === policy)));
    canvas.setAttribute("aria-label", data ? `Units of ${policies[policy].name} on ${cores} cores: ${data.lease.begin.length} units. Arrow keys move, plus and minus zoom, 0 shows all.` : "No timeline");
    about.textContent = detail ? `${policies[policy].name} at ${rate(detail.per_s)} requests a second: ${percent(detail.core_use, 0)} of core time leased, ${percent(detail.conflict_rate)} of units with fewer cores than they wanted${detail.loads || detail.evictions ? `, weights brought in ${plural(detail.loads, "time")}, let go ${plural(detail.evictions, "time")}` : ""}.` : `${policies[policy].name} reaches no load.`;
    if (data) view(from, to); else redraw();
  };
  const tabs = policies.map((each, i) => element("button", { type: "button", "aria-pressed": "false", onclick: () => turnTo(i, look) }, policyKey(i), element("span", {}, each.name)));

  const unitAt = (x, y) => {
    const data = line();
    const core = Math.floor((y - top()) / (tall + gap));
    if (!data || core < 0 || core >= cores || x < LEFT) return null;
    const at = toUs(x) + data.begin_us, near = (to - from) / plotWidth;
    const k = data.lease.begin.findIndex((begin, i) => begin <= at + near && data.lease.end[i] >= at - near && data.cores[data.lease.cores[i]].includes(core));
    return k < 0 ? null : k;
  };
  const facts = (i) => {
    const { lease, cores: held, requests, reasons, models, begin_us: zero } = line(), took = lease.end[i] - lease.begin[i], mine = held[lease.cores[i]];
    return [
      ["request", requests[lease.request[i]] + (lease.riders[i] ? ` and ${plural(lease.riders[i], "other")} in its batch` : "")],
      ["model", models[lease.model[i]]],
      ["blocks", lease.last[i] - lease.first[i] === 1 ? `${lease.first[i]}` : `${lease.first[i]}–${lease.last[i] - 1}`],
      ["cores", mine.length > 1 ? `${mine.length}: ${ranges(mine)}` : `${mine[0]}`],
      ["from", `${duration(lease.begin[i] - zero)} to ${duration(lease.end[i] - zero)}`],
      ["held", `${duration(took)} (${(took / Math.max(lease.predicted[i], 1)).toFixed(2)}× predicted ${duration(lease.predicted[i])})`],
      ["pressure", percent(lease.pressure[i], 0)], ["why", reasons[lease.reason[i]]],
    ];
  };
  const markAt = (x, y) => {
    const data = line(), shown = strips(), row = Math.floor(y / STRIP);
    if (!data || row < 0 || row >= shown.length) return null;
    const what = data.whats.indexOf(shown[row][0]), at = toUs(x) + data.begin_us, near = ((to - from) / plotWidth) * 3;
    const k = data.mark.at.findIndex((each, i) => data.mark.what[i] === what && Math.abs(each - at) <= near);
    return k < 0 ? null : k;
  };
  const markFacts = (k) => {
    const { mark, requests, reasons, models, begin_us: zero } = line();
    const reason = reasons[mark.reason[k]];
    return [["at", duration(mark.at[k] - zero)], ["model", models[mark.model[k]]], ...(requests[mark.request[k]] ? [["request", requests[mark.request[k]]]] : []), ...(reason ? [["why", reason]] : [])];
  };

  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, at: event.offsetX, moved: false, pan: event.shiftKey || event.pointerType === "touch", from, to };
    canvas.setPointerCapture(event.pointerId);
    hideTip();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      drag.at = event.offsetX;
      drag.moved ||= Math.abs(drag.at - drag.x) > 4;
      if (drag.pan && drag.moved) {
        const shift = ((drag.x - drag.at) / plotWidth) * (drag.to - drag.from);
        view(drag.from + shift, drag.to + shift);
      } else redraw();
      return;
    }
    const unit = unitAt(event.offsetX, event.offsetY), mark = unit === null ? markAt(event.offsetX, event.offsetY) : null;
    if (unit !== hovered) { hovered = unit; redraw(); }
    if (unit !== null) showTip(event.clientX, event.clientY, tenantLabel(line().lease.tenant[unit]), facts(unit));
    else if (mark !== null) {
      const { mark: marks, whats, models } = line(), who = marks.tenant[mark];
      showTip(event.clientX, event.clientY, `${who < 0 ? models[marks.model[mark]] : tenantLabel(who)}: ${STRIPS.find(([what]) => what === whats[marks.what[mark]])[1]}`, markFacts(mark));
    } else hideTip();
  });
  canvas.addEventListener("pointerup", (event) => {
    const ended = drag;
    drag = null;
    if (ended?.moved && !ended.pan) view(toUs(Math.min(ended.x, ended.at)), toUs(Math.max(ended.x, ended.at)));
    else if (ended && !ended.moved) {
      const unit = unitAt(event.offsetX, event.offsetY), request = unit === null ? null : line().lease.request[unit];
      marked = request === marked ? null : request;
      redraw();
    }
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { hovered = null; hideTip(); redraw(); });
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return; // the page scrolls
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, toUs(event.offsetX));
    else pan((event.deltaX || event.deltaY) / plotWidth);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.7), 0: reset, Escape: reset }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  const button = (label, name, act) => element("button", { type: "button", "aria-label": name, title: name, onclick: act }, label);
  const tools = element("div", { class: "tools" }, range, button("◀", "Earlier", () => pan(-0.4)), button("▶", "Later", () => pan(0.4)),
    button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2)), button("All", "Show all", reset));
  const tenantKeys = element("div", { class: "keys pick", role: "group", "aria-label": "Tenant to point out", style: { margin: "2px 0 8px" } },
    scenario.tenants.map((_, i) => {
      const key = element("button", { type: "button", "aria-pressed": "false", title: "Point out this tenant" }, element("i", { class: "dot", style: { background: tenantCss(i), margin: 0 } }), element("span", {}, tenantLabel(i)));
      key.addEventListener("click", () => {
        tenant = tenant === i ? null : i;
        [...tenantKeys.children].forEach((other, k) => other.setAttribute("aria-pressed", String(k === tenant)));
        redraw();
      });
      return key;
    }));
  const picked = element("div", { class: "keys pick", role: "group", "aria-label": "Policy shown" }, tabs);
  const at = looks.length > 1 ? choose("At", looks.map(([, text], i) => [i, text]), 0, (value) => turnTo(policy, value)) : null;
  new ResizeObserver(redraw).observe(canvas);
  [matchMedia("(prefers-color-scheme: dark)"), matchMedia("print")].forEach((media) => media.addEventListener("change", draw));
  to = opening();
  turnTo(policy, look);
  return anchored("cores", card("", "Cores over time",
    "The same stretch of the first seed for each policy. Drag to zoom, shift-drag or swipe to move, ctrl-wheel to zoom; point at a unit for the decision, click it to follow its request; pick a tenant to point it out.",
    element("div", { class: "bar-row" }, picked, element("div", { class: "tools" }, at, tools)), about, tenantKeys, element("div", {}, canvas)));
};
