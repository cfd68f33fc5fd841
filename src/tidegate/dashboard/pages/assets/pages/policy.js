// The policy: edited, checked, tried on the past, put in force, and taken back.

import { atDoor, get, post } from "../api.js";
import { fill, h } from "../dom.js";
import { moment } from "../format.js";
import { follow } from "../job.js";
import { empty, load, waiting, wrong } from "../panel.js";
import { previewed } from "../previewed.js";
import { table } from "../table.js";

const KEPT = "tidegate-policy-";
// What was edited, of which revision, and what was previewed, as which: so that coming back to the page, also by way of the door, shows it; null without.
let draft = recalled("draft");
let tried = recalled("tried");
// Whoever leaves the dashboard with edits would lose them unasked, unless he comes back after having logged in.
addEventListener("beforeunload", (event) => draft && !atDoor && event.preventDefault());

function recalled(name) {
  return JSON.parse(sessionStorage.getItem(KEPT + name));
}

/** For this window alone, until it is closed. */
function keep(name, value) {
  if (value === null) sessionStorage.removeItem(KEPT + name);
  else sessionStorage.setItem(KEPT + name, JSON.stringify(value));
}

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
  const state = {};
  const editor = h("textarea", { class: "editor", id: "policy", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off" });
  const about = h("p", {});
  const said = h("div", { role: "status", class: "said" });
  const button = (text, then, kind = null) => h("button", { type: "button", class: kind, on: { click: then } }, text);
  const previewPlace = h("div", {});
  const ofAnother = h("p", { class: "bad", hidden: true }, "It is of another text than what stands in the editor.");
  const buttons = {
    check: button("Check", () => checked(written())),
    preview: button("Preview", () => preview()),
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
  let job = null;

  const isEdited = () => editor.value !== state.text;
  /** An editor has line ends of its own: what is sent has those of the file. */
  const written = () => (isEdited() ? editor.value.replaceAll("\n", state.ends) : state.sent);
  /** The revision of what stands in the editor, null where nobody has told it. */
  const revision = () => (!isEdited() ? state.revision : tried?.text === written() ? tried.revision : null);
  /** Go on with the file as it is now; edits stay where `kept` has them. */
  const take = (now, kept = null) => {
    editor.value = now.text;
    Object.assign(state, now, { text: editor.value, sent: now.text, ends: now.text.includes("\r\n") ? "\r\n" : "\n" });
    if (kept !== null) editor.value = kept;
    settle();
  };
  const settle = () => {
    // What is left behind says nothing of the draft any more.
    if (signal.aborted) return;
    const edited = isEdited();
    draft = edited ? { revision: state.revision, text: editor.value } : null;
    keep("draft", draft);
    ofAnother.hidden = !job?.revision || job.revision === revision();
    buttons.undo.disabled = !edited;
    buttons.apply.disabled = busy || !state.applies || (!edited && state.in_force);
    buttons.rollback.disabled = busy || !state.last_good || !state.applies;
    buttons.check.disabled = busy;
    fill(about, h("span", { class: "id" }, state.file), edited ? ", edited here" : !state.applies ? ", as it stands" : state.in_force ? ", as it is in force" : ", as it stands; the gateway has not loaded it", state.applies ? "." : ". No gateway runs beside this, so that nothing can be put in force.", state.last_good ? ` Before it: what was in force until ${moment(state.last_good.at_s)}.` : "");
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
  const check = (text) => during(() => post("policy/check", { text }, signal));
  const checked = async (text) => {
    const found = await check(text);
    if (found) fill(said, found.problems.length ? problemsOf(found.problems) : [h("p", { class: "good" }, !found.changes ? "It can be put in force. The file as it stands is broken: what that changes is told then." : found.changes.length ? `It can be put in force, and changes this${ofFile()}:` : `It can be put in force, and changes nothing${ofFile()}.`), changesOf(found.changes)]);
    return found;
  };
  // What is compared with is the file, which may be another than what is in force.
  const ofFile = () => (state.applies && !state.in_force ? " of the file, which the gateway has not loaded" : "");
  /** The file has become another since it was edited: say so, and what the edits change of it now. */
  const moved = async () => {
    const found = await check(written());
    if (!found) return;
    fill(said, h("p", { class: "bad" }, "The file has been changed meanwhile. Your edits are kept; here is what they change of it as it is now. Undo edits shows it."), found.problems.length ? problemsOf(found.problems) : changesOf(found.changes) ?? h("p", {}, found.changes ? "Nothing but the text." : "It is broken, so that nobody can say."));
  };
  const apply = async () => {
    // What is checked, and agreed to, is what is sent: whoever types meanwhile has that before him afterwards.
    const [value, text, edited] = [editor.value, written(), isEdited()];
    const found = await checked(text);
    if (!found || found.problems.length) return;
    if (!(await confirmed(dialog, "Put this in force?", [changesOf(found.changes) ?? h("p", {}, !edited ? "The file is put in force as it stands. What that changes is told then." : found.changes ? `It changes nothing but the text${ofFile()}.` : "The file as it stands is broken. What that changes is told then."), h("p", { class: "soft small" }, `Requests under way go on. ${state.in_force ? "What was in force can be taken back." : "What is in force now is in no file, so that it cannot be taken back."}`)], "Put in force"))) return;
    await change("policy/apply", { text }, value, "It is in force.");
  };
  const rollback = async () => {
    // What is agreed to is what is gone back to: others may have put something else in its place.
    const good = state.last_good;
    const lost = isEdited() ? h("p", { class: "bad" }, "What you have edited here is in no file, and is lost by that.") : null;
    if (!(await confirmed(dialog, "Take back the last change?", [h("p", {}, `What was in force until ${moment(good.at_s)} is put in force again.`), lost], "Roll back"))) return;
    await change("policy/rollback", { to: good.revision }, editor.value, "It was taken back.");
  };
  /** Have the file changed, and go on with what it is then; the editor with what was typed since it had this `value`. */
  const change = async (path, body, value, text) => {
    const seen = state.revision;
    const done = await during(async () => {
      let done;
      try {
        done = await post(path, { ...body, revision: seen }, signal);
      } catch (error) {
        // Refused where the file is another by now: that is what one goes on from.
        if (error.status === 409) take(await get("policy", {}, signal), isEdited() ? editor.value : null);
        throw error;
      }
      const place = h("div", {});
      fill(said, h("p", { class: "good" }, text), changesOf(done.changes), place);
      // It is done, however long it takes until somebody tells what the file is now.
      await load(place, (ended) => get("policy", {}, ended), (now) => {
        fill(place);
        take(now, editor.value === value ? null : editor.value);
      }, signal);
      return done;
    });
    if (!done && state.revision !== seen && isEdited()) await moved();
  };
  const preview = async () => {
    const text = written();
    const begun = await begin({ text });
    if (begun === null) return;
    tried = { revision: begun.revision, text };
    keep("tried", tried);
    settle();
  };
  const begin = follow("policy/preview", previewPlace, {
    signal,
    seen: (now) => {
      job = now;
      settle();
    },
    busy: (is) => (buttons.preview.disabled = is),
    nothing: () => empty("Nothing was previewed yet", "Preview plays the recorded requests with the edited policy, and with the one that was in force."),
    result: (result) => (result ? previewed(result) : wrong("It came to no result.")),
  });
  editor.addEventListener("input", settle);
  fill(
    body,
    h("section", { class: "card" }, h("header", {}, h("h2", {}, h("label", { for: "policy" }, "Configuration")), about), editor, h("div", { class: "row foot" }, buttons.apply, buttons.check, buttons.preview, buttons.undo, h("span", { class: "push" }), buttons.rollback), said),
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "Preview on recorded traffic")), ofAnother, previewPlace),
    dialog,
  );
  const kept = draft;
  take(policy, kept?.text);
  if (kept !== null && kept.revision !== policy.revision && isEdited()) moved();
}

function problemsOf(problems) {
  return [
    h("p", { class: "bad" }, "It cannot be put in force:"),
    h("ul", { class: "problems" }, problems.map((one) => h("li", {}, h("code", {}, one.path || "file"), " ", one.message, h("div", { class: "soft small" }, one.remedy)))),
  ];
}

/** Settings as they were and as they would be, in force unless they were not `applied`; nothing where none differ. */
export function changesOf(changes, applied = true) {
  if (!changes?.length) return null;
  const when = (one) => (!applied ? "no" : one.at_restart ? "at restart" : "at once");
  return table(["Setting", "Before", "After", "In force"], changes.map((one) => [h("code", {}, one.path), plainly(one.before), plainly(one.after), when(one)]), "Changes");
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
