// What the gateway tells by itself, once a second: one stream for the page, which ends while nobody looks.

import { get } from "./api.js";

const AGAIN_MS = 3000;
// Something is told every 15 s. A connection that is dead may be silent for ever, and a browser does not notice.
const SILENT_MS = 40_000;
const NEWEST = 20;
const listeners = new Set();
const states = new Set();
const HIDDEN = () => document.visibilityState === "hidden";
let source = null;
let again = 0;
let silence = 0;
let asking = false;
let state = "off";
let minutes = 60;
let mode = "gateway";

/** Call this with every tick, which tells of the last so many minutes, until `signal`. */
export function onTick(lastMinutes, listener, signal) {
  if (lastMinutes !== minutes) close();
  minutes = lastMinutes;
  listeners.add(listener);
  signal.addEventListener("abort", () => {
    listeners.delete(listener);
    settle();
  });
  settle();
}

/** What stands behind the stream: a `gateway`, or a `journal` alone. */
export function follows(kind) {
  if (kind === mode) return;
  mode = kind;
  told();
}

/** Call this with `off`, `live`, `asked` (there is no stream, so it is asked for every few seconds) or `gone`, and what stands behind it, whenever that changes. */
export function onState(listener) {
  states.add(listener);
  listener(state, mode);
}

document.addEventListener("visibilitychange", settle);

function settle() {
  const wanted = listeners.size > 0 && !HIDDEN();
  if (wanted && source === null) open();
  if (!wanted) close();
}

function close() {
  clearTimeout(silence);
  source?.close();
  source = null;
  become("off");
}

function open() {
  clearTimeout(again);
  source = new EventSource(`/api/dashboard/live?minutes=${minutes}`);
  const mine = source;
  listen();
  mine.addEventListener("open", heard);
  mine.addEventListener("still", heard);
  mine.addEventListener("tick", (event) => {
    heard();
    const told = JSON.parse(event.data);
    listeners.forEach((listener) => listener(told));
  });
  mine.addEventListener("error", () => {
    if (mine !== source) return;
    // A browser gives up where it was answered, and with an error: too many streams, or none yet.
    if (mine.readyState === EventSource.CLOSED) {
      clearTimeout(silence);
      source = null;
      ask();
    } else become("gone");
  });
}

function heard() {
  listen();
  become("live");
}

/** Wait for a word; where none comes, the stream is gone, and another one is opened. */
function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    source.close();
    become("gone");
    open();
  }, SILENT_MS);
}

/** Ask for what a stream would have told, and then for a stream again; once at a time, however often streams are refused. A session that is over leads to the door by that. */
async function ask() {
  if (asking) return;
  asking = true;
  const lastMinutes = minutes;
  const window = { minutes: lastMinutes };
  try {
    const [summary, flow, page] = await Promise.all([get("summary", window), get("flow", window), get("requests", { limit: NEWEST })]);
    if (source !== null || lastMinutes !== minutes) return;
    if (listeners.size > 0) become("asked");
    listeners.forEach((listener) => listener({ summary, flow, newest: page.rows }));
  } catch {
    if (source === null && listeners.size > 0) become("gone");
  } finally {
    asking = false;
    clearTimeout(again);
    again = setTimeout(settle, AGAIN_MS);
  }
}

function become(next) {
  if (next === state) return;
  state = next;
  told();
}

function told() {
  states.forEach((listener) => listener(state, mode));
}
