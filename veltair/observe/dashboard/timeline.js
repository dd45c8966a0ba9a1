// Core occupancy over time. Units of one core never overlap, so each core's units are sorted by start and by end, and a
// view is found by bisection. Where a core has more units than pixels, columns show the share of time by tenant instead.

const ROW = 34, GAP = 8, LEFT = 62, RIGHT = 12, AXIS = 26;

const firstEndingAfter = (units, lane, at) => {
  let low = 0, high = lane.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (units.end[lane[middle]] <= at) low = middle + 1; else high = middle;
  }
  return low;
};

const timeline = (run) => {
  const { units, requests } = run;
  const full = [run.begin_us, Math.max(run.end_us, run.begin_us + 1)];
  let [from, to] = full;
  let drag = null, hovered = null, marked = null;
  const lanes = run.cores.map((core) => {
    const sets = new Set(units.cores.flatMap((cores, place) => (cores.includes(core) ? [place] : [])));
    return units.start.map((_, i) => i).filter((i) => sets.has(units.core[i])).sort((a, b) => units.start[a] - units.start[b]);
  });
  const held = run.cores.map((core) => heldSpans(run, core));
  const height = run.cores.length * (ROW + GAP) + AXIS;
  const canvas = element("canvas", {
    class: "timeline", tabindex: 0, role: "img",
    "aria-label": `Occupancy of ${run.cores.length} cores by ${units.start.length} units. Arrow keys move, plus and minus zoom, 0 shows all.`,
  });
  const range = element("output", { "aria-live": "polite" });
  const tenantOf = (unit) => requests.tenant[units.request[unit]];
  let plotWidth = 1;
  const toX = (us) => LEFT + ((us - from) / (to - from)) * plotWidth;
  const toUs = (x) => from + ((x - LEFT) / plotWidth) * (to - from);
  const rowTop = (row) => row * (ROW + GAP) + GAP / 2;

  const drawDense = (pen, colors, lane, begin, end, top) => {
    const columns = Math.ceil(plotWidth), kinds = run.tenants.length, wide = (to - from) / plotWidth;
    const busy = new Float64Array(columns * kinds);
    for (let k = begin; k < end; k++) {
      const unit = lane[k];
      const a = Math.max(units.start[unit], from), b = Math.min(units.end[unit], to), tenant = tenantOf(unit);
      for (let c = Math.floor((a - from) / wide); c < columns && from + c * wide < b; c++)
        busy[c * kinds + tenant] += Math.min(b, from + (c + 1) * wide) - Math.max(a, from + c * wide);
    }
    for (let tenant = 0; tenant < kinds; tenant++) {
      pen.fillStyle = colors.tenants[colorNumber(tenant)];
      for (let c = 0; c < columns; c++) {
        const tall = (busy[c * kinds + tenant] / wide) * ROW;
        if (tall <= 0.05) continue;
        let below = 0;
        for (let other = 0; other < tenant; other++) below += (busy[c * kinds + other] / wide) * ROW;
        pen.fillRect(LEFT + c, top + ROW - below - tall, 1, tall);
      }
    }
  };

  const drawUnits = (pen, colors, lane, begin, end, top) => {
    for (let k = begin; k < end; k++) {
      const unit = lane[k];
      const a = Math.max(toX(units.start[unit]), LEFT), b = Math.min(toX(units.end[unit]), LEFT + plotWidth);
      const wide = Math.max(b - a - (b - a > 3 ? 1 : 0), 0.7);
      const dim = marked !== null && units.request[unit] !== marked;
      pen.globalAlpha = dim ? 0.22 : 1;
      pen.fillStyle = colors.tenants[colorNumber(tenantOf(unit))];
      pen.fillRect(a, top, wide, ROW);
      if (units.failed[unit] != null) { pen.fillStyle = colors.bad; pen.fillRect(a, top, wide, 4); }
      if (unit === hovered || (marked !== null && !dim)) { pen.strokeStyle = colors.ink; pen.lineWidth = 1.5; pen.strokeRect(a + 0.5, top + 0.5, Math.max(wide - 1, 1), ROW - 1); }
      if (wide > 64) {
        pen.fillStyle = "#0b1016"; pen.textAlign = "left"; pen.textBaseline = "middle";
        const blocks = `${units.first[unit]}–${units.last[unit] - 1}`;
        const text = wide > 150 ? `${tenantName(run, tenantOf(unit))} ${blocks}` : blocks;
        if (pen.measureText(text).width < wide - 10) {
          pen.fillStyle = "rgba(255,255,255,.8)";
          pen.fillRect(a + 4, top + ROW / 2 - 8, pen.measureText(text).width + 6, 16);
          pen.fillStyle = "#0b1016";
          pen.fillText(text, a + 7, top + ROW / 2 + 0.5);
        }
      }
    }
    pen.globalAlpha = 1;
  };

  const draw = () => {
    const colors = theme();
    const { pen, width } = prepared(canvas, height);
    plotWidth = Math.max(width - LEFT - RIGHT, 10);
    pen.clearRect(0, 0, width, height);
    const step = roundStep(to - from, Math.max(3, width / 120));
    const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / 1e6) - 1e-9)));
    pen.lineWidth = 1;
    for (const value of ticks(from - run.begin_us, to - run.begin_us, Math.max(3, width / 120))) {
      const x = Math.round(toX(value + run.begin_us)) + 0.5;
      pen.strokeStyle = colors.line;
      pen.beginPath(); pen.moveTo(x, 0); pen.lineTo(x, height - AXIS + 4); pen.stroke();
      pen.fillStyle = colors.quiet; pen.textBaseline = "alphabetic";
      const text = step < 1000 ? `${(value / 1000).toFixed(Math.max(0, Math.ceil(-Math.log10(step / 1000))))} ms` : `${(value / 1e6).toFixed(decimals)} s`;
      const room = pen.measureText(text).width / 2;
      pen.textAlign = x + room > width ? "right" : "center";
      pen.fillText(text, Math.min(x, width - 1), height - 6);
    }
    lanes.forEach((lane, row) => {
      const top = rowTop(row);
      pen.fillStyle = colors.soft;
      pen.fillRect(LEFT, top, plotWidth, ROW);
      pen.fillStyle = colors.ink; pen.textAlign = "left"; pen.textBaseline = "middle";
      pen.fillText(`core ${run.cores[row]}`, 2, top + ROW / 2);
      const begin = firstEndingAfter(units, lane, from);
      let end = begin;
      while (end < lane.length && units.start[lane[end]] < to) end++;
      if (marked === null && end - begin > plotWidth * 0.7) drawDense(pen, colors, lane, begin, end, top);
      else drawUnits(pen, colors, lane, begin, end, top);
      pen.fillStyle = colors.bad;
      for (const [since, until] of held[row]) {
        const a = Math.max(toX(since), LEFT), b = Math.min(toX(until), LEFT + plotWidth);
        if (b > a) pen.fillRect(a, top + ROW + 1, Math.max(b - a, 1), 4);
      }
    });
    pen.lineWidth = 1.2; pen.setLineDash([2, 3]);
    for (const { at, over } of run.drifts) {
      if (at < from || at > to) continue;
      pen.strokeStyle = over ? colors.quiet : colors.bad;
      pen.beginPath(); pen.moveTo(toX(at), 0); pen.lineTo(toX(at), height - AXIS); pen.stroke();
    }
    pen.setLineDash([]);
    if (marked !== null) {
      for (const [us, color, dash] of [[requests.arrived[marked], colors.ink, []], [requests.deadline[marked], colors.bad, [5, 4]]]) {
        if (us == null || us < from || us > to) continue;
        pen.strokeStyle = color; pen.lineWidth = 1.6; pen.setLineDash(dash);
        pen.beginPath(); pen.moveTo(toX(us), 0); pen.lineTo(toX(us), height - AXIS); pen.stroke(); pen.setLineDash([]);
      }
    }
    if (drag?.moved && !drag.pan) {
      pen.fillStyle = colors.accent; pen.globalAlpha = 0.2;
      pen.fillRect(Math.min(drag.x, drag.at), 0, Math.abs(drag.at - drag.x), height - AXIS); pen.globalAlpha = 1;
    }
    range.textContent = `${duration(Math.max(from - run.begin_us, 0))} to ${duration(to - run.begin_us)}`;
  };

  const view = (a, b) => {
    const span = Math.min(Math.max(b - a, 50), full[1] - full[0]);
    const begin = Math.min(Math.max(a, full[0]), full[1] - span);
    [from, to] = [begin, begin + span];
    requestAnimationFrame(draw);
  };
  const zoom = (factor, at = (from + to) / 2) => view(at - (at - from) * factor, at + (to - at) * factor);
  const pan = (share) => view(from + (to - from) * share, to + (to - from) * share);
  const reset = () => { marked = null; view(...full); };

  const unitAt = (x, y) => {
    const row = Math.floor(y / (ROW + GAP));
    if (row < 0 || row >= lanes.length || x < LEFT) return null;
    const k = firstEndingAfter(units, lanes[row], toUs(x) - ((to - from) / plotWidth) * 0.5);
    const unit = lanes[row][k];
    return unit !== undefined && units.start[unit] <= toUs(x + 1) ? unit : null;
  };
  const facts = (unit) => {
    const request = units.request[unit];
    const variants = units.variants[units.variant[unit]];
    const kinds = [...new Set(variants)].map((name) => { const n = variants.filter((v) => v === name).length; return n > 1 ? `${name} ×${n}` : name; });
    const measured = units.measured[unit];
    return [
      ["request", requests.id[request]], ["model", run.tenants[tenantOf(unit)].model],
      ...(units.riders[unit] ? [["batch", `of ${units.riders[unit] + 1} requests`]] : []),
      ["blocks", `${units.first[unit]} to ${units.last[unit] - 1}` + (units.riders[unit] ? "" : ` of ${run.blocks[run.tenants[tenantOf(unit)].model] ?? "?"}`)],
      ["cores", units.cores[units.core[unit]].join(", ")], ["variant", kinds.join(", ")],
      ["predicted", duration(units.predicted[unit])],
      ["measured", measured == null ? "still running at the end of the log" : `${duration(measured)} (${(measured / units.predicted[unit]).toFixed(2)}× predicted)`],
      ["pressure", percent(units.pressure[unit], 0)], ["waiting then", `${units.waiting[unit]} requests`],
      ["why", units.reasons[units.reason[unit]]],
      ...units.rejecteds[units.rejected[unit]].map(([what, why]) => [`not ${what}`, why]),
      ...(units.failed[unit] != null ? [["failed", units.failed[unit]]] : []),
    ];
  };

  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, at: event.offsetX, moved: false, pan: event.shiftKey || event.pointerType === "touch" || event.button === 1, from, to };
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
      } else requestAnimationFrame(draw);
      return;
    }
    const unit = unitAt(event.offsetX, event.offsetY);
    if (unit !== hovered) { hovered = unit; requestAnimationFrame(draw); }
    if (unit === null) hideTip();
    else showTip(event.clientX, event.clientY, tenantName(run, tenantOf(unit)), facts(unit));
  });
  canvas.addEventListener("pointerup", (event) => {
    const ended = drag;
    drag = null;
    if (ended?.moved && !ended.pan) view(toUs(Math.min(ended.x, ended.at)), toUs(Math.max(ended.x, ended.at)));
    else if (ended && !ended.moved) {
      const unit = unitAt(event.offsetX, event.offsetY);
      marked = unit === null ? null : units.request[unit];
      requestAnimationFrame(draw);
      if (unit !== null) showTip(event.clientX, event.clientY, tenantName(run, tenantOf(unit)), facts(unit));
    }
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { hovered = null; hideTip(); requestAnimationFrame(draw); });
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY) && !event.shiftKey) return; // the page scrolls
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, toUs(event.offsetX));
    else pan((event.deltaX || event.deltaY) / plotWidth);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.7), 0: reset, Escape: reset }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  const button = (label, name, act) => element("button", { type: "button", "aria-label": name, title: name, onclick: act }, label);
  const tools = element("div", { class: "tools" }, range,
    button("◀", "Earlier", () => pan(-0.4)), button("▶", "Later", () => pan(0.4)),
    button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2)), button("All", "Show all", reset));
  const show = (request) => {
    marked = request;
    const end = Math.max(requests.end[request] ?? run.end_us, requests.deadline[request] ?? 0);
    const margin = (end - requests.arrived[request]) * 0.12;
    view(requests.arrived[request] - margin, end + margin);
    canvas.scrollIntoView({ block: "center", behavior: "smooth" });
  };
  return { canvas: onRedraw(canvas, draw), tools, show };
};
