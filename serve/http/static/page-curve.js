// The curve: one mark per version, and a line through the served versions.

import { el, percent, svg } from "./page-draw.js";

const HEIGHT = 280;
const LEFT = 52;
const TOP = 14;
const BOTTOM = 236;
const TICK_WIDTH = 42;
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2];

export const VERDICTS = {
  base: { name: "base", shape: "square" },
  promote: { name: "promoted", shape: "circle" },
  hold: { name: "held", shape: "diamond" },
  reject: { name: "rejected", shape: "cross" },
  "rolled back": { name: "rolled back", shape: "triangle" },
  undecided: { name: "not weighed yet", shape: "ring" },
};

/** The values to draw: accuracy if the run measures it, otherwise the agreement on the gate's probes. */
export function measure(versions) {
  if (versions.some((v) => v.accuracy !== null)) {
    const points = versions.filter((v) => v.accuracy !== null).map((v) => ({ ...v, at: v.accuracy }));
    return { label: "accuracy", says: "Accuracy on questions that neither the trainer nor the gate sees, with its 95% interval.", points };
  }
  const keyed = versions.some((v) => v.standing === "certified");
  const points = withBase(versions).filter((v) => v.agreement !== null).map((v) => ({ ...v, at: v.agreement, low: null, high: null }));
  return keyed
    ? { label: "right answers to probes", says: "Share of the gate’s probes with a right answer.", points }
    : {
        label: "agreement with anchors",
        says: "This run measures no accuracy. The curve shows agreement with the anchors, the base model’s own majority answers. A drop shows collapse; a rise is not evidence of improvement.",
        points,
      };
}

/** Fill in the base's agreement from the first version that was weighed against it. */
function withBase(versions) {
  const first = versions.find((v) => v.version > 0 && v.champion_agreement !== null);
  return versions.map((v) => (v.version === 0 && first ? { ...v, agreement: first.champion_agreement } : v));
}

export function drawCurve(versions, into, says, legend) {
  const { label, says: text, points } = measure(versions);
  says.textContent = points.length ? text : "Nothing is measured yet. The first version is not ready.";
  into.replaceChildren(...(points.length ? [picture(points, label, Math.max(into.clientWidth, 240))] : []));
  const seen = Object.keys(VERDICTS).filter((verdict) => points.some((p) => p.verdict === verdict));
  legend.replaceChildren(...seen.map((verdict) => el("li", {}, key(verdict), VERDICTS[verdict].name)));
}

function picture(points, label, width) {
  const scale = scales(points, width - 12);
  const last = points.at(-1);
  const summary = `${label} by version: ${points.length} versions, from ${percent(points[0].at)} of v${points[0].version} to ${percent(last.at)} of v${last.version}. The table below lists all.`;
  const served = points.filter((p) => p.verdict === "base" || p.verdict === "promote");
  const line = served.map((p, i) => `${i ? "L" : "M"}${scale.x(p.version)} ${scale.y(p.at)}`).join("");
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": summary },
    ...scale.shares.map((share) => row(share, scale)),
    ...scale.numbers.map((n) => svg("text", { x: scale.x(n), y: BOTTOM + 20, class: "tick middle" }, `v${n}`)),
    svg("text", { x: (LEFT + width) / 2, y: HEIGHT - 6, class: "axis middle" }, "version"),
    svg("text", { x: -(TOP + BOTTOM) / 2, y: 12, class: "axis middle", transform: "rotate(-90)" }, label),
    svg("path", { d: line, class: "served" }),
    ...points.map((point) => mark(point, scale)),
  );
}

function row(share, scale) {
  const y = scale.y(share);
  return svg(
    "g",
    {},
    svg("line", { x1: LEFT, x2: scale.right, y1: y, y2: y, class: "grid" }),
    svg("text", { x: LEFT - 8, y: y + 4, class: "tick end" }, `${Math.round(100 * share)}%`),
  );
}

function mark(point, scale) {
  const x = scale.x(point.version);
  const y = scale.y(point.at);
  const interval = point.low === null ? "" : ` (${percent(point.low)} to ${percent(point.high)})`;
  const verdict = VERDICTS[point.verdict]?.name ?? point.verdict;
  return svg(
    "g",
    { class: `mark ${cssName(point.verdict)}` },
    svg("title", {}, `v${point.version} ${verdict}: ${percent(point.at)}${interval}`),
    point.low === null ? null : svg("line", { x1: x, x2: x, y1: scale.y(point.low), y2: scale.y(point.high), class: "interval" }),
    shape(VERDICTS[point.verdict]?.shape ?? "ring", x, y, 5),
  );
}

function key(verdict) {
  const drawn = shape(VERDICTS[verdict].shape, 8, 8, 5);
  return svg("svg", { viewBox: "0 0 16 16", class: `key mark ${cssName(verdict)}`, "aria-hidden": "true" }, drawn);
}

/** Each verdict has its own shape, so color is not needed to tell them apart. */
function shape(name, x, y, r) {
  const path = (d) => svg("path", { d, class: "shape" });
  switch (name) {
    case "square":
      return path(`M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`);
    case "diamond":
      return path(`M${x} ${y - r - 1.5}l${r + 1.5} ${r + 1.5}l${-r - 1.5} ${r + 1.5}l${-r - 1.5} ${-r - 1.5}z`);
    case "cross":
      return path(`M${x - r} ${y - r}l${2 * r} ${2 * r}M${x + r} ${y - r}l${-2 * r} ${2 * r}`);
    case "triangle":
      return path(`M${x - r - 1} ${y - r + 1}h${2 * r + 2}l${-r - 1} ${2 * r}z`);
    default:
      return svg("circle", { cx: x, cy: y, r, class: "shape" });
  }
}

function scales(points, right) {
  const least = Math.min(...points.map((p) => p.low ?? p.at));
  const most = Math.max(...points.map((p) => p.high ?? p.at));
  const step = STEPS.find((s) => (most - least) / s <= 5) ?? 0.25;
  const bottom = Math.max(0, Math.floor(least / step - 1e-9) * step);
  const top = Math.max(bottom + step, Math.min(1, Math.ceil(most / step + 1e-9) * step));
  const first = points[0].version;
  const last = Math.max(points.at(-1).version, first + 1);
  const every = Math.ceil(((last - first + 1) * TICK_WIDTH) / (right - LEFT));
  const numbers = [];
  for (let n = first; n <= last; n += every) numbers.push(n);
  const shares = [];
  for (let share = bottom; share <= top + 1e-9; share += step) shares.push(share);
  const inset = 14;
  return {
    x: (n) => rounded(LEFT + inset + ((n - first) / (last - first)) * (right - LEFT - 2 * inset)),
    y: (s) => rounded(BOTTOM - ((s - bottom) / (top - bottom)) * (BOTTOM - TOP)),
    right,
    numbers,
    shares,
  };
}

/** A line of past values, newest at the right, scaled to `places` values. */
export function sparkline(values, places) {
  const [width, height] = [120, 24];
  const most = Math.max(...values, 1);
  const x = (i) => rounded(width - ((values.length - 1 - i) * width) / (places - 1));
  const y = (v) => rounded(height - 2 - (v / most) * (height - 4));
  const line = values.map((v, i) => `${i ? "L" : "M"}${x(i)} ${y(v)}`).join("");
  const box = { viewBox: `0 0 ${width} ${height}`, class: "spark", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", box, svg("path", { d: `${line}V${height}H${x(0)}z`, class: "under" }), svg("path", { d: line }));
}

function cssName(verdict) {
  return verdict.replaceAll(" ", "-");
}

function rounded(number) {
  return Math.round(100 * number) / 100;
}
