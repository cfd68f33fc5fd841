// A place on a page whose content is asked for: while it comes, when it is there, and when it does not come.

import { fill, h } from "./dom.js";

/**
 * Ask until it is there, and `draw` it into `place`, which keeps what it shows meanwhile.
 *
 * Where asking again may help, it is asked again, and said so; everything else waits for a hand. Ends with `signal`.
 */
export async function load(place, ask, draw, signal) {
  place.setAttribute("aria-busy", "true");
  for (;;) {
    try {
      const found = await ask(signal);
      if (signal.aborted) return;
      place.removeAttribute("aria-busy");
      await draw(found, place);
      return;
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      if (error.again === undefined) console.error(error);
      if (!(await asked(place, error, signal))) return;
    }
  }
}

/** Load it now, and every so many milliseconds while the page is looked at. Returns what loads it at once. */
export function keepLoading(everyMs, place, ask, draw, signal) {
  let latest = null;
  const look = () => {
    // What has failed and asks again by itself ends here; what is only slow is waited for.
    if (place.hasAttribute("aria-busy")) return;
    latest?.abort();
    latest = new AbortController();
    load(place, ask, draw, AbortSignal.any([signal, latest.signal]));
  };
  look();
  const timer = setInterval(() => document.visibilityState === "visible" && look(), everyMs);
  signal.addEventListener("abort", () => clearInterval(timer));
  return look;
}

/** Say that it is being made. */
export function waiting(text) {
  return h("p", { class: "empty" }, text);
}

/** There is nothing, and why that may be. */
export function empty(title, text) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text));
}

/** Something went wrong. */
export function wrong(message, ...rest) {
  return h("div", { class: "notice wrong", role: "alert" }, h("p", {}, message), rest);
}

/** True when it is to be asked again: at once by hand, or by itself where that may help; false when all is over. */
function asked(place, error, signal) {
  return new Promise((resolve) => {
    const again = error.again ? ` Trying again in ${error.afterS} s.` : "";
    const button = h("button", { type: "button", on: { click: () => done(true) } }, "Try again");
    const timer = error.again ? setTimeout(() => done(true), error.afterS * 1000) : null;
    const stop = () => done(false);
    const done = (answer) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      resolve(answer);
    };
    signal.addEventListener("abort", stop);
    place.removeAttribute("aria-busy");
    const text = error.again === undefined ? "This page has a bug; the browser's console tells more." : error.message + again;
    fill(place, error.status === 503 ? h("div", { class: "notice", role: "status" }, h("p", {}, text), button) : wrong(text, button));
  });
}
