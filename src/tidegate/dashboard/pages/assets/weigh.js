// What a candidate is worth, as one bar: the promise, and what is taken away from it.

import { s } from "./dom.js";

const WIDE = 1000;

/** On one scale for `all`, so that bars compare. It says nothing that does not stand beside it. */
export function weighed(candidate, all) {
  const values = all.filter((one) => !one.excluded && one.value_usd !== undefined).map((one) => [one.value_usd, gain(one)]);
  const low = Math.min(0, ...values.flat());
  const high = Math.max(1e-12, ...values.flat());
  const x = (value) => (WIDE * (value - low)) / (high - low);
  const value = candidate.value_usd;
  const top = gain(candidate);
  const kept = [Math.min(0, value), Math.max(0, value)];
  const rect = (from, to, kind) => s("rect", { x: x(from), y: 4, width: Math.max(0, x(to) - x(from)), height: 18, rx: 2, class: kind });
  return s(
    "svg",
    { class: "weigh", viewBox: `0 0 ${WIDE} 26`, preserveAspectRatio: "none", "aria-hidden": "true" },
    rect(Math.max(0, value), top, "less"),
    value >= 0 ? rect(kept[0], kept[1], "promise") : rect(kept[0], 0, "less"),
    s("line", { x1: x(0), x2: x(0), y1: 0, y2: 26, class: "base", "vector-effect": "non-scaling-stroke" }),
  );
}

const gain = (one) => Math.max(0, ...Object.values(one.contributions_usd ?? {}), one.value_usd);
