// Where work goes, what that costs and saves, and whether promises hold.

import { get } from "../api.js";
import { axis, chart, tooltip } from "../charts.js";
import { fill, h } from "../dom.js";
import { between, count, many, moment, plain, share, short, tick, usd, usdRound } from "../format.js";
import { keptKey, keptToken } from "../kept.js";
import { follows, onTick } from "../live.js";
import { empty, keepLoading, load } from "../panel.js";
import { readSoFar } from "../reading.js";
import { klass, outcome, requestsTable } from "../rows.js";
import { side } from "../sides.js";
import { renew, table } from "../table.js";
import { windowPick } from "../windows.js";

const NEWEST = 8;
const STEPS = 60;
// A point of the series is a minute at least, so it need not be asked for with every tick.
const SERIES_MS = 15_000;

/** Show it. */
export function show(main, parameters, signal) {
  const minutes = Number(parameters.minutes) || 60;
  const since = h("p", { class: "soft" }, "\u00a0");
  const tiles = tilesOf();
  const flow = flowCard(signal);
  const classes = h("div", { class: "holds-table" });
  const money = moneyCard(signal);
  const prices = pricesCard(signal);
  const newest = h("div", { class: "holds-list" });
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Overview"), since), windowPick(minutes, (chosen) => location.assign(`#/overview?minutes=${chosen}`))),
    h(
      "div",
      { class: "stack" },
      tiles.element,
      flow.element,
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Promises, by class")), classes),
      h("div", { class: "two" }, money.element, prices.element),
      h("section", { class: "card" }, h("header", {}, h("h2", {}, "Newest requests"), h("a", { class: "small", href: "#/requests" }, "All requests")), newest),
    ),
  );

  const rows = [];
  let nowS = 0;
  const summed = (summary) => {
    nowS = summary.now_s;
    follows(summary.mode);
    since.textContent = told(summary);
    tiles.draw(summary);
    drawClasses(classes, summary);
  };
  const listed = (found) => {
    const known = new Set(found.map((row) => row.id));
    // What is told last is what was over last; here they stand as they came.
    const all = [...found, ...rows.filter((row) => !known.has(row.id))].sort((one, other) => other.at_s - one.at_s);
    rows.splice(0, rows.length, ...all.slice(0, NEWEST));
    if (!rows.length) fill(newest, empty("No requests yet", "They stand here as soon as the first one comes."));
    else renew(newest, requestsTable(rows, nowS, "Newest requests").element);
  };

  load(tiles.place, (ended) => get("summary", { minutes }, ended), (summary) => {
    summed(summary);
    load(newest, (ended) => get("requests", { limit: NEWEST }, ended), (page) => listed(page.rows), signal);
    onTick(minutes, (tick) => {
      summed(tick.summary);
      flow.draw(tick.flow);
      if (tick.newest.length) listed(tick.newest);
    }, signal);
  }, signal);
  load(flow.place, (ended) => get("flow", { minutes }, ended), flow.draw, signal);
  keepLoading(SERIES_MS, money.place, (ended) => get("series", { minutes, step: Math.max(1, Math.ceil(minutes / STEPS)) }, ended), (found) => {
    money.draw(found);
    prices.draw(found);
  }, signal);
}

function told(summary) {
  if (!summary.journal) return "There is no journal, so that nothing is known of the past.";
  if (summary.last_s === null) return "Nothing has been asked for yet.";
  const until = summary.mode === "gateway" ? "" : ` This is a journal, whose last line is of ${moment(summary.last_s)}.`;
  return `${many(summary.window.requests, "request")} in this window, ${count(summary.under_way)} under way.${until} ${readSoFar(summary.indexed_share)}`;
}

// --- figures ---------------------------------------------------------------------------------------------------------

function tilesOf() {
  const tile = (name) => {
    const big = h("dd", { class: "big" }, "–");
    const note = h("dd", { class: "note" }, "\u00a0");
    return { element: h("div", { class: "card tile" }, h("dt", {}, name), big, note), big, note };
  };
  const local = tile("Kept local today (UTC)");
  const spent = tile("Spent today (UTC)");
  const saved = tile("Saved today (UTC)");
  const kept = tile("Promises kept");
  const place = h("div", {});
  const element = h("div", { class: "stack" }, place, h("dl", { class: "tiles" }, [local, spent, saved, kept].map((one) => one.element)));
  local.big.classList.add("local-ink");
  spent.big.classList.add("remote-ink");
  const draw = (summary) => {
    fill(place);
    if (!summary.journal) {
      for (const one of [local, spent, saved, kept]) set(one, "–", "\u00a0");
      return;
    }
    const { today, window } = summary;
    const served = today.local_requests + today.remote_requests;
    set(local, today.offload === null ? "–" : share(1 - today.offload), `${count(today.local_requests)} of ${many(served, "request")}`);
    // What counts against it is its own sum: the index has only what is over. The day that was told last may be over, too.
    const budget = summary.budgets.find((one) => one.name === "day" && summary.now_s < one.ends_s);
    if (budget) set(spent, usd(budget.spent_usd), `of ${usd(budget.usd)} for the day`);
    else set(spent, usd(today.spent_usd), `for ${many(today.remote_requests, "request")}`);
    set(saved, usd(today.saved_usd), `all remote: ${usd(today.remote_usd)}`);
    set(kept, share(window.attainment), window.judged ? `${count(window.kept)} of ${count(window.judged)} in this window` : window.requests ? "of none in this window is it known" : "none was made in this window");
    kept.big.classList.toggle("bad", window.attainment !== null && window.attainment < 0.9);
  };
  return { element, place, draw };
}

function set(tile, big, note) {
  tile.big.textContent = big;
  tile.note.textContent = note;
}

function drawClasses(place, summary) {
  if (!summary.classes.length) {
    fill(place, empty("No request was over in this window", "Look further back."));
    return;
  }
  const rows = summary.classes.map((one) => [
    klass(one.class),
    count(one.requests),
    h("span", { class: one.attainment !== null && one.attainment < 0.9 ? "bad" : null }, share(one.attainment)),
    share(one.offload === null ? null : 1 - one.offload),
    usd(one.spent_usd),
    usd(one.saved_usd),
    share(one.coverage),
  ]);
  renew(place, table(["Class", ["Requests", "num"], ["Promises kept", "num"], ["Kept local", "num"], ["Spent", "num"], ["Saved", "num"], [summary.quantile === null ? "Within bound" : `Within ${share(summary.quantile)} bound`, "num"]], rows, "Promises, by class"));
}

// --- where it goes ---------------------------------------------------------------------------------------------------

function flowCard(signal) {
  let flows = [];
  let compact = false;
  const drawing = chart({ label: "Which classes of requests go to which endpoints; the table below says the same.", option: (colour) => flowOption(flows, colour, compact), signal, key: keptKey(), tall: true });
  const unserved = h("p", { class: "soft small" });
  const place = h("div", {});
  const shown = h("div", {}, drawing.element, unserved);
  const nothing = h("div", { hidden: true }, empty("Nothing was served in this window", "Look further back, or send a request."));
  const draw = (flow) => {
    fill(place);
    flows = flow.flows;
    shown.hidden = !flows.length;
    nothing.hidden = Boolean(flows.length);
    unserved.textContent = flow.unserved.length ? `Not served: ${flow.unserved.map((one) => `${count(one.requests)} ${outcome(one.outcome)} (${one.class})`).join(", ")}.` : "";
    const rows = flows.map((one) => [one.class, side(one.endpoint, one.tier), one.site, count(one.requests), count(one.tokens), usd(one.spent_usd), usd(one.saved_usd), share(one.attainment)]);
    drawing.tell(["Class", "Endpoint", "Site", ["Requests", "num"], ["Tokens", "num"], ["Spent", "num"], ["Saved", "num"], ["Kept", "num"]], rows, "Where requests go");
    if (!flows.length) return;
    compact = drawing.canvas.clientWidth < 520;
    const nodes = Math.max(...["class", "endpoint"].map((name) => new Set(flows.map((one) => one[name])).size));
    drawing.canvas.style.minHeight = `${nodes * (NODE_GAP_PX + NODE_PX)}px`;
    drawing.draw();
  };
  const element = h("section", { class: "card" }, h("header", {}, h("h2", {}, "Where work goes"), h("p", {}, "As wide as the tokens of prompts and answers.")), place, shown, nothing);
  return { element, place, draw };
}

// Space between nodes, and what each has at least of the height on average: its name is a line.
const NODE_GAP_PX = 16;
const NODE_PX = 12;
const AS_CLASS = "class ";
const AS_ENDPOINT = "endpoint ";

function flowOption(flows, colour, compact) {
  const sum = (by) => {
    const found = new Map();
    for (const one of flows) {
      const key = by(one);
      const all = found.get(key) ?? { tokens: 0, requests: 0, spent_usd: 0, kept: 0, judged: 0, tier: one.tier, site: one.site };
      for (const name of ["tokens", "requests", "spent_usd", "kept", "judged"]) all[name] += one[name];
      found.set(key, all);
    }
    return found;
  };
  const endpointColour = (tier) => colour(tier === "local" ? "local" : tier === "remote" ? "remote" : "edge");
  const say = (one) => `${short(one.tokens)} tokens · ${many(one.requests, "request")}\n${usd(one.spent_usd)} spent · ${one.judged ? `${share(one.kept / one.judged)} kept` : "no promise known"}`;
  const nodes = [
    ...[...sum((one) => one.class)].map(([name, all]) => ({
      name: AS_CLASS + name, shown: name, said: say(all), itemStyle: { color: colour("edge") },
      label: { position: compact ? "right" : "left" },
    })),
    ...[...sum((one) => one.endpoint)].map(([name, all]) => ({
      name: AS_ENDPOINT + name, shown: name, said: `${all.site}, ${all.tier}\n${say(all)}`, tier: all.tier, itemStyle: { color: endpointColour(all.tier) },
      label: { position: compact ? "left" : "right", color: endpointColour(all.tier), fontWeight: 620 },
    })),
  ];
  return {
    tooltip: tooltip({ formatter: (at) => (at.dataType === "edge" ? `${at.data.from} to ${at.data.to}\n${at.data.said}` : `${at.data.shown}\n${at.data.said}`) }),
    series: [
      {
        type: "sankey",
        left: compact ? 0 : 160, right: compact ? 0 : 130, top: 6, bottom: 6,
        nodeWidth: 9, nodeGap: NODE_GAP_PX, draggable: false, layoutIterations: 48,
        emphasis: { focus: "adjacency" },
        label: {
          color: colour("ink"), fontSize: compact ? 12 : 13, fontWeight: 500, distance: 9,
          // On a phone names stand on what flows.
          textBorderColor: colour("card"), textBorderWidth: compact ? 2 : 0,
          width: compact ? 130 : 140, overflow: "truncate", formatter: (at) => at.data.shown,
        },
        itemStyle: { borderWidth: 0, borderRadius: 3 },
        lineStyle: { curveness: 0.5, opacity: 0.62 },
        data: nodes,
        links: flows.map((one) => ({
          source: AS_CLASS + one.class, target: AS_ENDPOINT + one.endpoint, value: Math.max(1, one.tokens),
          from: one.class, to: one.endpoint, said: say(one), lineStyle: { color: colour(keptToken(one.attainment)) },
        })),
      },
    ],
  };
}

// --- dollars and prices, over time -----------------------------------------------------------------------------------

const widthS = (found) => found.ends_s - found.begins_s;

function timeAxis(found, { show = true, ...more } = {}) {
  return axis({ type: "time", min: found.begins_s * 1000, max: found.ends_s * 1000, splitLine: { show: false }, splitNumber: 4, axisLabel: { show, showMaxLabel: false, formatter: (at) => tick(at / 1000, widthS(found)) }, ...more });
}

function overTime(colour, found, series, axes) {
  return {
    grid: { left: 52, right: 12, top: 12, bottom: 26 },
    xAxis: timeAxis(found),
    yAxis: axis({ type: "value", splitNumber: 3, ...axes }),
    series,
  };
}

function moneyCard(signal) {
  let found = null;
  const drawing = chart({
    label: "Dollars spent, and saved by keeping work local, over time; the table below says the same.",
    option: (colour) => {
      const bar = (name, key, token) => ({
        name, type: "bar", stack: "usd", barMaxWidth: 14, barCategoryGap: "30%", itemStyle: { color: colour(token) },
        data: found.points.map((point) => [point.at_s * 1000 + 500 * found.step_s, point[key]]),
      });
      return {
        ...overTime(colour, found, [bar("Saved by keeping it local", "local_saved_usd", "local"), bar("Spent", "spent_usd", "remote")], { axisLabel: { formatter: usdRound } }),
        tooltip: tooltip({ trigger: "axis", axisPointer: { type: "none" }, formatter: (all) => [between(all[0].value[0] / 1000 - found.step_s / 2, all[0].value[0] / 1000 + found.step_s / 2, widthS(found)), ...all.map((one) => `${one.seriesName}: ${usd(one.value[1])}`)].join("\n") }),
      };
    },
    signal,
  });
  const place = h("div", {});
  const draw = (series) => {
    fill(place);
    found = series;
    drawing.tell(
      ["From", ["Requests", "num"], ["Local", "num"], ["Remote", "num"], ["Spent", "num"], ["Saved locally", "num"], ["Kept", "num"]],
      found.points.filter((point) => point.requests).map((point) => [moment(point.at_s, found.ends_s), count(point.requests), count(point.local_requests), count(point.remote_requests), usd(point.spent_usd), usd(point.local_saved_usd), share(point.attainment)]),
      "Dollars over time",
    );
    drawing.draw();
  };
  const key = h("ul", { class: "key" }, h("li", {}, h("i", { class: "local" }), "saved by keeping it local"), h("li", {}, h("i", { class: "remote" }), "spent"));
  return { element: h("section", { class: "card" }, h("header", {}, h("h2", {}, "Dollars over time"), key), place, drawing.element), place, draw };
}

const GAP_PX = 34;

function pricesCard(signal) {
  let found = null;
  let kinds = [];
  const drawing = chart({ label: "What dollars of budgets, promises and hedges were worth, over time; the table below says the same.", option: (colour) => pricesOption(found, kinds, colour, drawing.canvas.clientHeight), signal });
  const nothing = h("div", { class: "chart-none", hidden: true }, empty("No price was set", "With a budget, its dollars have a price here; with a target, promises have a worth."));
  const draw = (series) => {
    found = series;
    kinds = kindsOf(found.points);
    const lines = kinds.flatMap((kind) => kind.lines.map((line) => ({ ...line, name: kind.lines.length > 1 ? `${kind.name}, ${line.name}` : kind.name })));
    drawing.canvas.classList.toggle("tall", kinds.length > 1);
    drawing.element.hidden = !lines.length;
    nothing.hidden = Boolean(lines.length);
    if (!lines.length) return;
    const rows = found.points.filter((point) => lines.some(({ of }) => of(point) !== null));
    drawing.tell(["Until", ...lines.map(({ name }) => [name, "num"])], rows.map((point) => [moment(point.at_s + found.step_s, found.ends_s), ...lines.map(({ of }) => (of(point) === null ? "–" : plain(of(point), 3)))]), "Prices over time");
    drawing.draw();
  };
  const element = h("section", { class: "card" }, h("header", {}, h("h2", {}, "Shadow prices over time"), h("p", {}, "What one more dollar or promise was worth when decisions were made.")), drawing.element, nothing);
  return { element, draw };
}

/** One panel a kind: their units differ. */
function pricesOption(found, kinds, colour, highPx) {
  const high = Math.floor((highPx - 20) / kinds.length) - GAP_PX;
  const top = (index) => GAP_PX - 8 + index * (high + GAP_PX);
  const inks = ["ink", "edge", "local", "remote"];
  return {
    title: kinds.map((kind, index) => ({ text: kind.name, left: 0, top: top(index) - 24, padding: 0, textStyle: { fontSize: 12.5, fontWeight: 500, color: colour("ink") } })),
    grid: kinds.map((_, index) => ({ left: 44, right: 12, top: top(index), height: high })),
    xAxis: kinds.map((_, index) => timeAxis(found, { gridIndex: index, show: index === kinds.length - 1 })),
    yAxis: kinds.map((_, index) => axis({ type: "value", gridIndex: index, min: 0, splitNumber: 2, axisLabel: { formatter: (value) => plain(value, 2) } })),
    tooltip: tooltip({ trigger: "axis", formatter: (all) => [between(all[0].value[0] / 1000 - found.step_s, all[0].value[0] / 1000, widthS(found)), ...all.filter((one) => one.value[1] !== null).map((one) => `${one.seriesName}: ${plain(one.value[1], 3)}`)].join("\n") }),
    series: kinds.flatMap((kind, index) =>
      kind.lines.map((line, number) => ({
        name: line.name, type: "line", step: "end", symbol: "none", connectNulls: true, xAxisIndex: index, yAxisIndex: index,
        lineStyle: { width: 1.75, color: colour(inks[number % inks.length]) }, itemStyle: { color: colour(inks[number % inks.length]) },
        endLabel: { show: kind.lines.length > 1, formatter: () => line.name, color: colour("ink"), align: "right", offset: [-8, -8] },
        data: found.points.map((point) => [(point.at_s + found.step_s) * 1000, line.of(point)]),
      })),
    ),
  };
}

function kindsOf(points) {
  const lines = (key) =>
    [...new Set(points.flatMap((point) => Object.keys(point[key])))].sort().map((name) => ({ name, of: (point) => point[key][name] ?? null }));
  return [
    { name: "A budget's dollar, beyond itself", lines: lines("budget_price") },
    { name: "A promise, as a share of its most", lines: lines("worth_factor") },
    { name: "A dollar that hedges may lose", lines: points.some((point) => point.hedge_price) ? [{ name: "hedges", of: (point) => point.hedge_price }] : [] },
  ].filter((kind) => kind.lines.length);
}
