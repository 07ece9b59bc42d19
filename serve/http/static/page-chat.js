// The chat: asks questions, shows streamed answers, and sends votes on them.

import { $, el, svg } from "./page-draw.js";
import { KeyWanted, eventsOf, post, request } from "./page-stream.js";

const SAID = {
  counted: "Thank you. Your vote counts.",
  waiting: "Thank you. Your vote is kept, and will count after the model has explored this question.",
};

let examples = [];

/** The turns that the run's task puts before each question; asked in front of the user's own if the box is ticked. */
export function offerExamples({ examples: given }) {
  examples = given ?? [];
  $("examples").hidden = examples.length === 0;
  $("examples-say").textContent = `behind the ${examples.length / 2} examples that the model learns with`;
}

/** Attach the chat's event handlers. `wantKey` is called when the server asks for an API key. */
export function startChat(wantKey) {
  const turns = [];
  let halt = null;

  $("ask").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const question = $("question").value.trim();
    if (!question || halt) return;
    halt = new AbortController();
    busy(true);
    const turn = newTurn(question);
    try {
      const earlier = $("follow-up").checked ? turns.flatMap(messagesOf) : [];
      $("question").value = "";
      const shown = $("with-examples").checked ? examples : [];
      await answer(turn, [...shown, ...earlier, { role: "user", content: question }], halt.signal);
      if (turn.text) turns.push(turn);
    } catch (error) {
      if (error instanceof KeyWanted) {
        $("question").value = question;
        turn.item.remove();
        wantKey();
      } else if (error.name !== "AbortError") {
        turn.item.append(el("p", { class: "problem" }, error.message));
      }
    } finally {
      turn.item.setAttribute("aria-busy", "false");
      if (turn.id) turn.item.append(ballot(turn, wantKey));
      scrollDown();
      halt = null;
      busy(false);
    }
  });
  $("question").addEventListener("keydown", (pressed) => {
    if (pressed.key === "Enter" && !pressed.shiftKey && !pressed.isComposing) {
      pressed.preventDefault();
      $("ask").requestSubmit();
    }
  });
  $("halt").addEventListener("click", () => halt?.abort());
}

/** Load the model names. Keeps the selected model if it still exists. */
export async function loadModels() {
  const { data } = await (await request("/v1/models")).json();
  const chosen = $("model").value;
  const askable = data.filter((model) => !model.needs?.length); // the others need more than a question
  $("model").replaceChildren(...askable.map((model) => el("option", { title: model.title ?? "" }, model.id)));
  if (askable.some((model) => model.id === chosen)) $("model").value = chosen;
}

async function answer(turn, messages, signal) {
  const asked = performance.now();
  const model = $("model").value;
  const mode = model.split(":")[1];
  const shown = mode ? { [mode]: { show: true } } : {};
  const reply = await post("/v1/chat/completions", { model, messages, stream: true, ...shown }, signal);
  const version = reply.headers.get("x-policy-version");
  turn.by.textContent = version === null ? "answering" : `v${version}`;
  for await (const { data } of eventsOf(reply)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    turn.id = chunk.id;
    const { delta } = chunk.choices?.[0] ?? {};
    if (delta?.reasoning_content) asideOf(turn).append(delta.reasoning_content);
    if (chunk.vote) turn.vote = chunk.vote;
    const piece = delta?.content;
    if (piece) {
      turn.text += piece;
      turn.answer.append(piece);
      scrollDown();
    }
  }
  const seconds = ((performance.now() - asked) / 1000).toFixed(1);
  const who = version === null ? `${seconds} s` : `v${version} answered in ${seconds} s`;
  turn.by.textContent = who + (turn.vote ? cost(turn.vote) : "");
}

/** What a serving mode says of its answer. */
function cost({ share, asked, budget_spent: spent }) {
  const agreed = share === null ? "" : `, ${Math.round(100 * share)}% agree`;
  return `; ${asked} ${asked === 1 ? "sample" : "samples"}${agreed}${spent ? "; the budget ended" : ""}`;
}

/** Where the hidden work of a serving mode is shown. */
function asideOf(turn) {
  if (!turn.aside) {
    turn.aside = el("pre", {});
    turn.answer.before(el("details", { class: "aside" }, el("summary", {}, "hidden work"), turn.aside));
  }
  return turn.aside;
}

function newTurn(question) {
  const answer = el("p", { class: "answer" });
  const by = el("p", { class: "by" }, "asking");
  const item = el("li", { "aria-busy": "true" }, el("p", { class: "question" }, question), answer, by);
  $("turns").querySelector(".empty")?.remove();
  $("turns").append(item);
  scrollDown();
  return { question, item, answer, by, text: "", id: null };
}

function messagesOf(turn) {
  return [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.text },
  ];
}

/** The vote controls of one answer: two thumbs and a form for a correction. */
function ballot(turn, wantKey) {
  const said = el("p", { class: "said", role: "status" });
  const good = el("button", { type: "button", "aria-pressed": "false", "aria-label": "Good answer" }, thumbOf("up"));
  const bad = el("button", { type: "button", "aria-pressed": "false", "aria-label": "Bad answer" }, thumbOf("down"));
  const better = el("button", { type: "button", "aria-expanded": "false" }, "write a better answer");
  const form = correction(turn, (text) => cast({ correction: text }));
  const cast = async (vote) => {
    try {
      said.textContent = "Sending your vote…";
      const reply = await post("/v1/feedback", { response_id: turn.id, choice: 0, ...vote });
      const { results } = await reply.json();
      said.textContent = results.map((each) => SAID[each.result] ?? `The server says: ${each.result}`).join(" ");
      return true;
    } catch (error) {
      said.textContent = `Your vote was not accepted: ${error.message}`;
      if (error instanceof KeyWanted) wantKey();
      return false;
    }
  };
  const thumb = async (pressed, other, vote) => {
    if (!(await cast({ binary: vote }))) return;
    pressed.setAttribute("aria-pressed", "true");
    other.setAttribute("aria-pressed", "false");
  };
  good.addEventListener("click", () => thumb(good, bad, true));
  bad.addEventListener("click", () => thumb(bad, good, false));
  better.addEventListener("click", () => {
    form.hidden = !form.hidden;
    better.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) form.querySelector("textarea").focus();
  });
  return el("div", { class: "ballot" }, el("div", { class: "row" }, good, bad, better), form, said);
}

function thumbOf(way) {
  const hand = svg("path", { d: "M7 11v9H4v-9zM7 11l4-8c1.7 0 2.6 1.2 2.3 2.9L12.7 9H19a2 2 0 0 1 2 2.4l-1.3 7A2 2 0 0 1 17.7 20H7" });
  return svg("svg", { viewBox: "0 0 24 24", class: `thumb ${way}`, "aria-hidden": "true" }, hand);
}

function correction(turn, send) {
  const text = el("textarea", { rows: "3", "aria-label": "A better answer", required: "" });
  text.value = turn.text;
  const form = el("form", { class: "correction", hidden: "" }, text, el("button", { class: "solid" }, "Send it"));
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    if (await send(text.value)) form.hidden = true;
  });
  return form;
}

function busy(is) {
  $("send").hidden = is;
  $("halt").hidden = !is;
}

function scrollDown() {
  $("turns").scrollTop = $("turns").scrollHeight;
}
