// Tables: scrolled by themselves where they are wide, so that a page never is.

import { arrange, fill, h } from "./dom.js";

/** A table. Columns are `[name, "num"]` or names; the first cell of a row names it. */
export function table(columns, rows, caption = "") {
  const heads = columns.map((column) => (Array.isArray(column) ? column : [column, ""]));
  return scroll(
    caption,
    h(
      "table",
      {},
      caption ? h("caption", { class: "unseen" }, caption) : null,
      h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h("th", { scope: "col", class: kind || null }, name)))),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h("tr", {}, row.map((cell, index) => (index ? h("td", { class: heads[index][1] || null }, cell) : h("th", { scope: "row" }, cell)))),
        ),
      ),
    ),
  );
}

/** Show in `place` what `made` has, a table in its box. One that is there already stays, with its rows that say the same. */
export function renew(place, made) {
  const old = place.querySelector("table");
  if (old === null) {
    fill(place, made);
    return;
  }
  const next = made.querySelector("table");
  if (!old.tHead.isEqualNode(next.tHead)) old.tHead.replaceWith(next.tHead);
  const known = [...old.tBodies[0].rows];
  const rows = [...next.tBodies[0].rows].map((row) => {
    const at = known.findIndex((one) => one.isEqualNode(row));
    return at < 0 ? row : known.splice(at, 1)[0];
  });
  arrange(old.tBodies[0], rows);
}

/** What may be wider than the page. */
export function scroll(label, ...children) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label || "Table" }, children);
}
