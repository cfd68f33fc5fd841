// Requests: found by what they were and where they went.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { empty, load, waiting } from "../panel.js";
import { reading } from "../reading.js";
import { outcome, requestRow, requestsTable } from "../rows.js";

const TYPED_MS = 250;
const PAGE = 50;
const FIELDS = ["q", "class", "endpoint", "tier", "why", "outcome", "kept", "key"];
const TIERS = { local: "local", remote: "remote" };
const KEPT = { true: "kept", false: "missed" };

/** Show it, narrowed by these parameters. */
export function show(main, parameters, signal) {
  const form = h("form", { class: "filters", role: "search", "aria-label": "Requests" });
  const list = h("div", { class: "results", "aria-live": "off" }, waiting("Looking…"));
  const found = h("p", { class: "soft small", role: "status" });
  const read = h("p", { class: "soft small", role: "status" });
  const unfiltered = h("div", {});
  const asked = Object.fromEntries(FIELDS.filter((name) => parameters[name]).map((name) => [name, parameters[name]]));
  let latest = null;

  const find = () => {
    latest?.abort();
    latest = new AbortController();
    const one = AbortSignal.any([signal, latest.signal]);
    return load(list, (ended) => get("requests", { ...asked, limit: PAGE }, ended), (page) => draw(page, one), one);
  };
  const narrow = (name, value) => {
    // What was typed last may come when the page has been left, whose address is another one's by now.
    if (signal.aborted) return;
    if (value) asked[name] = value;
    else delete asked[name];
    const query = new URLSearchParams(asked);
    // What is typed is no step that one goes back over.
    history.replaceState(null, "", `#/requests${query.size ? `?${query}` : ""}`);
    find();
  };
  const draw = (page, one) => {
    if (!page.rows.length) {
      found.textContent = "No request found";
      const narrowed = Object.keys(asked).length > 0;
      fill(list, narrowed ? empty("No request is like that", "Take one of the filters away.") : empty("No requests yet", "They stand here as soon as the journal has one."));
      return;
    }
    let shown = page.rows.length;
    const nowS = Date.now() / 1000;
    const { element, body } = requestsTable(page.rows, nowS, "Requests, newest first");
    const more = h("button", { type: "button" }, "Show older");
    const tell = (next) => {
      found.textContent = next === null ? `${shown} found` : `The newest ${shown}`;
      more.hidden = next === null;
    };
    let next = page.next;
    const failed = h("div", {});
    const place = h("div", { class: "row foot" }, more, failed);
    more.addEventListener("click", async () => {
      more.disabled = true;
      await load(failed, (ended) => get("requests", { ...asked, limit: PAGE, before: next }, ended), (older) => {
        fill(failed);
        const rows = older.rows.map((row) => requestRow(row, nowS));
        body.append(...rows);
        shown += older.rows.length;
        next = older.next;
        tell(next);
        rows[0]?.querySelector("a")?.focus({ preventScroll: true });
      }, one);
      more.disabled = false;
    });
    tell(next);
    fill(list, element, place);
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Requests"), h("p", { class: "soft" }, "Each with where it went and why. Open one to see what it was weighed against, and what would have sent it elsewhere."))),
    h("div", { class: "stack" }, h("section", { class: "card" }, h("header", {}, form), unfiltered, read, found, list)),
  );
  fields(form, asked, narrow, null);
  find();
  const values = () => load(unfiltered, (ended) => get("values", {}, ended), (known) => {
    fill(unfiltered);
    fields(form, asked, narrow, known);
  }, signal);
  values();
  reading(read, () => {
    find();
    values();
  }, signal);
}

function fields(form, asked, narrow, values) {
  const typing = form.contains(document.activeElement) ? document.activeElement.name : null;
  const known = (name, options) => {
    const all = Object.entries(options);
    // What was asked for stays to be seen, also where there is none.
    if (asked[name] && !options[asked[name]]) all.push([asked[name], asked[name]]);
    return h(
      "select",
      { name, on: { change: (event) => narrow(name, event.target.value) } },
      h("option", { value: "" }, "any"),
      all.map(([value, text]) => h("option", { value, selected: asked[name] === value }, text)),
    );
  };
  const listed = (names = []) => Object.fromEntries(names.map((name) => [name, name]));
  let timer = null;
  const search = h("input", {
    name: "q", type: "search", placeholder: "Beginning of an id", autocomplete: "off", spellcheck: "false", value: asked.q ?? "",
    on: {
      input: (event) => {
        clearTimeout(timer);
        timer = setTimeout(() => narrow("q", event.target.value.trim()), TYPED_MS);
      },
    },
  });
  const before = form.querySelector("input");
  const endpoints = Object.fromEntries((values?.endpoints ?? []).map((one) => [one.name, `${one.name} (${one.tier})`]));
  const whys = values?.whys ?? {};
  fill(
    form,
    h("label", { class: "find" }, "Find", before ?? search),
    h("label", {}, "Side", known("tier", TIERS)),
    h("label", {}, "Class", known("class", listed(values?.classes))),
    h("label", {}, "Endpoint", known("endpoint", endpoints)),
    h("label", {}, "Why", known("why", whys)),
    h("label", {}, "Outcome", known("outcome", Object.fromEntries((values?.outcomes ?? []).map((one) => [one, outcome(one)])))),
    h("label", {}, "Promise", known("kept", KEPT)),
    values?.keys?.some((one) => one) ? h("label", {}, "Key", known("key", listed(values.keys.filter((one) => one)))) : null,
  );
  if (typing) form.querySelector(`[name="${CSS.escape(typing)}"]`)?.focus();
}
