// Local and remote: one mark and one colour each, wherever something goes.

import { h } from "./dom.js";

const WORDS = { local: "local", remote: "remote" };

/** An endpoint by name, with the mark of its side. */
export function side(name, tier) {
  return h("span", { class: `side ${WORDS[tier] ?? ""}`, title: WORDS[tier] ?? null }, name);
}

/** Of the handover that a plan or a flip names, who computes and who decodes: `["gpu", "laptop"]`. */
export function ends(name) {
  return name.split(">").map((part) => part.trim());
}
