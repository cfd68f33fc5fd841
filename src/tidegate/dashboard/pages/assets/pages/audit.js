// How far from the best possible decisions are, and who changed what.

import { get } from "../api.js";
import { axis, chart, tooltip } from "../charts.js";
import { fill, h } from "../dom.js";
import { count, moment, share, usd } from "../format.js";
import { follow } from "../job.js";
import { empty, load } from "../panel.js";
import { table } from "../table.js";
import { changesOf } from "./policy.js";

const NARROW_PX = 520;
const GAPS = {
  staleness: "reports of load that are old",
  prediction: "lengths that nobody knows",
  myopia: "not knowing who comes next",
  slack: "what nobody was seen to reach",
};

// As `tidegate audit` says it.
const HANDED = "Prompts may be computed elsewhere here and handed over. Neither the bound nor the schedule knows of that: whoever does it may exceed the bound.";

/** Show both. */
export function show(main, parameters, signal) {
  const place = h("div", {});
  const button = h("button", { type: "button", class: "main" }, "Audit now");
  const changes = h("div", {});
  const begin = follow("audit", place, {
    signal,
    busy: (is) => (button.disabled = is),
    nothing: () => empty("No audit was made yet", "One plays the busiest part of the journal with other rules and settings, and against a bound that nobody exceeds. It takes a minute or more."),
    result: (result) => audited(result, signal),
  });
  button.addEventListener("click", () => begin({}));
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Audit"), h("p", { class: "soft" }, "How far decisions were from the best possible ones, why, and what to change. Below it, who changed what.")), button),
    h("div", { class: "stack" }, h("section", { class: "card" }, h("header", {}, h("h2", {}, "Decisions, against the best possible")), place), h("section", { class: "card" }, h("header", {}, h("h2", {}, "Changes by operators")), changes)),
  );
  load(changes, (ended) => get("changes", { limit: 100 }, ended), (found) => {
    if (!found.changes.length) fill(changes, empty("Nobody has changed anything", "What operators put in force, drain or pin stands here, with who did it."));
    else fill(changes, h("ol", { class: "changes" }, found.changes.map(changeItem)));
  }, signal);
}

function changeItem(one) {
  return h(
    "li",
    {},
    h("p", {}, h("b", {}, one.what), one.applied === false ? [" ", h("span", { class: "tag bad" }, "refused")] : null),
    h("p", { class: "soft small" }, `${moment(one.at_s)}, ${one.who}`),
    changesOf(one.changes, one.applied),
  );
}

function audited(found, signal) {
  const value = (one) => usd(one.value_per_1k);
  const bound = found.bound_per_1k;
  const lost = bound - found.policy.value_per_1k;
  const change = found.changes.find((one) => one.name === found.recommended);
  const row = (name, one) => [name, value(one), share(one.kept), usd(one.usd_per_1k), usd(one.better.figure), usd(one.better.low), usd(one.better.high)];
  const drawing = chart({ label: "Worth of a thousand requests, by policy; the table below says the same.", option: (colour) => bars(found, colour, drawing.canvas.clientWidth < NARROW_PX), signal, key: h("ul", { class: "key" }, h("li", {}, h("i", { class: "line local" }), "what nobody exceeds")), tall: true });
  const rows = [row("As it was", found.policy), ...found.rules.map((one) => row(one.name, one)), row(`Best that was reached: ${found.reached.name}`, found.reached), ...found.changes.map((one) => row(one.name, one))];
  drawing.tell(["Policy", ["Value", "num"], ["Kept", "num"], ["Paid", "num"], ["Better by", "num"], ["from", "num"], ["to", "num"]], rows, "Of a thousand requests each");
  // It is put onto the page with what stands around it, and only then has a width.
  queueMicrotask(() => drawing.draw());
  return h(
    "div",
    { class: "stack" },
    h(
      "dl",
      { class: "tiles inner" },
      tile("Value of a thousand requests", usd(found.policy.value_per_1k), `of at most ${usd(bound)}`),
      tile("Missing to the bound", share(bound ? lost / Math.abs(bound) : null), usd(lost)),
      tile("To change", change ? change.name : "nothing", change ? `${usd(change.better.figure)} better` : "No other setting is better beyond chance."),
    ),
    h("p", { class: "soft small" }, `The busiest ${count(found.requests)} requests, ${moment(found.start_s)} to ${moment(found.end_s)}.`),
    found.handed ? h("p", { class: "soft small" }, HANDED) : null,
    h("div", {}, h("h3", {}, "Why that is missing"), table(["Because of", ["Of a thousand requests", "num"]], Object.entries(found.gap).map(([name, gap]) => [GAPS[name] ?? name, usd(gap)]), "Why that is missing")),
    h("div", {}, h("h3", {}, "Other rules, on the same requests"), drawing.element),
  );
}

const tile = (name, big, note) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", { class: "big" }, big), h("dd", { class: "note" }, note));

function bars(found, colour, narrow) {
  const all = [{ ...found.policy, name: "as it was" }, ...found.rules].sort((one, other) => one.value_per_1k - other.value_per_1k);
  // Values may be below nothing, as of whoever pays for promises that it does not keep, and above the bound where prompts are handed over.
  const ends = [0, found.bound_per_1k, ...all.map((one) => one.value_per_1k)];
  return {
    grid: { left: narrow ? 122 : 206, right: 52, top: 8, bottom: 4 },
    xAxis: axis({ type: "value", min: Math.min(...ends) * 1.02, max: Math.max(...ends) * 1.02 || null, axisLabel: { show: false }, splitLine: { show: false } }),
    yAxis: [
      axis({ type: "category", data: all.map((one) => one.name), axisLabel: { width: narrow ? 114 : 196, overflow: "truncate", color: colour("ink") } }),
      axis({ type: "category", position: "right", data: all.map((one) => usd(one.value_per_1k)), axisLabel: { color: colour("ink") } }),
    ],
    tooltip: tooltip({ formatter: (at) => `${all[at.dataIndex].name}\n${usd(all[at.dataIndex].value_per_1k)} of a thousand requests\n${share(all[at.dataIndex].kept)} kept, ${usd(all[at.dataIndex].usd_per_1k)} paid` }),
    series: [
      {
        type: "bar", barMaxWidth: 18, barCategoryGap: "32%",
        data: all.map((one) => ({ value: one.value_per_1k, itemStyle: { color: one.name === "as it was" ? colour("ink") : colour("edge"), borderRadius: 3 } })),
        markLine: { silent: true, symbol: "none", lineStyle: { color: colour("local"), type: "dashed", width: 1.5 }, label: { show: false }, data: [{ xAxis: found.bound_per_1k }] },
      },
    ],
  };
}
