// One request: where it went and why, what it was weighed against, what became of it, and what would have made that another.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { grouped } from "../flips.js";
import { bytes, count, moment, plain, seconds, share, usd, usdSigned } from "../format.js";
import { empty, load, waiting } from "../panel.js";
import { ending, klass, outcome } from "../rows.js";
import { ends, side } from "../sides.js";
import { table } from "../table.js";
import { weighed } from "../weigh.js";

const PARTS = { promise: "promise", lateness: "lateness", cost: "cost", rule: "rules", budget: "budget" };
const FLIPS_SHOWN = 4;

// Of ids that begin with all of this one.
const NAMESAKES_MAX = 20;

/** Show the request with this id. */
export function show(main, id, signal) {
  const first = h("div", { class: "stack" });
  const body = h("div", { class: "stack" }, h("section", { class: "card" }, waiting("Deciding it again, with all that was known then. This takes a second or two.")));
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("p", { class: "soft small" }, h("a", { href: "#/requests" }, "Requests")), h("h1", {}, id))),
    h("div", { class: "stack" }, first, body),
  );
  // What its row tells is there at once, unless all of it is.
  let isWhole = false;
  const short = (ended) => get("requests", { q: id, limit: NAMESAKES_MAX }, ended);
  load(first, short, (page) => {
    const row = page.rows.find((one) => one.id === id);
    if (row && !isWhole) fill(first, verdict(row, [], { [row.why]: row.why_text }, (endpoint) => (endpoint === row.endpoint ? row.tier : null)));
  }, signal);
  const ask = async (ended) => {
    const [told, known] = await Promise.all([get(`decisions/${encodeURIComponent(id)}`, {}, ended), get("endpoints", { minutes: 1 }, ended)]);
    return { told, known };
  };
  load(body, ask, ({ told, known }) => {
    isWhole = true;
    fill(first);
    draw(body, told, tiers(known, told.row));
  }, signal);
}

function tiers(known, row) {
  const found = new Map(known.endpoints.map((one) => [one.name, one.tier]));
  if (row?.tier) found.set(row.endpoint, row.tier);
  return (endpoint) => found.get(endpoint) ?? null;
}

function draw(body, told, tierOf) {
  const { row, why } = told;
  const explained = told.explained ?? [];
  if (!row && !explained.length) {
    fill(body, h("section", { class: "card" }, empty("No such request", "It may be older than the journal.")));
    return;
  }
  const last = explained.at(-1);
  const before = explained.slice(0, -1);
  fill(
    body,
    verdict(row, explained, why, tierOf),
    last?.flips ? flipsCard(row, last, why, tierOf) : h("section", { class: "card" }, empty("It could not be decided again", told.problem ? `${sentenceCase(told.problem)}.` : "What is known of it stands above.")),
    last?.candidates.length ? candidatesCard(last, why, tierOf) : null,
    last ? timelineCard(row, last, tierOf) : null,
    before.length ? earlierCard(before, why, tierOf) : null,
    last?.densities?.length ? computingCard(last) : null,
  );
}

// --- where and why ---------------------------------------------------------------------------------------------------

function verdict(row, explained, why, tierOf) {
  const last = explained.at(-1);
  const request = last?.request;
  const decision = last?.decision;
  const reason = decision?.why ?? row?.why;
  const went = row?.endpoint ?? decision?.plan?.[0]?.endpoint ?? null;
  const tier = went ? (tierOf(went) ?? row?.tier) : null;
  return h(
    "section",
    { class: `card answer ${tier ?? ""}` },
    h("p", { class: "verdict" }, sentence(row, decision, went, tier), reason ? [": ", why[reason] ?? reason, "."] : "."),
    story(explained, tierOf),
    h("dl", { class: "facts after" }, facts(row, request, last).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  );
}

function sentence(row, decision, went, tier) {
  if (row?.outcome === "refused" || (decision && !decision.plan?.length)) return "It was refused";
  const step = decision?.plan?.[0];
  if (row?.outcome === "unknown" && step?.type === "wait") return ["It waited for ", side(step.endpoint, tier), ", and was lost with its process"];
  if (went === null) return "It went nowhere";
  // Where its prompt was computed elsewhere, it did not stay, whether the cache came or not.
  if (tier === "local" && row?.handover) return ["It was answered locally, at ", side(went, tier)];
  return [tier === "local" ? "It stayed local, at " : tier === "remote" ? "It went remote, to " : "It went to ", side(went, tier)];
}

function story(explained, tierOf) {
  const said = [];
  const held = explained.filter((one) => one.decision.plan?.[0]?.type === "wait");
  if (held.length) said.push(["It was held for a place at ", side(held[0].decision.plan[0].endpoint, tierOf(held[0].decision.plan[0].endpoint)), " before."]);
  const last = explained.at(-1);
  const prefill = explained.map((one) => one.decision.plan?.[0]).find((step) => step?.type === "prefill");
  if (prefill) said.push(handedOver(prefill, last.stages ?? [], tierOf));
  if (last?.again === false) said.push("It does not come out again: candidates and flips are what this software makes of it now.");
  if (last?.decision.propensity !== undefined && last.decision.propensity < 1) said.push(`It was chosen with a probability of ${plain(last.decision.propensity, 3)}: some requests explore.`);
  for (const ruling of last?.request.rulings ?? []) said.push(`The operators' rule ${ruling.rule} held: ${ruled(ruling)}.`);
  return said.map((one) => h("p", { class: "soft after" }, one));
}

/** A handover that was decided, as far as it came. */
function handedOver(step, stages, tierOf) {
  const computing = stages.findLast((stage) => stage.what === "prefill" && stage.endpoint === step.endpoint && stage.target === step.target);
  const sending = stages.findLast((stage) => stage.what === "transfer" && stage.endpoint === step.endpoint && stage.target === step.target);
  const [source, target] = [side(step.endpoint, tierOf(step.endpoint)), side(step.target, tierOf(step.target))];
  const to = (stage) => (stage.cancelled ? "was cancelled" : stage.cause ? `failed (${stage.cause})` : "failed");
  if (computing === undefined) return ["Its prompt was to be computed at ", source, ", and the KV cache sent to ", target, "."];
  if (computing.failed || computing.cancelled) return ["Its prompt was to be computed at ", source, " for ", target, `; that ${to(computing)}.`];
  if (sending === undefined) return ["Its prompt was computed at ", source, "; its KV cache was to be sent to ", target, "."];
  if (sending.failed || sending.cancelled) return ["Its prompt was computed at ", source, "; to send its KV cache to ", target, ` ${to(sending)}.`];
  return ["Its prompt was computed at ", source, ", and the KV cache sent to ", target, ", which was to write the answer."];
}

function ruled(ruling) {
  if (ruling.klass) return `class ${ruling.klass}`;
  const to = (ruling.to ?? []).join(", ");
  return ruling.hard ? `${to}, and nowhere else` : `${to}, or elsewhere for ${usd(ruling.break_usd)} less`;
}

function facts(row, request, last) {
  const slo = row?.slo ?? request?.slo ?? {};
  const promised = [
    slo.ttft_s ? `first token ${seconds(slo.ttft_s)}` : null,
    slo.tpot_s ? `${seconds(slo.tpot_s)} a token` : null,
    slo.e2e_s ? `all in ${seconds(slo.e2e_s)}` : null,
  ].filter(Boolean);
  const found = [
    ["Class", klass(row?.class ?? request?.klass ?? "")],
    ["Model", row?.model ?? request?.model],
    ["Arrived", moment(row?.at_s ?? request?.arrived_s)],
    ["Prompt", `${count(row?.prompt_tokens ?? request?.prompt_tokens)} tokens`],
    ["Promised", promised.length ? promised.map((one) => h("div", {}, one)) : "nothing"],
    ["Keeping it is worth", last?.candidates.length ? usd(last.worth_usd) + (last.worth_share === undefined ? "" : `, ${share(last.worth_share)} of the most`) : null],
    ["Data may go", (request?.residency ?? []).join(", ") || null],
    ["Key", row?.key || null],
  ];
  if (row) {
    found.push(["Outcome", ending(row)]);
    // Of an answer in one piece nobody sees it.
    found.push(["First token", row.ttft_s !== null ? predicted(row) : row.outcome === "ok" ? "–" : outcome(row.outcome)]);
    found.push(["Per token", seconds(row.tpot_s)], ["Answer", row.output_tokens === null ? "–" : `${count(row.output_tokens)} tokens in ${seconds(row.e2e_s)}`]);
    found.push(["Paid", usd(row.paid_usd)], ["Running it", row.usd - row.paid_usd > 1e-9 ? usd(row.usd - row.paid_usd) : null], ["Saved", row.saved_usd === null ? "–" : `${usd(row.saved_usd)} against all remote`]);
  }
  return found.filter(([, value]) => value !== null && value !== undefined && value !== "" && value.length !== 0);
}

function predicted(row) {
  if (row.predicted_ttft_s === null) return seconds(row.ttft_s);
  return [seconds(row.ttft_s), h("div", { class: "soft small" }, `predicted ${seconds(row.predicted_ttft_s)}, below ${seconds(row.predicted_ttft_s_high)}`)];
}

// --- what would have made it another one -----------------------------------------------------------------------------

function flipsCard(row, last, why, tierOf) {
  const went = row?.endpoint ?? last.decision.plan?.[0]?.endpoint ?? null;
  const tier = went ? tierOf(went) : null;
  const remote = tier === "remote";
  const all = grouped(last.flips ?? [], tierOf);
  const wanted = remote ? "local" : "remote";
  all.sort((one, other) => (other.tier === wanted) - (one.tier === wanted));
  const stays = all.some((group) => group.tier === "local");
  const excluded = (last.candidates ?? []).filter((one) => one.excluded && tierOf(one.endpoint) === "local");
  return h(
    "section",
    { class: "card", id: "flips" },
    h(
      "header",
      {},
      h("h2", {}, remote ? "What would have kept it local" : "What would have made it another decision"),
      h("p", {}, "The least change of one thing alone, everything else as it was; found by deciding again with the real router."),
    ),
    remote && !stays
      ? h("p", {}, "Nothing that was tried would have kept it local by itself.", excluded.map((one) => [" ", side(one.endpoint, "local"), ` was left out: ${why[one.excluded] ?? one.excluded}.`]))
      : null,
    all.length ? h("div", { class: "flips" }, all.map((group) => flipGroup(group, tierOf))) : remote ? null : h("p", { class: "soft" }, "Nothing that was tried would have made it another decision."),
  );
}

function flipGroup(group, tierOf) {
  const [first, then] = ends(group.goesTo);
  const heading = !group.goesTo
    ? "It would have been refused, if"
    : then
      ? ["Prompt at ", side(first, tierOf(first)), ", answer at ", side(then, tierOf(then)), ", if"]
      : group.waits
        ? ["It would have waited for ", side(first, group.tier), ", if"]
        : group.tier === "local"
          ? ["It would have run locally, at ", side(first, "local"), ", if"]
          : ["It would have gone to ", side(first, group.tier), ", if"];
  const items = group.flips.map((flip) => h("li", {}, h("span", {}, flip.said.map((part, index) => (index % 2 ? h("b", {}, part) : part))), flip.now ? h("span", { class: "now" }, flip.now) : null));
  const rest = items.slice(FLIPS_SHOWN);
  return [
    h("h3", {}, heading),
    h("ul", {}, items.slice(0, FLIPS_SHOWN)),
    rest.length ? h("details", { class: "more" }, h("summary", {}, `${rest.length} more, further away`), h("ul", {}, rest)) : null,
  ];
}

// --- what it was weighed against -------------------------------------------------------------------------------------

function candidatesCard(one, why, tierOf) {
  const all = ranked(one);
  const step = one.decision.plan?.[0];
  return h(
    "section",
    { class: "card" },
    h(
      "header",
      {},
      h("h2", {}, "What it chose from"),
      h("p", {}, "What each could be expected to be worth: keeping the promise, times the chance of that, less what it costs."),
      h("ul", { class: "key", "aria-hidden": "true" }, h("li", {}, h("i", { class: "k5" }), "value"), h("li", {}, h("i", { class: "k2" }), "what it takes away")),
    ),
    h("ul", { class: "candidates" }, all.map((candidate) => candidateItem(candidate, all, chosen(candidate, step), why, tierOf))),
    h("details", { class: "more" }, h("summary", {}, "As a table"), candidatesTable(one, all, why)),
  );
}

const ranked = (one) =>
  [...(one.candidates ?? []), ...(one.prefills ?? [])].sort((a, b) => Boolean(a.excluded) - Boolean(b.excluded) || (b.value_usd ?? 0) - (a.value_usd ?? 0));
const chosen = (candidate, step) => step !== undefined && step.endpoint === candidate.endpoint && (step.target ?? "") === (candidate.target ?? "");

function candidateItem(candidate, all, picked, why, tierOf) {
  const name = [side(candidate.endpoint, tierOf(candidate.endpoint)), candidate.target ? h("div", { class: "soft small" }, `for ${candidate.target}`) : null, picked ? h("div", { class: "small" }, h("span", { class: "tag" }, "chosen")) : null];
  const estimate = candidate.estimate;
  if (candidate.excluded) {
    const rule = candidate.rule ? ` (rule ${candidate.rule})` : "";
    return h("li", {}, h("div", {}, name), h("p", { class: "soft left-out" }, `Left out: ${why[candidate.excluded] ?? candidate.excluded}${rule}.`));
  }
  if (!estimate || candidate.value_usd === undefined) return h("li", {}, h("div", {}, name), h("p", { class: "soft left-out" }, "Not weighed."));
  const parts = Object.entries(candidate.contributions_usd ?? {}).filter(([, value]) => Math.abs(value) > 1e-9);
  const times = [
    ["promise kept ", share(estimate.attainment)],
    ["first token ", seconds(estimate.ttft_s), `, below ${seconds(estimate.ttft_s_high)}`],
    ["", seconds(estimate.tpot_s), " a token"],
    ["all in ", seconds(estimate.e2e_s)],
    estimate.wait_s > 0.001 ? ["waits ", seconds(estimate.wait_s)] : null,
    estimate.cached_tokens >= 1 ? ["cached ", `${count(Math.round(estimate.cached_tokens))} tokens`] : null,
    estimate.cold_share > 0.005 ? ["load ", share(estimate.cold_share), `, ${seconds(estimate.load_s)}`] : null,
    estimate.failed_share > 0.005 ? ["fails ", share(estimate.failed_share)] : null,
    candidate.kv_bytes ? ["KV cache ", bytes(candidate.kv_bytes), candidate.ship_s === undefined ? "" : ` in ${seconds(candidate.ship_s)}`] : null,
  ].filter(Boolean);
  return h(
    "li",
    {},
    h("div", {}, name),
    weighed(candidate, all),
    h("p", { class: "value" }, usd(candidate.value_usd, 3)),
    h(
      "p",
      { class: "said" },
      h("span", { class: "parts" }, parts.map(([part, value]) => h("span", {}, `${PARTS[part] ?? part} `, h("b", {}, usdSigned(value, 3))))),
      h("span", { class: "parts" }, times.map(([label, value, rest = ""]) => h("span", {}, label, h("b", {}, value), rest))),
    ),
  );
}

function candidatesTable(one, all, why) {
  const parts = Object.keys(PARTS).filter((part) => all.some((candidate) => part in (candidate.contributions_usd ?? {})));
  const columns = ["Candidate", ["Value", "num"], ...parts.map((part) => [PARTS[part][0].toUpperCase() + PARTS[part].slice(1), "num"]), ["First token", "num"], ["Below", "num"], ["Per token", "num"], ["Kept", "num"], ["Cached", "num"], "Left out"];
  const rows = all.map((candidate) => {
    const estimate = candidate.estimate;
    const name = candidate.target ? `${candidate.endpoint} for ${candidate.target}` : candidate.endpoint;
    const left = candidate.excluded ? (why[candidate.excluded] ?? candidate.excluded) + (candidate.rule ? ` (${candidate.rule})` : "") : "";
    if (!estimate) return [name, ...Array(6 + parts.length).fill("–"), left];
    return [
      name, usd(candidate.value_usd, 3), ...parts.map((part) => usdSigned(candidate.contributions_usd?.[part] ?? 0, 3)),
      seconds(estimate.ttft_s), seconds(estimate.ttft_s_high), seconds(estimate.tpot_s), share(estimate.attainment), count(Math.round(estimate.cached_tokens)), left,
    ];
  });
  return table(columns, rows, `Candidates at ${moment(one.at_s)}`);
}

// --- what became of it -----------------------------------------------------------------------------------------------

const STAGES = { hold: "held here", prefill: "prompt", transfer: "KV cache sent", restore: "KV cache read", decode: "answer", answer: "prompt and answer" };

function timelineCard(row, last, tierOf) {
  const stages = last.stages ?? [];
  if (!stages.length) return null;
  const end = Math.max(...stages.map((stage) => stage.began_s + stage.took_s), 1e-9);
  const promise = row?.slo?.ttft_s ?? last.request.slo?.ttft_s ?? null;
  return h(
    "section",
    { class: "card" },
    h("header", {}, h("h2", {}, "What became of it"), h("p", {}, `In ${seconds(end)} since it was read.${promise ? ` Its first token was promised within ${seconds(promise)}.` : ""}`)),
    h("ol", { class: "stages" }, stages.map((stage) => stageItem(stage, end, tierOf))),
    h(
      "details",
      { class: "more" },
      h("summary", {}, "As a table"),
      table(
        ["Stage", "Where", ["Began", "num"], ["Took", "num"], "Said"],
        stages.map((stage) => [STAGES[stage.what] ?? stage.what, [stage.endpoint, stage.target].filter(Boolean).join(" to "), seconds(stage.began_s), seconds(stage.took_s), said(stage)]),
        "Stages",
      ),
    ),
  );
}

const said = (stage) =>
  [
    stage.failed ? `came to nothing${stage.cause ? ` (${stage.cause})` : ""}` : stage.cancelled ? "cancelled" : "",
    stage.kv_bytes ? bytes(stage.kv_bytes) : "",
    stage.predicted_s === undefined || stage.predicted_s === null ? "" : `${seconds(stage.predicted_s)} foreseen`,
  ]
    .filter(Boolean)
    .join(", ");

function stageItem(stage, end, tierOf) {
  const tier = stage.endpoint ? tierOf(stage.endpoint) : null;
  const bar = h("i", {});
  // By the object model: a style attribute is what the page's policy forbids.
  bar.style.left = `${(100 * stage.began_s) / end}%`;
  bar.style.width = `${(100 * stage.took_s) / end}%`;
  const where = stage.endpoint ? [side(stage.endpoint, tier), stage.target ? h("small", {}, stage.what === "transfer" ? `to ${stage.target}` : `for ${stage.target}`) : null] : null;
  return h(
    "li",
    { class: `${tier ?? ""} ${stage.what} ${stage.failed ? "failed" : ""}` },
    h("div", {}, STAGES[stage.what] ?? stage.what, h("div", { class: "small" }, where)),
    h("div", { class: "track", "aria-hidden": "true" }, bar),
    h("div", { class: "took" }, seconds(stage.took_s), said(stage) ? h("small", {}, said(stage)) : null),
  );
}

// --- what was decided before, and how dense the computing is ---------------------------------------------------------

const EARLIER_MAX = 20;

function earlierCard(before, why, tierOf) {
  const shown = before.length > EARLIER_MAX ? [...before.slice(0, EARLIER_MAX - 1), before.at(-1)] : before;
  return h(
    "section",
    { class: "card" },
    h("header", {}, h("h2", {}, "What was decided before"), h("p", {}, `It was decided ${before.length + 1} times${before.length > shown.length ? `; the first ${EARLIER_MAX - 1} and the last but one stand here` : ""}.`)),
    shown.map((one) => {
      const step = one.decision.plan?.[0];
      const what = !step ? "refused" : step.type === "wait" ? ["held for ", side(step.endpoint, tierOf(step.endpoint))] : step.type === "prefill" ? ["prompt at ", side(step.endpoint, tierOf(step.endpoint)), ` for ${step.target}`] : ["sent to ", side(step.endpoint, tierOf(step.endpoint))];
      const all = ranked(one);
      return h(
        "details",
        { class: "more earlier" },
        h("summary", {}, moment(one.at_s), ": ", what),
        h("p", { class: "soft" }, `${sentenceCase(why[one.decision.why] ?? one.decision.why)}.`),
        h("ul", { class: "candidates" }, all.map((candidate) => candidateItem(candidate, all, chosen(candidate, step), why, tierOf))),
        one.flips?.length ? h("div", { class: "flips" }, grouped(one.flips, tierOf).map((group) => flipGroup(group, tierOf))) : null,
      );
    }),
  );
}

const sentenceCase = (text) => text[0].toUpperCase() + text.slice(1);

function computingCard(last) {
  const densities = [...last.densities].sort((one, other) => one.compute_s - other.compute_s);
  const phase = (one) => (one ? `${plain(one.intensity_flop_per_byte, 3)} ${one.bound}` : "–");
  return h(
    "section",
    { class: "card" },
    h("header", {}, h("h2", {}, "How dense its computing is"), h("p", {}, "What each endpoint's hardware makes of prompt and answer, without waiting and network.")),
    table(
      ["Endpoint", ["Computing", "num"], [`Times ${densities[0].over}`, "num"], ["Saved per kB sent", "num"], ["Prefill FLOP/B", "num"], ["Decode FLOP/B", "num"]],
      densities.map((one) => [one.endpoint, seconds(one.compute_s), plain(one.speed_up, 3), one.saved_s_per_byte === undefined || one.saved_s_per_byte === null ? "–" : seconds(one.saved_s_per_byte * 1e3), phase(one.prefill), phase(one.decode)]),
      "Computing",
    ),
  );
}
