// Tables: scrolled by themselves where they are wide, so that a page never is.

import { h } from "./dom.js";

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

/** What may be wider than the page. */
export function scroll(label, ...children) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label || "Table" }, children);
}
