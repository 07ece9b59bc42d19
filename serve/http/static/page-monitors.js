// What warns early: numbers of each version's answers beside their accuracy.

import { sparkline } from "./page-curve.js";
import { el, percent } from "./page-draw.js";

const nats = (value) => `${value.toFixed(2)} nats`;
const points = (value) => `${value >= 0 ? "+" : "−"}${(100 * Math.abs(value)).toFixed(1)} points`;
const MONITORS = {
  flexible_ratio: ["right in any format", "what is above the accuracy is lost by format alone", percent],
  entropy_nats: ["entropy of the answers", "falls when many questions get one answer", nats],
  distinct_2_ratio: ["distinct pairs of words", "falls when the texts grow alike", percent],
  sampled_ratio: ["right samples", "of the questions that are also sampled", percent],
  pass_n_ratio: ["one sample right, at least", "what votes can choose from", percent],
  gap: ["what the vote gains", "right samples among those that the vote keeps, less all; at 0 it teaches nothing", points],
};

/** A row for each monitor that any version has: name, its course over the versions, base and newest value. */
export function drawMonitors(versions, table, card) {
  const rows = Object.entries(MONITORS).flatMap(([name, [title, says, written]]) => {
    const values = versions.map((v) => v.monitors?.[name]).filter((value) => value !== undefined);
    if (!values.length) return [];
    const least = Math.min(0, ...values);
    const range = Math.max(...values) - least || 1;
    const head = el("th", { scope: "row" }, title, el("small", {}, says));
    const line = el("td", { class: "line" }, sparkline(values.map((value) => (value - least) / range), Math.max(2, values.length)));
    const first = values.length > 1 ? el("small", {}, `first ${written(values[0])}`) : null;
    return [el("tr", { class: name }, head, line, el("td", { class: "number" }, written(values.at(-1)), first))];
  });
  table.replaceChildren(...rows);
  card.hidden = rows.length === 0;
}
