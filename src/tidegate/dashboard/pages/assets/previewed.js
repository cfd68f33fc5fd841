// What `tidegate preview` says, for people.

import { h } from "./dom.js";
import { count, moment, plain, seconds, share, usd } from "./format.js";
import { table } from "./table.js";

/** Its result. */
export function previewed(result) {
  const { preview } = result;
  const outcome = (name, one) => [name, count(one.requests), share(one.kept), share(one.served), share(one.away), usd(one.usd_per_1k), seconds(one.ttft_s_p50), seconds(one.ttft_s_p95)];
  return h(
    "div",
    { class: "stack" },
    h("dl", { class: "tiles inner" }, [
      tile("Saves, of a thousand requests", usd(preview.saved_usd_per_1k.figure), between(preview.saved_usd_per_1k, usd)),
      preview.kept_more ? tile("Promises kept", points(preview.kept_more.figure), between(preview.kept_more, points)) : tile("Promises kept", "–", "known of too few requests"),
      tile("Sent away", points(preview.away_more.figure), between(preview.away_more, points)),
    ]),
    h("p", { class: "soft small" }, `On the journal from ${moment(preview.start_s)} to ${moment(preview.end_s)}. With the policy that was in force, the simulation is off by ${points(preview.backtest.kept)} of promises kept and ${percent(preview.backtest.usd)} of dollars.`),
    table(
      ["Policy", ["Requests", "num"], ["Kept", "num"], ["Served", "num"], ["Away", "num"], ["Per thousand", "num"], ["First token p50", "num"], ["p95", "num"]],
      [outcome("As it was", preview.real), outcome("The same, simulated", preview.before), outcome("With this policy", preview.after)],
      "Preview",
    ),
    preview.affected.length
      ? table(
          ["Whom", ["Requests", "num"], ["Go elsewhere", "num"], ["Promises kept", "num"], ["Per thousand", "num"]],
          preview.affected.map((one) => [`${one.kind} ${one.name}`, count(one.requests), share(one.moved), points(one.kept), usd(one.usd_per_1k)]),
          "Who is affected",
        )
      : null,
  );
}

const tile = (name, big, note) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", { class: "big" }, big), h("dd", { class: "note" }, note));
const between = (interval, said) => `from ${said(interval.low)} to ${said(interval.high)}`;
const points = (value) => value === null ? "–" : `${sign(value)}${plain(Math.abs(value) * 100, 2)} points`;
const percent = (value) => `${sign(value)}${plain(Math.abs(value) * 100, 2)}%`;
const sign = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "\u00b1");
