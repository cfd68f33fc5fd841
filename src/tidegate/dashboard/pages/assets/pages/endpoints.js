// Each endpoint: how it is, how quick, and whether what is predicted of it comes true.

import { get } from "../api.js";
import { axis, chart, tooltip } from "../charts.js";
import { arrange, fill, h } from "../dom.js";
import { count, moment, plain, seconds, share, short, usd, usdSet } from "../format.js";
import { empty, keepLoading, waiting } from "../panel.js";
import { reading } from "../reading.js";
import { side } from "../sides.js";
import { renew, table } from "../table.js";
import { windowPick } from "../windows.js";

// What the router has learned is replayed for it up to the journal's end.
const EVERY_MS = 15_000;

/** Show them. */
export function show(main, parameters, signal) {
  const minutes = Number(parameters.minutes) || 1440;
  const place = h("div", {}, h("section", { class: "card" }, waiting("Looking…")));
  const list = h("div", { class: "two" });
  const read = h("p", { class: "soft", role: "status" });
  const asOf = h("p", { class: "soft" });
  const cards = new Map();
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Endpoints"), h("p", { class: "soft" }, "What each is like, and whether what was predicted of it came true."), asOf, read), windowPick(minutes, (chosen) => location.assign(`#/endpoints?minutes=${chosen}`))),
    h("div", { class: "stack" }, place, list),
  );
  const draw = (found) => {
    fill(place, found.endpoints.length ? null : h("section", { class: "card" }, empty("No endpoints are known yet", "They stand at the beginning of a journal's segment.")));
    const state = found.endpoints.find((one) => one.state !== null)?.state;
    asOf.textContent = state ? `As of ${moment(state.at_s)}.` : "";
    const shown = found.endpoints.map((one) => {
      if (!cards.has(one.name)) cards.set(one.name, endpointCard(one.name, signal));
      return cards.get(one.name);
    });
    arrange(list, shown.map((card) => card.element));
    shown.forEach((card, index) => card.draw(found.endpoints[index], found.quantile));
  };
  const look = keepLoading(EVERY_MS, place, (ended) => get("endpoints", { minutes }, ended), draw, signal);
  reading(read, look, signal);
}

/** One of them, which is drawn anew whenever more is known of it: what is open, scrolled or has the focus in it stays so. */
function endpointCard(name, signal) {
  const title = h("h2", {});
  const tagged = h("div", { class: "row tags" });
  const list = h("dl", { class: "facts" });
  const drawing = predictions(name, signal);
  const predicted = h("div", {}, h("h3", { class: "after" }, "First token: predicted and measured"), drawing.element);
  const nothing = h("p", { class: "soft small after" });
  const times = h("div", { class: "after" });
  const element = h("section", { class: "card" }, h("header", {}, title, tagged), list, predicted, nothing, times);
  const draw = (one, quantile) => {
    fill(title, side(name, one.tier));
    fill(tagged, tags(one, quantile));
    fill(list, facts(one, quantile).map(([fact, value, note]) => h("div", {}, h("dt", {}, fact), h("dd", {}, value, note ? h("div", { class: "soft small" }, note) : null))));
    predicted.hidden = one.prediction === null;
    nothing.hidden = one.prediction !== null;
    nothing.textContent = one.totals.requests ? "Of nothing that it served in this window a first token was predicted and seen, so that no prediction can be judged." : "It served nothing in this window, so that no prediction can be judged.";
    if (one.prediction) drawing.draw(one);
    drawTimes(times, one);
  };
  return { element, draw };
}

/** How it is; without a `quantile` nobody can tell, nor whether it is configured. */
function tags(one, quantile) {
  const state = one.state;
  const is = (said, kind = "") => h("span", { class: `tag ${kind}` }, said);
  if (state === null) return is(quantile === null ? "state not known" : "no longer configured");
  return [
    state.up ? is("up") : is("down", "bad"),
    state.breaker === "closed" ? null : is(`breaker ${state.breaker.replace("_", " ")}`, "bad"),
    state.drained ? is("drained") : null,
    state.pinned ? is("pinned") : null,
    state.drifted ? is("drifted", "bad") : null,
  ];
}

function facts(one, quantile) {
  const { prediction, totals } = one;
  return [
    ["Served", count(totals.requests), `${short(totals.prompt_tokens + totals.output_tokens)} tokens`],
    ["Under way", one.state === null ? "–" : `${count(one.state.in_flight)} of ${count(one.concurrency)}`, one.context_tokens === null ? null : `window ${short(one.context_tokens)}`],
    ["Promises kept", share(totals.attainment), totals.judged ? `${count(totals.kept)} of ${count(totals.judged)}` : totals.requests ? "of none is it known" : "none made"],
    ["Price", ...price(one)],
    ["Prediction is off by", prediction ? share(prediction.error) : "–", prediction ? `in the median of ${count(prediction.attempts)}` : null],
    [quantile === null ? "Within bound" : `Within ${share(quantile)} bound`, prediction ? share(prediction.coverage) : "–", prediction ? verdict(prediction.coverage, quantile) : null],
  ];
}

function price(one) {
  if (one.owned === null) return ["–", null];
  if (one.owned && !one.usd_per_1m_input_tokens && !one.usd_per_1m_output_tokens) return [one.running_usd_per_hour ? `${usd(one.running_usd_per_hour)} an hour` : "free", "our own"];
  return [`${usdSet(one.usd_per_1m_input_tokens)} in, ${usdSet(one.usd_per_1m_output_tokens)} out`, one.owned ? "our own" : "per million tokens"];
}

/** What is to be said of so many within a bound that so many were promised within; nothing where that is not known. */
function verdict(coverage, quantile) {
  if (quantile === null) return null;
  return coverage < quantile - 0.05 ? "too sure of itself" : coverage > quantile + 0.08 ? "on the safe side" : "as it should be";
}

function drawTimes(place, one) {
  const rows = [["First token", one.ttft_s], ["Per token", one.tpot_s], ["All in", one.e2e_s]].filter(([, found]) => found);
  place.hidden = !rows.length;
  renew(place, table(["Times", ["p10", "num"], ["p50", "num"], ["p90", "num"], ["p99", "num"]], rows.map(([name, found]) => [name, seconds(found.p10), seconds(found.p50), seconds(found.p90), seconds(found.p99)]), `Times of ${one.name}`));
}

/** A chart of an endpoint's predictions; `draw` draws what is known of it by now. */
function predictions(name, signal) {
  let one = null;
  const drawing = chart({
    label: `Quantiles of times to the first token at ${name}, as they were predicted and as they came; the table below says the same.`,
    option: (colour) => predictionOption(one, colour),
    signal,
  });
  const draw = (found) => {
    one = found;
    drawing.tell([["Quantile", "num"], ["Predicted", "num"], ["Measured", "num"]], one.prediction.quantiles.map((at) => [plain(at.quantile, 2), seconds(at.predicted_s), seconds(at.actual_s)]), `Predictions at ${name}`);
    drawing.draw();
  };
  return { element: drawing.element, draw };
}

function predictionOption(one, colour) {
  const { quantiles, pairs } = one.prediction;
  const all = [...quantiles.flatMap((at) => [at.predicted_s, at.actual_s]), ...pairs.flat()].filter((value) => value > 0);
  const low = Math.min(...all) / 1.15;
  const high = Math.max(...all) * 1.15;
  const token = one.tier === "local" ? "local" : "remote";
  const axes = (name, more) => axis({ type: "log", logBase: 2, min: low, max: high, name, nameLocation: "middle", splitLine: { show: false }, minorTick: { show: false }, axisLine: { show: true, lineStyle: { color: colour("rule") } }, axisLabel: { formatter: (value) => (value <= low * 1.001 || value >= high * 0.999 ? "" : seconds(value)) }, ...more });
  return {
    grid: { left: 46, right: 12, top: 10, bottom: 40 },
    xAxis: axes("predicted", { nameGap: 26 }),
    yAxis: axes("measured", { nameGap: 34, nameRotate: 90 }),
    tooltip: tooltip({ formatter: (at) => (at.seriesName === "quantiles" ? `quantile ${plain(quantiles[at.dataIndex].quantile, 2)}\n` : "") + `predicted ${seconds(at.value[0])}\nmeasured ${seconds(at.value[1])}` }),
    series: [
      { type: "line", name: "as predicted", data: [[low, low], [high, high]], symbol: "none", silent: true, lineStyle: { color: colour("edge"), width: 1, type: "dashed" }, tooltip: { show: false } },
      { type: "scatter", name: "requests", data: pairs.filter(([one, other]) => one > 0 && other > 0), symbolSize: 5, itemStyle: { color: colour(token), opacity: 0.22 } },
      { type: "line", name: "quantiles", data: quantiles.filter((at) => at.predicted_s > 0 && at.actual_s > 0).map((at) => [at.predicted_s, at.actual_s]), symbolSize: 6, symbol: "circle", lineStyle: { color: colour(token), width: 2 }, itemStyle: { color: colour(token) } },
    ],
  };
}
