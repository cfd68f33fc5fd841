// The page around all pages: which one is shown, and what is told beside it.

import { fill, h } from "./dom.js";
import { onState } from "./live.js";
import { leaves, post } from "./api.js";
import { wrong } from "./panel.js";
import { switches } from "./theme.js";
import * as audit from "./pages/audit.js";
import * as decision from "./pages/decision.js";
import * as endpoints from "./pages/endpoints.js";
import * as overview from "./pages/overview.js";
import * as policy from "./pages/policy.js";
import * as requests from "./pages/requests.js";
import * as surface from "./pages/surface.js";

const PAGES = {
  overview: { title: "Overview", show: overview.show },
  requests: { title: "Requests", show: requests.show },
  endpoints: { title: "Endpoints", show: endpoints.show },
  surface: { title: "Break-even", show: surface.show },
  policy: { title: "Policy", show: policy.show },
  audit: { title: "Audit", show: audit.show },
};
const ASKED = "Not live; looks every 3 s";
const STATES = {
  gateway: { live: "Live", asked: ASKED, gone: "Gateway gone; trying again", off: "" },
  journal: { live: "Journal", asked: ASKED, gone: "Dashboard gone; trying again", off: "" },
};

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const links = new Map();
let controller = null;
let first = true;

fill(
  nav,
  h("ul", {}, Object.entries(PAGES).map(([name, page]) => {
    const link = h("a", { href: `#/${name}` }, page.title);
    links.set(name, link);
    return h("li", {}, link);
  })),
);
switches(document.getElementById("theme"));
onState((is, mode) => {
  const state = document.getElementById("state");
  state.dataset.is = is;
  state.textContent = STATES[mode][is];
});
document.getElementById("skip").addEventListener("click", (event) => {
  // The address says which page this is; a fragment of its own would lead away from it.
  event.preventDefault();
  main.focus();
});
const logout = document.getElementById("logout");
logout.hidden = localStorage.getItem("tidegate-in") === null;
let refused = null;
logout.addEventListener("click", async () => {
  refused?.remove();
  leaves(true);
  try {
    await post("/logout");
  } catch (error) {
    // A session that is over needs no end.
    if (error.status !== 401) {
      leaves(false);
      refused = h("div", { class: "top" }, wrong(`You may still be logged in. ${error.message}`));
      main.prepend(refused);
      refused.scrollIntoView({ block: "nearest" });
      return;
    }
  }
  localStorage.removeItem("tidegate-in");
  // Who comes next to this window is not shown what was edited.
  sessionStorage.clear();
  location.assign("/login");
});
addEventListener("hashchange", go);
go();

function go() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  const page = PAGES[name] ? name : "overview";
  const id = page === "requests" && rest.length && rest[0] !== "" ? rest.join("/") : null;

  controller?.abort();
  controller = new AbortController();
  for (const [one, link] of links) {
    if (one === page) link.setAttribute("aria-current", id === null ? "page" : "true");
    else link.removeAttribute("aria-current");
  }
  // By hand: what scrolls a link into view makes the keyboard go on from there.
  nav.scrollLeft = links.get(page).offsetLeft - nav.clientWidth / 3;
  document.title = `${id === null ? PAGES[page].title : id} · Tidegate`;
  fill(main);
  const parameters = Object.fromEntries(new URLSearchParams(query));
  if (id === null) PAGES[page].show(main, parameters, controller.signal);
  else decision.show(main, id, controller.signal);
  if (!first) {
    scrollTo(0, 0);
    const title = main.querySelector("h1");
    title?.setAttribute("tabindex", "-1");
    title?.focus({ preventScroll: true });
  }
  first = false;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
