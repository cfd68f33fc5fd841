// Work that runs in a process of its own: begun, followed, shown.

import { Failed, get, post } from "./api.js";
import { fill, h } from "./dom.js";
import { moment, seconds } from "./format.js";
import { waiting, wrong } from "./panel.js";

const POLL_MS = 700;

/**
 * Follow the job at `path` in `place`, until `signal`: `nothing()` before there was one, that it is under way, its `result`, or what went wrong. `seen` is told what each look finds.
 *
 * Returns what begins one, with a body, and gives it as it begins, or null where it does not.
 */
export function follow(path, place, { nothing, result, busy, seen = () => null, signal }) {
  let timer = null;
  const look = async (otherwise = nothing) => {
    try {
      show(await get(path, {}, signal), otherwise);
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      // What is said already stays: it is read out once, and whoever is at its button is left there.
      if (place.querySelector("[role=alert] p")?.textContent !== error.message) fill(place, wrong(error.message, h("button", { type: "button", on: { click: () => look() } }, "Try again")));
      if (error.again) later(error.afterS * 1000);
    }
  };
  const later = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(look, ms);
  };
  const show = (job, otherwise = nothing) => {
    if (signal.aborted) return;
    seen(job);
    busy(job.state === "running");
    if (job.state === "running") {
      progress(place, job);
      later(POLL_MS);
    } else if (job.state === "failed") fill(place, wrong(job.problem || "It came to nothing."));
    else if (job.state === "done") fill(place, h("p", { class: "soft small done" }, `Done ${moment(job.ended_s)}, in ${seconds(job.ended_s - job.began_s)}.`), result(job.result));
    else fill(place, otherwise());
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  look();
  return async (body) => {
    clearTimeout(timer);
    busy(true);
    fill(place, waiting("Beginning…"));
    try {
      const job = await post(path, body, signal);
      show(job);
      return job;
    } catch (error) {
      if (signal.aborted) return null;
      busy(false);
      const why = () => wrong(error instanceof Failed ? error.message : String(error));
      fill(place, why());
      // Somebody else's is under way, unless there is another reason: then that is shown to the end.
      if (error.status === 409) look(why);
      return null;
    }
  };
}

/** How far it has come nobody knows: for how long, then, by the clock that it began by. */
function progress(place, job) {
  const said = `Under way for ${seconds(Math.max(0, Math.round(job.at_s - job.began_s)))}`;
  const known = place.querySelector(".progress p");
  if (known) known.textContent = said;
  else fill(place, h("div", { class: "progress" }, h("progress", { "aria-label": "Under way" }), h("p", { class: "soft small" }, said)));
}
