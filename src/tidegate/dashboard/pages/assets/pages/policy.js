// The policy: edited, checked, tried on the past, put in force, and taken back.

import { get, post } from "../api.js";
import { fill, h } from "../dom.js";
import { moment } from "../format.js";
import { follow } from "../job.js";
import { empty, load, waiting, wrong } from "../panel.js";
import { previewed } from "../previewed.js";
import { table } from "../table.js";

/** Show it. */
export function show(main, parameters, signal) {
  const body = h("div", { class: "stack" }, h("section", { class: "card" }, waiting("Looking…")));
  fill(
    main,
    h("div", { class: "top" }, h("div", {}, h("h1", {}, "Policy"), h("p", { class: "soft" }, "Edit the configuration, see what that changes, try it on the recorded traffic, and put it in force. What was in force before can be taken back."))),
    body,
  );
  load(body, (ended) => get("policy", {}, ended), (policy) => {
    if (policy.file === null) fill(body, h("section", { class: "card" }, empty("No configuration is known here", "A dashboard that stands alone is told of one with --config FILE; one beside a gateway has the gateway's.")));
    else draw(body, policy, signal);
  }, signal);
}

function draw(body, policy, signal) {
  const state = { ...policy };
  const editor = h("textarea", { class: "editor", id: "policy", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off" });
  editor.value = policy.text;
  const about = h("p", {});
  const said = h("div", { role: "status", class: "said" });
  const button = (text, then, kind = null) => h("button", { type: "button", class: kind, on: { click: then } }, text);
  const previewPlace = h("div", {});
  const buttons = {
    check: button("Check", () => checked()),
    preview: button("Preview", () => begin({ text: editor.value })),
    apply: button("Put in force…", () => apply(), "main"),
    rollback: button("Roll back…", () => rollback()),
    undo: button("Undo edits", () => {
      editor.value = state.text;
      fill(said);
      settle();
    }, "quiet"),
  };
  const dialog = h("dialog", { class: "card", "aria-labelledby": "asked" });
  let busy = false;

  const settle = () => {
    const edited = editor.value !== state.text;
    buttons.undo.disabled = !edited;
    buttons.apply.disabled = busy || !edited || !state.applies;
    buttons.rollback.disabled = busy || !state.last_good || !state.applies;
    buttons.check.disabled = busy;
    fill(about, h("span", { class: "id" }, state.file), edited ? ", edited here" : state.applies ? ", as it is in force" : ", as it stands", state.applies ? "." : ". No gateway runs beside this, so that nothing can be put in force.", state.last_good ? ` Before it: that of ${moment(state.last_good.at_s)}.` : "");
  };
  const during = async (work) => {
    busy = true;
    settle();
    try {
      return await work();
    } catch (error) {
      if (signal.aborted) return null;
      const problems = error.body?.problems ?? [];
      fill(said, problems.length ? problemsOf(problems) : wrong(error.message));
      return null;
    } finally {
      busy = false;
      settle();
    }
  };
  const check = () => during(() => post("policy/check", { text: editor.value }, signal));
  const checked = async () => {
    const found = await check();
    if (found) fill(said, found.problems.length ? problemsOf(found.problems) : [h("p", { class: "good" }, found.changes.length ? "It can be put in force, and changes this:" : "It can be put in force, and changes nothing."), changesOf(found.changes)]);
    return found;
  };
  const apply = async () => {
    const found = await checked();
    if (!found || found.problems.length) return;
    if (!(await confirmed(dialog, "Put this in force?", [changesOf(found.changes) ?? h("p", {}, "It changes nothing but the text."), h("p", { class: "soft small" }, "Requests under way go on. What was in force can be taken back.")], "Put in force"))) return;
    const text = editor.value;
    const done = await during(() => post("policy/apply", { text, revision: state.revision }, signal));
    if (done) await applied(done, "It is in force.");
  };
  const rollback = async () => {
    if (!(await confirmed(dialog, "Take back the last change?", h("p", {}, `The configuration of ${moment(state.last_good.at_s)} is put in force again.`), "Roll back"))) return;
    const done = await during(() => post("policy/rollback", { revision: state.revision }, signal));
    if (done) await applied(done, "It was taken back.");
  };
  const applied = async (done, text) => {
    if (!done.applied) {
      fill(said, problemsOf(done.problems));
      return;
    }
    await during(async () => Object.assign(state, await get("policy", {}, signal)));
    editor.value = state.text;
    settle();
    fill(said, h("p", { class: "good" }, text), changesOf(done.changes));
  };
  const begin = follow("policy/preview", previewPlace, {
    signal,
    busy: (is) => (buttons.preview.disabled = is),
    nothing: () => empty("Nothing was previewed yet", "Preview plays the recorded requests with the edited policy, and with the one that was in force."),
    result: (result) => (result ? previewed(result) : wrong("It came to no result.")),
  });
  editor.addEventListener("input", settle);
  // A page that is left with edits would lose them unasked.
  const leaves = (event) => editor.value !== state.text && event.preventDefault();
  addEventListener("beforeunload", leaves);
  signal.addEventListener("abort", () => removeEventListener("beforeunload", leaves));
  fill(
    body,
    h("section", { class: "card" }, h("header", {}, h("h2", {}, h("label", { for: "policy" }, "Configuration")), about), editor, h("div", { class: "row foot" }, buttons.apply, buttons.check, buttons.preview, buttons.undo, h("span", { class: "push" }), buttons.rollback), said),
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "Preview on recorded traffic")), previewPlace),
    dialog,
  );
  settle();
}

function problemsOf(problems) {
  return [
    h("p", { class: "bad" }, "It cannot be put in force:"),
    h("ul", { class: "problems" }, problems.map((one) => h("li", {}, h("code", {}, one.path || "file"), " ", one.message, h("div", { class: "soft small" }, one.remedy)))),
  ];
}

/** Settings as they were and as they would be; nothing where none differ. */
export function changesOf(changes) {
  if (!changes?.length) return null;
  return table(["Setting", "Before", "After", "In force"], changes.map((one) => [h("code", {}, one.path), plainly(one.before), plainly(one.after), one.at_restart ? "at restart" : "at once"]), "Changes");
}

const plainly = (value) => (value === null || value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));

/** Ask, and say whether that was agreed to. */
function confirmed(dialog, title, text, yes) {
  return new Promise((resolve) => {
    const answer = (is) => {
      dialog.onclose = null;
      dialog.close();
      resolve(is);
    };
    fill(
      dialog,
      h("h2", { id: "asked" }, title),
      h("div", { class: "asked" }, text),
      h("div", { class: "row foot" }, h("button", { type: "button", class: "main", on: { click: () => answer(true) } }, yes), h("button", { type: "button", on: { click: () => answer(false) } }, "Cancel")),
    );
    dialog.onclose = () => resolve(false);
    dialog.showModal();
  });
}
