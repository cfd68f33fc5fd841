// Work that runs in a process of its own: begun, followed, shown.

import { Failed, get, post } from "./api.js";
import { fill, h } from "./dom.js";
import { moment, seconds } from "./format.js";
import { waiting, wrong } from "./panel.js";

const POLL_MS = 700;

/**
 * Follow the job at `path` in `place`, until `signal`: `nothing()` before there was one, that it is under way, its `result`, or what went wrong.
 *
 * Returns what begins one, with a body.
 */
export function follow(path, place, { nothing, result, busy, signal }) {
  let timer = null;
  const look = async () => {
    try {
      show(await get(path, {}, signal));
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      fill(place, wrong(error.message, h("button", { type: "button", on: { click: look } }, "Try again")));
      if (error.again) later();
    }
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(look, POLL_MS);
  };
  const show = (job) => {
    if (signal.aborted) return;
    busy(job.state === "running");
    if (job.state === "running") {
      progress(place, job);
      later();
    } else if (job.state === "failed") fill(place, wrong(job.problem || "It came to nothing."));
    else if (job.state === "done") fill(place, h("p", { class: "soft small done" }, `Done ${moment(job.ended_s)}, in ${seconds(job.ended_s - job.began_s)}.`), result(job.result));
    else fill(place, nothing());
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  look();
  return async (body) => {
    busy(true);
    fill(place, waiting("Beginning…"));
    try {
      show(await post(path, body, signal));
    } catch (error) {
      if (signal.aborted) return;
      busy(false);
      fill(place, wrong(error instanceof Failed ? error.message : String(error)));
    }
  };
}

/** How far it has come nobody knows: for how long, then. */
function progress(place, job) {
  const said = `Under way for ${seconds(Math.max(0, Math.round(Date.now() / 1000 - job.began_s)))}`;
  const known = place.querySelector(".progress p");
  if (known) known.textContent = said;
  else fill(place, h("div", { class: "progress" }, h("progress", { "aria-label": "Under way" }), h("p", { class: "soft small" }, said)));
}
