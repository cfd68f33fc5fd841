// Light, dark, or as the system has it; and the colours of both, for what is drawn on a canvas.

const KEY = "tidegate-theme";
const NAMES = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };
const ORDER = Object.keys(NAMES);
const listeners = new Set();
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Make this button switch. */
export function switches(button) {
  const show = () => (button.textContent = NAMES[chosen()]);
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(chosen()) + 1) % ORDER.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    localStorage.setItem(KEY, next);
    show();
    changed();
  });
  dark.addEventListener("change", changed);
  show();
}

/** Call this whenever colours have changed, until `signal`. */
export function onChange(listener, signal) {
  listeners.add(listener);
  signal.addEventListener("abort", () => listeners.delete(listener));
}

/** What a token of the style sheet is now, as a canvas understands it. */
export function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const chosen = () => document.documentElement.dataset.theme ?? "auto";
const changed = () => listeners.forEach((listener) => listener());
