// Work that runs in a process of its own: begun, followed, shown.

import { Failed, get, post } from "./api.js";
import { fill, h } from "./dom.js";
import { moment, seconds } from "./format.js";
import { waiting, wrong } from "./panel.js";

const POLL_MS = 700;

/**
 * Follow the job at `path` in `place`, until `signal`: `nothing()` before there was one, progress, its `result`, or what went wrong.
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

function progress(place, job) {
  const known = place.querySelector("progress");
  const said = `${Math.round((job.share ?? 0) * 100)}%, begun ${moment(job.began_s)}`;
  if (known) {
    known.value = job.share ?? 0;
    known.nextElementSibling.textContent = said;
    return;
  }
  fill(place, h("div", { class: "progress" }, h("progress", { max: 1, value: job.share ?? 0, "aria-label": "How far it has come" }), h("p", { class: "soft small" }, said)));
}
