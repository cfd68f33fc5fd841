// Break-even: which side the router would choose, by the length of a prompt and what is under way.

import { get } from "../api.js";
import { axis, chart, tooltip } from "../charts.js";
import { fill, h } from "../dom.js";
import { count, seconds, share, short, usd } from "../format.js";
import { empty, load } from "../panel.js";
import { table } from "../table.js";

const CHOICES = ["class", "model", "endpoint"];
// Which choice has just made the page another one.
let chosen = null;
const KEY = () =>
  h(
    "ul",
    { class: "key" },
    h("li", {}, h("i", { class: "local" }), "local"),
    h("li", {}, h("i", { class: "remote" }), "remote"),
    h("li", {}, h("i", { class: "soft-fill" }), "refused"),
    h("li", {}, "Fainter: fewer dollars between the two. A dot: it would wait for a place."),
  );

/** Show it for a class, a model, and the endpoint whose load is varied. What was chosen last comes first in `parameters`. */
export function show(main, parameters, signal) {
  const body = h("div", { class: "stack" }, h("section", { class: "card" }, h("div", { class: "empty chart tall" }, "Deciding, once for each prompt and load…")));
  const asked = Object.fromEntries(Object.entries(parameters).filter(([name, value]) => CHOICES.includes(name) && value));
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Break-even"), h("p", { class: "soft" }, "Which side the real router would choose now, for requests like those of a class: each field is a decision of its own, with all that has been learned."))),
    body,
  );
  const last = chosen;
  chosen = null;
  load(body, (ended) => closest(asked, ended), ({ found, missed }) => {
    draw(body, found, missed, signal);
    // The page's title has the focus meanwhile; who has chosen here may choose again, unless they went on.
    if (last !== null && document.activeElement.matches("h1, body")) body.querySelector(`select[name=${last}]`)?.focus({ preventScroll: true });
  }, signal);
}

/** What was asked for; where there is none, what has the last choice alone, or else what is most common, and what was `missed`. */
async function closest(asked, signal) {
  const [last] = Object.entries(asked);
  const ways = [asked, last ? Object.fromEntries([last]) : {}, {}];
  let missed = null;
  for (const way of ways) {
    try {
      return { found: await get("surface", way, signal), missed };
    } catch (error) {
      if (error.status !== 404 || way === ways.at(-1)) throw error;
      missed ??= error.message;
    }
  }
}

function draw(body, found, missed, signal) {
  if (!found.cells.length) {
    fill(body, h("section", { class: "card" }, empty("Nothing can be decided yet", "It takes an endpoint of your own, and one request at least.")));
    return;
  }
  const drawing = chart({ label: `${inWords(found).join(" ")} The table below says the same.`, option: (colour) => option(found, colour), signal, key: KEY(), tall: true });
  drawing.tell(["Under way", ...found.prompt_tokens.map((tokens) => [short(tokens), "num"])], found.cells.map((row, index) => [count(found.in_flight[index]), ...row.map((cell) => goes(cell))]), "Which side is chosen, by prompt tokens and requests under way");
  const promised = [found.ttft_s ? `the first token in ${seconds(found.ttft_s)}` : null, found.tpot_s ? `each in ${seconds(found.tpot_s)}` : null, found.e2e_s ? `all in ${seconds(found.e2e_s)}` : null].filter(Boolean);
  // Who serves a model follows from it, and which model comes with a class may.
  const { class: klass, model } = found;
  fill(
    body,
    missed ? h("div", { class: "notice", role: "status" }, h("p", {}, `${missed} What comes closest is shown.`)) : null,
    h(
      "section",
      { class: "card" },
      h("header", {}, h("div", { class: "pick" }, pick("Class", "class", found.classes, klass, { model }), pick("Model", "model", found.models, model, { class: klass }), pick("Load at", "endpoint", found.endpoints, found.endpoint, { class: klass, model })), h("p", {}, `Promised: ${promised.join(", ") || "nothing"}.`)),
      drawing.element,
    ),
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "In words")), h("ul", { class: "words" }, inWords(found).map((text) => h("li", {}, text)))),
  );
  drawing.draw();
}

/** A choice of one, which is made with what stays of the others. */
function pick(label, name, values, value, others) {
  const change = (event) => {
    chosen = name;
    const query = new URLSearchParams({ [name]: event.target.value, ...others });
    location.assign(`#/surface?${query}`);
  };
  return h("label", {}, label, h("select", { name, on: { change } }, values.map((one) => h("option", { value: one, selected: one === value }, one))));
}

const goes = (cell) => (cell.tier === null || cell.goes_to === "" ? "refused" : cell.waits ? `${cell.tier}, waits` : cell.tier);

/** From where to where rows stay on one side; those that say the same are said once. */
function inWords(found) {
  const lines = [];
  found.cells.forEach((row, index) => {
    const said = rowInWords(row, found.prompt_tokens);
    const number = found.in_flight[index];
    if (lines.at(-1)?.said === said) lines.at(-1).to = number;
    else lines.push({ said, from: number, to: number });
  });
  return lines.map(({ said, from, to }) => {
    const load = from === to ? (from === 0 ? "nothing" : count(from)) : `${count(from)} to ${count(to)}`;
    return `With ${load} under way at ${found.endpoint}: ${said}.`;
  });
}

function rowInWords(row, promptTokens) {
  const runs = [];
  row.forEach((cell, column) => {
    const said = goes(cell);
    const tokens = promptTokens[column];
    if (runs.at(-1)?.said === said) runs.at(-1).to = tokens;
    else runs.push({ said, from: tokens, to: tokens });
  });
  if (runs.length === 1) return `${word(runs[0].said)}, whatever the length`;
  return `${runs.map((run, at) => `${word(run.said)} ${at === runs.length - 1 ? `from ${count(run.from)}` : `up to ${count(run.to)}`}`).join(", ")} tokens`;
}

const word = (said) => (said === "local, waits" ? "local after a wait" : said);

function option(found, colour) {
  const sizes = found.cells.flat().map((cell) => Math.abs(cell.by_usd ?? 0)).filter((size) => size > 0).sort((one, other) => one - other);
  const most = sizes[Math.floor(sizes.length * 0.9)] ?? 1;
  const faint = (cell) => (cell.by_usd === null ? 0.92 : 0.4 + 0.52 * Math.min(1, Math.abs(cell.by_usd) / most));
  const data = found.cells.flatMap((row, y) => row.map((_, x) => [x, y]));
  const at = ([x, y]) => found.cells[y][x];
  return {
    grid: { left: 44, right: 4, top: 8, bottom: 44 },
    xAxis: axis({ type: "category", data: found.prompt_tokens.map((tokens) => short(tokens)), name: "tokens of prompt", nameLocation: "middle", nameGap: 28 }),
    yAxis: axis({ type: "category", data: found.in_flight.map(String), name: "under way", nameLocation: "middle", nameGap: 28, nameRotate: 90 }),
    tooltip: tooltip({
      formatter: (point) => {
        const cell = at(point.value);
        const [x, y] = point.value;
        return [
          `${count(found.prompt_tokens[x])} tokens, ${count(found.in_flight[y])} under way`,
          cell.goes_to ? `${cell.waits ? "waits for" : "goes to"} ${cell.goes_to} (${cell.tier})` : "refused",
          cell.by_usd === null ? "no choice between the two" : `${usd(Math.abs(cell.by_usd))} better ${cell.by_usd >= 0 ? "local" : "remote"}`,
          `kept: local ${share(cell.local_attainment)}, remote ${share(cell.remote_attainment)}`,
        ].join("\n");
      },
    }),
    series: [
      {
        type: "custom",
        data,
        renderItem: (_, api) => {
          const cell = at([api.value(0), api.value(1)]);
          const [cx, cy] = api.coord([api.value(0), api.value(1)]);
          const [wide, high] = api.size([1, 1]);
          const token = !cell.goes_to ? "edge" : cell.tier === "local" ? "local" : "remote";
          return {
            type: "group",
            children: [
              { type: "rect", shape: { x: cx - wide / 2 + 0.75, y: cy - high / 2 + 0.75, width: wide - 1.5, height: high - 1.5, r: 2 }, style: { fill: colour(token), opacity: faint(cell) } },
              cell.waits ? { type: "circle", shape: { cx, cy, r: Math.min(3, wide / 5) }, style: { fill: colour("card") } } : null,
            ].filter(Boolean),
          };
        },
      },
    ],
  };
}
