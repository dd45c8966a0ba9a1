// Canvas charts that share one frame: axes, grid, labels, pointer. A chart redraws itself when its size or scheme changes.

const redraws = [];
const onRedraw = (canvas, draw) => {
  redraws.push(() => { if (canvas.offsetParent !== null) draw(); });
  return canvas;
};
const redrawAll = () => redraws.forEach((draw) => draw());
addEventListener("resize", () => requestAnimationFrame(redrawAll));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

const prepared = (canvas, height) => {
  const width = canvas.parentElement.clientWidth - parseFloat(getComputedStyle(canvas.parentElement).paddingLeft) * 2;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "11.5px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  return { pen, width, height };
};

// x and y: { from, to, ticks, label(value), log }. Returns the mapping of values to pixels.
const frame = (pen, width, height, x, y, colors, margin = { left: 52, right: 12, top: 8, bottom: 24 }) => {
  const scale = (axis, low, high) => {
    const f = axis.log ? Math.log10 : (value) => value;
    const [a, b] = [f(axis.from), f(axis.to)];
    return (value) => low + ((f(value) - a) / (b - a || 1)) * (high - low);
  };
  const toX = scale(x, margin.left, width - margin.right);
  const toY = scale(y, height - margin.bottom, margin.top);
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  for (const value of y.ticks) {
    const at = Math.round(toY(value)) + 0.5;
    pen.strokeStyle = colors.soft;
    pen.beginPath(); pen.moveTo(margin.left, at); pen.lineTo(width - margin.right, at); pen.stroke();
    pen.fillStyle = colors.quiet;
    pen.textAlign = "right";
    pen.fillText(y.label(value), margin.left - 8, at);
  }
  pen.textBaseline = "alphabetic";
  for (const value of x.ticks) {
    const at = toX(value);
    if (x.grid) { pen.strokeStyle = colors.soft; pen.beginPath(); pen.moveTo(at, margin.top); pen.lineTo(at, height - margin.bottom); pen.stroke(); }
    pen.fillStyle = colors.quiet;
    const text = x.label(value);
    const half = pen.measureText(text).width / 2;
    pen.textAlign = at + half > width ? "right" : "center";
    pen.fillText(text, pen.textAlign === "right" ? width - 1 : at, height - margin.bottom + 17);
  }
  pen.strokeStyle = colors.line;
  pen.beginPath(); pen.moveTo(margin.left, height - margin.bottom + 0.5); pen.lineTo(width - margin.right, height - margin.bottom + 0.5); pen.stroke();
  return { toX, toY, left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom };
};

const secondsLabel = (step) => (us) => `${(us / 1e6).toFixed(Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / 1e6) - 1e-9))))} s`;
const timeAxis = (run, width) => {
  const to = Math.max(run.end_us - run.begin_us, 1);
  const values = ticks(0, to, Math.max(3, width / 110));
  return { from: 0, to, ticks: values, label: secondsLabel(roundStep(to, Math.max(3, width / 110))) };
};

// Lines over time. series: [{ name, color(colors), values: number|null per bin, area }]; one bin is `step` us wide.
const lineChart = (run, description, step, series, yAxis, text, { guides = [], tall = 190 } = {}) => {
  const canvas = element("canvas", { role: "img", "aria-label": description, title: "" });
  canvas.removeAttribute("title");
  let at = null;
  const draw = () => {
    const colors = theme();
    const { pen, width, height } = prepared(canvas, tall);
    const box = frame(pen, width, height, timeAxis(run, width), yAxis, colors);
    const middle = (i) => box.toX(Math.min((i + 0.5) * step, run.end_us - run.begin_us));
    for (const value of guides) {
      pen.setLineDash([4, 4]); pen.strokeStyle = colors.quiet; pen.beginPath();
      pen.moveTo(box.left, box.toY(value)); pen.lineTo(box.right, box.toY(value)); pen.stroke(); pen.setLineDash([]);
    }
    series.forEach(({ values, color, area }, place) => {
      const aside = (place - (series.length - 1) / 2) * 2.2; // lines that coincide lie side by side
      const toY = (value) => box.toY(value) + (area || series[0].area ? 0 : aside);
      pen.strokeStyle = pen.fillStyle = color(colors);
      pen.lineWidth = 1.8; pen.lineJoin = "round";
      let begin = null;
      pen.beginPath();
      values.forEach((value, i) => {
        if (value == null) { begin = null; return; }
        if (begin === null) pen.moveTo(middle(i), toY(value)); else pen.lineTo(middle(i), toY(value));
        begin ??= i;
        if (values[i + 1] == null && begin === i && !area) { pen.fillRect(middle(i) - 1.5, toY(value) - 1.5, 3, 3); pen.moveTo(middle(i), toY(value)); }
      });
      if (area) {
        pen.globalAlpha = 0.2;
        values.forEach((value, i) => { if (value != null) pen.fillRect(box.toX(i * step), box.toY(value), box.toX(step) - box.toX(0) + 0.5, box.bottom - box.toY(value)); });
        pen.globalAlpha = 1;
      } else pen.stroke();
    });
    if (at !== null) {
      pen.strokeStyle = colors.quiet; pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(middle(at), box.top); pen.lineTo(middle(at), box.bottom); pen.stroke();
    }
    canvas.bin = (x) => Math.floor(((x - box.left) / (box.right - box.left)) * (run.end_us - run.begin_us) / step);
  };
  canvas.addEventListener("pointermove", (event) => {
    const i = canvas.bin(event.offsetX);
    const known = i >= 0 && series.some(({ values }) => values[i] != null);
    at = known ? i : null;
    draw();
    if (known) showTip(event.clientX, event.clientY, `${duration(i * step)} to ${duration((i + 1) * step)}`, series.map(({ name, values }) => [name, values[i] == null ? "–" : text(values[i], i)]));
    else hideTip();
  });
  canvas.addEventListener("pointerleave", () => { at = null; draw(); hideTip(); });
  return onRedraw(canvas, draw);
};

// Predicted against measured time of every unit, both axes logarithmic, the diagonal is a perfect prediction.
const scatterChart = (run, description) => {
  const { units, requests } = run;
  const canvas = element("canvas", { role: "img", "aria-label": description });
  const places = units.start.map((_, i) => i).filter((i) => units.measured[i] > 0 && units.predicted[i] > 0);
  let low = Infinity, high = 0;
  for (const i of places) {
    low = Math.min(low, units.measured[i], units.predicted[i]);
    high = Math.max(high, units.measured[i], units.predicted[i]);
  }
  [low, high] = [low / 1.25, high * 1.25];
  const powers = [];
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power++) powers.push(10 ** power);
  if (high / low < 12) powers.splice(0, powers.length, ...ticks(low, high, 5));
  else if (powers.length < 3) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(...[2, 5].map((f) => f * 10 ** power).filter((v) => v >= low && v <= high));
  }
  const axis = { from: low, to: high, ticks: powers, label: (us) => (us < 1000 ? `${us} µs` : us < 1e6 ? `${us / 1000} ms` : `${us / 1e6} s`), log: true, grid: true };
  const draw = () => {
    const colors = theme();
    const { pen, width, height } = prepared(canvas, 300);
    const box = frame(pen, width, height, axis, axis, colors, { left: 56, right: 14, top: 10, bottom: 40 });
    pen.fillStyle = colors.quiet; pen.textAlign = "center";
    pen.fillText("predicted", (box.left + box.right) / 2, height - 5);
    pen.save(); pen.translate(11, (box.top + box.bottom) / 2); pen.rotate(-Math.PI / 2); pen.fillText("measured", 0, 0); pen.restore();
    const size = places.length > 20000 ? 1.4 : places.length > 3000 ? 2 : 3;
    pen.globalAlpha = places.length > 20000 ? 0.25 : places.length > 3000 ? 0.4 : 0.6;
    for (const i of places) {
      pen.fillStyle = colors.tenants[colorNumber(requests.tenant[units.request[i]])];
      pen.fillRect(box.toX(units.predicted[i]) - size / 2, box.toY(units.measured[i]) - size / 2, size, size);
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = colors.ink; pen.lineWidth = 1.2;
    pen.beginPath(); pen.moveTo(box.left, box.bottom); pen.lineTo(box.right, box.top); pen.stroke();
  };
  return onRedraw(canvas, draw);
};
