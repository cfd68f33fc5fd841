// Each endpoint: how it is, how quick, and whether what is predicted of it comes true.

import { get } from "../api.js";
import { axis, chart, tooltip } from "../charts.js";
import { fill, h } from "../dom.js";
import { count, plain, seconds, share, short, usd } from "../format.js";
import { empty, load, waiting } from "../panel.js";
import { reading } from "../reading.js";
import { side } from "../sides.js";
import { table } from "../table.js";
import { windowPick } from "../windows.js";

/** Show them. */
export function show(main, parameters, signal) {
  const minutes = Number(parameters.minutes) || 1440;
  const list = h("div", { class: "two" }, h("section", { class: "card" }, waiting("Looking…")));
  const read = h("p", { class: "soft", role: "status" });
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Endpoints"), h("p", { class: "soft" }, "What each is like, and whether what was predicted of it came true."), read), windowPick(minutes, (chosen) => location.assign(`#/endpoints?minutes=${chosen}`))),
    list,
  );
  const look = () => load(list, (ended) => get("endpoints", { minutes }, ended), (found) => {
    if (!found.endpoints.length) {
      fill(list, h("section", { class: "card" }, empty("No endpoints are known yet", "They stand at the beginning of a journal's segment.")));
      return;
    }
    const cards = found.endpoints.map((one) => endpointCard(one, found.quantile, signal));
    fill(list, cards.map((card) => card.element));
    cards.forEach((card) => card.draw());
  }, signal);
  look();
  reading(read, look, signal);
}

function endpointCard(one, quantile, signal) {
  const drawing = one.prediction ? predictions(one, signal) : null;
  const element = h(
    "section",
    { class: "card" },
    h("header", {}, h("h2", {}, side(one.name, one.tier)), h("div", { class: "row tags" }, tags(one))),
    h("dl", { class: "facts" }, facts(one, quantile).map(([name, value, note]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, note ? h("div", { class: "soft small" }, note) : null)))),
    drawing
      ? [h("h3", { class: "after" }, "First token: predicted and measured"), drawing.element]
      : h("p", { class: "soft small after" }, one.totals.requests ? "Of nothing that it served in this window a first token was predicted and seen, so that no prediction can be judged." : "It served nothing in this window, so that no prediction can be judged."),
    times(one),
  );
  return { element, draw: () => drawing?.draw() };
}

function tags(one) {
  const state = one.state;
  if (state === null) return h("span", { class: "tag" }, "no longer configured");
  const is = (said, kind = "") => h("span", { class: `tag ${kind}` }, said);
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
  const price = one.owned && !one.usd_per_1m_input_tokens && !one.usd_per_1m_output_tokens
    ? (one.running_usd_per_hour ? `${usd(one.running_usd_per_hour)} an hour` : "free")
    : `${usd(one.usd_per_1m_input_tokens)} in, ${usd(one.usd_per_1m_output_tokens)} out`;
  return [
    ["Served", count(totals.requests), `${short(totals.prompt_tokens + totals.output_tokens)} tokens`],
    ["Under way", one.state === null ? "–" : `${count(one.state.in_flight)} of ${count(one.concurrency)}`, `window ${short(one.context_tokens)}`],
    ["Promises kept", share(totals.attainment), totals.judged ? `${count(totals.kept)} of ${count(totals.judged)}` : totals.requests ? "of none is it known" : "none made"],
    ["Price", price, one.owned ? "our own" : "per million tokens"],
    ["Prediction is off by", prediction ? share(prediction.error) : "–", prediction ? `in the median of ${count(prediction.attempts)}` : null],
    [`Within ${share(quantile)} bound`, prediction ? share(prediction.coverage) : "–", prediction ? (prediction.coverage < quantile - 0.05 ? "too sure of itself" : prediction.coverage > quantile + 0.08 ? "on the safe side" : "as it should be") : null],
  ];
}

function times(one) {
  const rows = [["First token", one.ttft_s], ["Per token", one.tpot_s], ["All in", one.e2e_s]].filter(([, found]) => found);
  if (!rows.length) return null;
  return h("div", { class: "after" }, table(["Times", ["p10", "num"], ["p50", "num"], ["p90", "num"], ["p99", "num"]], rows.map(([name, found]) => [name, seconds(found.p10), seconds(found.p50), seconds(found.p90), seconds(found.p99)]), `Times of ${one.name}`));
}

function predictions(one, signal) {
  const { quantiles, pairs } = one.prediction;
  const all = [...quantiles.flatMap((at) => [at.predicted_s, at.actual_s]), ...pairs.flat()].filter((value) => value > 0);
  const low = Math.min(...all) / 1.15;
  const high = Math.max(...all) * 1.15;
  const token = one.tier === "local" ? "local" : "remote";
  const drawing = chart({
    label: `Quantiles of times to the first token at ${one.name}, as they were predicted and as they came; the table below says the same.`,
    signal,
    option: (colour) => {
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
    },
  });
  drawing.tell([["Quantile", "num"], ["Predicted", "num"], ["Measured", "num"]], quantiles.map((at) => [plain(at.quantile, 2), seconds(at.predicted_s), seconds(at.actual_s)]), `Predictions at ${one.name}`);
  return drawing;
}
