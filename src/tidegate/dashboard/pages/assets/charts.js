// Charts: drawn by ECharts on a canvas, and told as a table to who does not see them.

import { h } from "./dom.js";
import { colour, onChange } from "./theme.js";
import { renew, table } from "./table.js";

const MOTION = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const FONT = '"Inter", system-ui, sans-serif';

/**
 * A chart. `option(colours)` makes what ECharts takes, with `colours` by token; `label` says in a sentence what it shows.
 *
 * `draw()` draws it with what `option` says now, once it is on the page; `tell(columns, rows)` puts its table. What its colours mean is `key`.
 */
export function chart({ label, option, signal, key = null, tall = false }) {
  const canvas = h("div", { class: tall ? "chart tall" : "chart", role: "img", "aria-label": label });
  const told = h("div", {});
  const more = h("details", { class: "more" }, h("summary", {}, "As a table"), told);
  const element = h("figure", {}, canvas, key, more);
  let drawn = null;
  let begun = false;

  const redraw = () => {
    if (drawn === null || signal.aborted) return;
    drawn.setOption({ ...base(), ...option(colour) }, { notMerge: true });
  };
  const draw = async () => {
    if (begun) {
      redraw();
      return;
    }
    begun = true;
    // Letters that come late would be drawn in another font than they are measured in.
    await document.fonts.load(`13px "Inter"`).catch(() => null);
    if (signal.aborted || !canvas.isConnected) return;
    drawn = globalThis.echarts.init(canvas, null, { renderer: "canvas" });
    redraw();
    const watch = new ResizeObserver(() => drawn.resize());
    watch.observe(canvas);
    signal.addEventListener("abort", () => {
      watch.disconnect();
      drawn.dispose();
      drawn = null;
    });
  };
  onChange(redraw, signal);
  return {
    element,
    canvas,
    draw,
    tell: (columns, rows, caption) => renew(told, table(columns, rows, caption)),
  };
}

function base() {
  return {
    animation: MOTION,
    animationDuration: 250,
    animationDurationUpdate: 350,
    textStyle: { fontFamily: FONT, fontSize: 12, color: colour("soft") },
    tooltip: tooltip(),
  };
}

/** What is shown where one points. Drawn as well, so that no style is written into the page. */
export function tooltip(more = {}) {
  return {
    renderMode: "richText",
    confine: true,
    backgroundColor: colour("card"),
    borderColor: colour("edge"),
    borderWidth: 1,
    padding: [8, 12],
    textStyle: { fontFamily: FONT, fontSize: 12.5, lineHeight: 19, color: colour("ink") },
    axisPointer: { lineStyle: { color: colour("edge"), type: "solid" } },
    ...more,
  };
}

/** An axis without what says nothing. */
export function axis(more = {}) {
  const { axisLabel, ...rest } = more;
  return {
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: colour("soft"), fontFamily: FONT, fontSize: 12, hideOverlap: true, ...axisLabel },
    nameTextStyle: { color: colour("soft"), fontFamily: FONT, fontSize: 12 },
    splitLine: { lineStyle: { color: colour("rule") } },
    ...rest,
  };
}
