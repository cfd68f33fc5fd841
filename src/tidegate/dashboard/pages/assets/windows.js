// How far back a page looks.

import { h } from "./dom.js";
import { many } from "./format.js";

const WINDOWS = { 15: "15 minutes", 60: "hour", 360: "6 hours", 1440: "24 hours", 10080: "7 days", 43200: "30 days" };
// Whether the page is another one because of a choice that was made here.
let chosen = false;

/** A choice of windows, also of one that is asked for by address alone; `then` is called with minutes. */
export function windowPick(minutes, then) {
  const change = (event) => {
    chosen = true;
    then(Number(event.target.value));
  };
  const windows = { [minutes]: minutes % 60 ? many(minutes, "minute") : many(minutes / 60, "hour"), ...WINDOWS };
  const select = h("select", { on: { change } }, Object.entries(windows).map(([value, text]) => h("option", { value, selected: Number(value) === minutes }, text)));
  // The page's title has the focus as soon as it is there; who has chosen here may choose again.
  if (chosen) queueMicrotask(() => select.focus({ preventScroll: true }));
  chosen = false;
  return h("div", { class: "pick" }, h("label", {}, "The last", select));
}
