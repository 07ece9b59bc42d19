// The status page: follows /events and redraws each part when it changes.

import { loadModels, offerExamples, startChat } from "./page-chat.js";
import { VERDICTS, drawCurve, sparkline } from "./page-curve.js";
import { drawMonitors } from "./page-monitors.js";
import { $, clock, el, percent } from "./page-draw.js";
import { KeyWanted, follow, hasKey, keepKey } from "./page-stream.js";

const SLOTS = {
  serve: "answers users",
  explore: "learning samples from it",
  champion: "candidates are compared with it",
  candidate: "waits for the gate",
};
const RESTS_ON = {
  base: "The base model, before any learning.",
  certified: "The gate checked its answers with answer keys",
  guarded: "The gate checked its agreement with anchors. That guards against collapse and is not evidence of improvement",
  "by hand": "A person promoted it; the gate’s verdict did not count",
  unweighed: "The gate is off, so nothing checked this version",
};
const PURPOSES = {
  users: "answers to users",
  learning: "samples of collectors",
  gate: "probes of candidates",
  report: "accuracy on report questions",
};
const RATE_OVER = 10; // seconds; the counters change every 2 s
const SHOWN_RATES = 120;

/** Each view, and the parts of the state that it shows. */
const VIEWS = [
  [drawHeadline, ["slots", "versions"]],
  [drawBanners, ["held", "waiting", "paused", "disk_full", "away", "slots"]],
  [drawSlots, ["slots", "learning"]],
  [drawVersions, ["versions"]],
  [drawLearning, ["learning"]],
  [drawReplicas, ["replicas"]],
  [drawEvents, ["events"]],
  [offerModels, ["slots", "versions"]],
  [offerExamples, ["examples"]],
];

const state = {};
let unreachable = ""; // the reason why there is no overview
let totals = []; // token counts, one per second
let rates = Object.fromEntries(Object.keys(PURPOSES).map((purpose) => [purpose, []]));
let newestEvent = 0;

startChat(wantKey);
listen();
setInterval(drawRates, 1000);
new ResizeObserver(() => state.versions && drawVersions(state)).observe($("curve-says"));

async function listen() {
  try {
    await follow("/events", { onEvent, onLost });
  } catch (error) {
    if (!(error instanceof KeyWanted)) throw error;
    wantKey();
  }
}

function onEvent({ event, data }) {
  const body = JSON.parse(data);
  connected(true);
  $("key").hidden = true;
  unreachable = event === "away" ? body.message : "";
  const changed = event === "away" ? ["away"] : [...Object.keys(body), "away"];
  if (event === "state") Object.assign(state, body);
  for (const [draw, parts] of VIEWS) {
    if (parts.some((part) => changed.includes(part))) draw(state);
  }
}

function onLost() {
  connected(false);
  totals = [];
}

function connected(is) {
  const text = is ? "live" : "connection lost, trying again";
  if ($("connection").textContent !== text) $("connection").textContent = text;
  document.body.classList.toggle("live", is);
  document.body.classList.toggle("lost", !is);
}

function wantKey() {
  connected(false);
  $("connection").textContent = "an API key is required";
  if (hasKey()) $("key-note").textContent = "The server did not accept that key.";
  $("key").hidden = false;
  $("key-value").focus();
}

$("key").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  keepKey($("key-value").value);
  $("key-value").value = "";
  $("key").hidden = true;
  listen();
  offerModels();
});

async function offerModels() {
  try {
    await loadModels();
  } catch {
    // keep the current list; the next question shows the error
  }
}

function drawHeadline({ slots, versions }) {
  const serve = slots?.serve;
  if (!serve) {
    $("headline").textContent = "The served version is unknown";
    $("rests-on").replaceChildren();
    return;
  }
  const row = versions.find((v) => v.version === serve.version);
  $("headline").textContent = serve.version === 0 ? "The base model answers users" : `Version ${serve.version} answers users`;
  document.title = `Ratchet: v${serve.version}`;
  const says = [RESTS_ON[serve.standing] ?? serve.standing];
  if (serve.version > 0) says.push(row?.probes ? ` (${row.probes} probes). ` : ". ", worth(row, versions[0]));
  $("rests-on").replaceChildren(standing(serve.standing), " ", ...says);
}

/** A version's accuracy and the base's, if the run measures them. */
function worth(row, base) {
  if (!row || row.accuracy === null) return "";
  const before = base?.version === 0 && base.accuracy !== null ? `, the base ${percent(base.accuracy)}` : "";
  return `It is right on ${percent(row.accuracy)} of the report’s questions${before}.`;
}

function drawBanners({ held, waiting, paused, disk_full: full, away, slots }) {
  const banners = [];
  if (held) {
    const next = waiting === null ? "" : ` v${waiting} takes effect at the release.`;
    banners.push(banner(`Serving is held at v${slots?.serve?.version}`, `by ${held.by}, since ${clock(held.at)}: ${held.why}.${next}`, "ratchet hold --off"));
  }
  if (paused) banners.push(banner("Learning is paused:", `${paused}. Serving continues.`, "ratchet resume"));
  if (full) banners.push(banner("The disk is full:", `${full.why}; ${full.remedy}.`));
  for (const [part, why] of Object.entries(away ?? {})) banners.push(banner(`No status from ${part}:`, why));
  if (unreachable) banners.push(banner("No overview of the run:", unreachable));
  $("banners").replaceChildren(...banners);
}

function banner(title, text, command) {
  const remedy = command ? [" ", el("code", {}, command), " ends it."] : [];
  return el("p", { class: "banner" }, el("strong", {}, title), " ", text, ...remedy);
}

function drawSlots({ slots, learning }) {
  const cards = Object.entries(SLOTS).map(([name, says]) => {
    const slot = slots[name];
    if (!slot) return el("div", { class: "slot vacant" }, el("dt", {}, name), el("dd", {}, el("b", {}, "–"), el("small", {}, "no version waits for the gate")));
    const weighing = name === "candidate" && learning?.weighing === slot.version;
    const chip = slot.state === "promoted" || !slot.state ? slot.standing : slot.state;
    return el("div", { class: `slot ${name}` }, el("dt", {}, name), el("dd", {}, el("b", {}, `v${slot.version}`), chip ? standing(chip) : null, el("small", {}, weighing ? "the gate weighs it now" : says)));
  });
  $("slots").replaceChildren(...cards);
}

function standing(name) {
  return el("span", { class: `chip ${name.replaceAll(" ", "-")}` }, name);
}

function drawVersions({ versions }) {
  drawCurve(versions, $("curve"), $("curve-says"), $("legend"));
  const headings = ["version", "verdict", "rests on", "probes", "agreement", "champion’s", "accuracy (95%)", "why"];
  const share = (value) => (value === null ? "" : percent(value));
  const rows = versions.toReversed().map((v) => {
    const interval = v.low === null ? "" : ` (${percent(v.low)} – ${percent(v.high)})`;
    const verdict = VERDICTS[v.verdict]?.name ?? v.verdict;
    const cells = [verdict, v.standing, v.probes || "", share(v.agreement), share(v.champion_agreement), share(v.accuracy) + interval, v.reason];
    return el("tr", {}, el("th", { scope: "row" }, `v${v.version}`), ...cells.map((cell) => el("td", {}, String(cell))));
  });
  const head = el("tr", {}, ...headings.map((heading) => el("th", { scope: "col" }, heading)));
  $("versions").replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
  drawMonitors(versions, $("monitors"), $("monitors-card"));
}

/** Runs every second: draws the tokens per second over the last RATE_OVER seconds. */
function drawRates() {
  if (!state.tokens || !document.body.classList.contains("live")) return;
  totals = [...totals, state.tokens].slice(-RATE_OVER - 1);
  const seconds = totals.length - 1;
  if (seconds < 2) return;
  const rows = Object.entries(PURPOSES).map(([purpose, says]) => {
    const rate = Math.max(0, totals.at(-1)[purpose] - totals[0][purpose]) / seconds;
    rates[purpose] = [...rates[purpose], rate].slice(-SHOWN_RATES);
    const name = el("th", { scope: "row" }, purpose, el("small", {}, says));
    const line = el("td", { class: "line" }, sparkline(rates[purpose], SHOWN_RATES));
    return el("tr", { class: purpose }, name, line, el("td", { class: "number" }, Math.round(rate).toLocaleString()));
  });
  $("rates").replaceChildren(...rows);
}

function drawLearning({ learning }) {
  const share = learning.vote_share;
  const facts = {
    "votes agree": share === null ? "no votes yet" : percent(share),
    buffer: learning.waiting === null ? "–" : `${learning.waiting} waiting, ${learning.outstanding} leased, room for ${learning.capacity}`,
    trainer: learning.trainer ?? "–",
    gate: gateSays(learning),
  };
  $("learning").replaceChildren(...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function gateSays({ anchors, weighing }) {
  if (anchors) {
    const left = anchors.left_s === null ? "" : `, about ${Math.ceil(anchors.left_s / 60)} min left`;
    return `makes its anchors: ${anchors.answered} of ${anchors.questions} questions${left}`;
  }
  return weighing === null ? "nothing to weigh" : `weighing v${weighing}`;
}

function drawReplicas({ replicas }) {
  const items = replicas.map((r) => {
    const name = el("b", { title: r.name }, r.name.split("#").at(-1));
    const proven = (r.proven ?? []).map((v) => `v${v}`).join(", ");
    const does = `${r.users ?? 0} users, ${r.background ?? 0} in the background, ${r.swaps ?? 0} swaps`;
    const failed = Object.entries(r.failed ?? {}).map(([version, why]) => el("p", { class: "problem" }, `${version} was not proven: ${why}`));
    const silent = r.silent ? [el("p", { class: "problem" }, "no recent report")] : [];
    return el("li", {}, el("p", {}, name, el("span", { class: "serves" }, `serves v${r.serving}`)), el("p", { class: "quiet" }, `has proven ${proven}; ${does}`), ...failed, ...silent);
  });
  $("replicas").replaceChildren(...(items.length ? items : [el("li", { class: "empty" }, "No replica has reported yet.")]));
}

/** Newest first. Adds only new events, so that screen readers announce each one once. */
function drawEvents({ events }) {
  const list = $("events");
  if (events.length && events.at(-1).id < newestEvent) {
    list.replaceChildren(); // the server has a new run
    newestEvent = 0;
  }
  const first = newestEvent === 0;
  for (const event of events.filter((each) => each.id > newestEvent)) {
    const time = el("time", { datetime: new Date(1000 * event.at).toISOString() }, clock(event.at));
    list.prepend(el("li", { class: `event ${event.kind}${first ? "" : " new"}` }, time, el("span", {}, event.text)));
    newestEvent = event.id;
  }
  while (list.children.length > 30) list.lastChild.remove();
}
