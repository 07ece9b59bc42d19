// Requests to the server with the API key, and a reader of server-sent events. EventSource is not used, because it
// cannot send a key.

const KEY = "ratchet-api-key";
const SILENCE_MS = 25_000; // the server sends at least a comment every 10 s
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 5_000;

/** Thrown when the server did not accept the stored key, or needs one. */
export class KeyWanted extends Error {}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** `fetch` with the key. Throws KeyWanted for 401, and an Error with the server's message for other error statuses. */
export async function request(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const reply = await fetch(path, { ...options, headers });
  if (reply.status === 401) throw new KeyWanted("an API key is required");
  if (!reply.ok) throw new Error(await refusal(reply));
  return reply;
}

export function post(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** Yields the server-sent events of a reply as { event, id, data }. `heard` is called for every chunk, also comments. */
export async function* eventsOf(reply, heard = () => {}) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event.data !== "") yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Follow a stream of events forever. The server ends it regularly and the page reconnects. `onLost` is called when that
 * fails, or when the stream is silent for too long. Throws KeyWanted when the server wants a key.
 */
export async function follow(path, { onEvent, onLost }) {
  let retryMs = FIRST_RETRY_MS;
  for (;;) {
    try {
      await once(path, (event) => {
        retryMs = FIRST_RETRY_MS;
        onEvent(event);
      });
    } catch (error) {
      if (error instanceof KeyWanted) throw error;
      onLost();
      await new Promise((resolve) => setTimeout(resolve, retryMs));
      retryMs = Math.min(2 * retryMs, LONGEST_RETRY_MS);
    }
  }
}

async function once(path, onEvent) {
  const silent = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), SILENCE_MS);
  };
  heard();
  let events = 0;
  try {
    const reply = await request(path, { signal: silent.signal, cache: "no-store" });
    for await (const event of eventsOf(reply, heard)) {
      events += 1;
      onEvent(event);
    }
  } finally {
    clearTimeout(timer);
  }
  if (events === 0) throw new Error("the stream ended without an event");
}

function parsed(block) {
  const event = { event: "message", id: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") event.data += (event.data && "\n") + value;
    else if (name in event) event[name] = value;
  }
  return event;
}

async function refusal(reply) {
  const text = await reply.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `${reply.status} ${reply.statusText}`.trim();
  }
}
