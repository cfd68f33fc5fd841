// Requests as rows of a table, wherever some are listed.

import { h } from "./dom.js";
import { moment, seconds, usd } from "./format.js";
import { side } from "./sides.js";
import { scroll } from "./table.js";

const OUTCOMES = { ok: "ok", refused: "refused", failed: "failed", failed_mid_stream: "broke off", client_left: "client left", client_error: "client's error", unknown: "lost with its process" };
// What nobody here is to blame for.
const MILD = new Set(["client_left", "client_error", "unknown"]);

/** Where a request's own page is. */
export function address(id) {
  return `#/requests/${encodeURIComponent(id)}`;
}

/** A class, which may go on in the next line where it is divided. */
export function klass(name) {
  return name.split("/").flatMap((part, index) => (index ? ["/", h("wbr"), part] : [part]));
}

/** An outcome in words. */
export function outcome(name) {
  return OUTCOMES[name] ?? name;
}

/** Whether anything was promised. */
export function promises(slo) {
  return Object.values(slo).some((axis) => axis !== null);
}

/** What came of it, in one mark: how it ended where that is bad, else whether the promise was kept. */
export function ending(row) {
  if (row.outcome !== "ok") return h("span", { class: MILD.has(row.outcome) ? "tag" : "tag bad" }, outcome(row.outcome));
  if (row.kept === null) return h("span", { class: "tag" }, promises(row.slo) ? "not known" : "no promise");
  return h("span", { class: row.kept ? "tag" : "tag bad" }, row.kept ? "kept" : "missed");
}

/** A table of these rows; `body` takes more of them. */
export function requestsTable(rows, nowS, caption) {
  const body = h("tbody", {}, rows.map((row) => requestRow(row, nowS)));
  const heads = [["Request"], ["Class"], ["Went to"], ["Why"], ["First token", "num"], ["Cost", "num"], ["Promise", "num"]];
  const element = scroll(
    caption,
    h(
      "table",
      { class: "requests" },
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h("th", { scope: "col", class: kind ?? null }, name)))),
      body,
    ),
  );
  return { element, body };
}

/** One of them. */
export function requestRow(row, nowS) {
  return h(
    "tr",
    {},
    h(
      "td",
      { class: "id", title: row.id },
      h("a", { href: address(row.id) }, row.id),
      h("div", { class: "soft small" }, moment(row.at_s, nowS)),
    ),
    h("td", { class: "name" }, klass(row.class)),
    h(
      "td",
      { class: "where" },
      row.endpoint === null ? h("span", { class: "soft" }, "nowhere") : side(row.endpoint, row.tier),
      row.handover ? h("div", { class: "soft small" }, row.handover_s === null ? "prefill elsewhere was lost" : "prefill elsewhere") : null,
    ),
    h("td", { class: "wrap" }, row.why_text ?? row.why),
    h("td", { class: "num wide" }, seconds(row.ttft_s)),
    h("td", { class: "num wide" }, usd(row.usd)),
    h("td", { class: "num last" }, ending(row)),
  );
}
