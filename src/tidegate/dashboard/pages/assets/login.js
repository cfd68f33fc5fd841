// The door: the key is sent once, and what comes back is a session.

import { Failed, get, post } from "./api.js";

const form = document.getElementById("form");
const key = document.getElementById("key");
const said = document.getElementById("said");
const button = form.querySelector("button");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  said.textContent = "";
  try {
    await post("/login", { key: key.value });
    localStorage.setItem("tidegate-in", "1");
    goOn();
  } catch (error) {
    said.textContent = error instanceof Failed ? error.message : "This page has a bug; the browser's console tells more.";
    if (!(error instanceof Failed)) console.error(error);
    key.select();
    key.focus();
  } finally {
    button.disabled = false;
  }
});
// Until here, a browser would have sent the form itself, whose answer is no page.
button.disabled = false;
key.focus();
// Who follows a link from elsewhere comes without his cookie (SameSite=Strict), which goes with what is asked from here.
if (localStorage.getItem("tidegate-in") !== null) get("reasons").then(goOn, () => null);

/** To the page that was asked for, whose fragment a browser takes along to the door. The way back does not lead here. */
function goOn() {
  const to = new URLSearchParams(location.search).get("to") || location.hash;
  // Only to a page of ours, whatever the address says.
  location.replace(to.startsWith("#/") ? `/${to}` : "/");
}
