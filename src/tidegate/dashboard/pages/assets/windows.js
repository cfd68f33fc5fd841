// How far back a page looks.

import { h } from "./dom.js";

const WINDOWS = { 15: "15 minutes", 60: "hour", 360: "6 hours", 1440: "24 hours", 10080: "7 days", 43200: "30 days" };

/** A choice of windows; `then` is called with minutes. */
export function windowPick(minutes, then) {
  return h(
    "div",
    { class: "pick" },
    h(
      "label",
      {},
      "The last",
      h(
        "select",
        { on: { change: (event) => then(Number(event.target.value)) } },
        Object.entries(WINDOWS).map(([value, text]) => h("option", { value, selected: Number(value) === minutes }, text)),
      ),
    ),
  );
}
