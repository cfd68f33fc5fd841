// How far promises are kept, as a colour: six steps, of which the words stand in the key.

import { h } from "./dom.js";

const STEPS = [
  [0.99, "kept-5", "k5", "99% and more"],
  [0.95, "kept-4", "k4", "95 to 99%"],
  [0.9, "kept-3", "k3", "90 to 95%"],
  [0.75, "kept-2", "k2", "75 to 90%"],
  [0, "kept-1", "k1", "less"],
];
const NOBODY = ["kept-0", "k0", "none known"];

/** The token of this attainment, null where nothing was promised, or of nothing is it known. */
export function keptToken(attainment) {
  return attainment === null ? NOBODY[0] : STEPS.find(([least]) => attainment >= least)[1];
}

/** What the colours mean. */
export function keptKey() {
  return h("ul", { class: "key" }, h("li", {}, "Promises kept:"), STEPS.map(([, , kind, text]) => h("li", {}, h("i", { class: kind }), text)), h("li", {}, h("i", { class: NOBODY[1] }), NOBODY[2]));
}
