// Asks the gateway. What goes wrong becomes one kind of error that says whether asking again may help.

const BASE = "/api/dashboard/";
const MARK = { "x-tidegate-dashboard": "1" };

/** Whether a session is over, so that this page is on its way to the door. */
export let atDoor = false;

/** What was asked for is not to be had: `message` is for people, `again` whether it may be there after `afterS`. */
export class Failed extends Error {
  constructor(message, { status = 0, again = false, afterS = 3 } = {}) {
    super(message);
    this.status = status;
    this.again = again;
    this.afterS = afterS;
  }
}

/** GET, with these parameters where they are anything. */
export function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return ask(BASE + path + (query.size ? `?${query}` : ""), { signal });
}

/** POST, with the mark that no form of another site can set. */
export function post(path, body = {}, signal = undefined) {
  return ask(path.startsWith("/") ? path : BASE + path, {
    method: "POST",
    headers: { ...MARK, "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

let leaving = false;

/** Whether the session is being ended: what is still under way then is refused, and must not lead to the door, where somebody may be typing by the time. */
export function leaves(is) {
  leaving = is;
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed("The gateway does not answer.", { again: true });
  }
  if (answer.ok) return answer.status === 204 ? null : said(answer);
  if (answer.status === 401 && !leaving && location.pathname !== "/login") {
    atDoor = true;
    location.assign(`/login?to=${encodeURIComponent(location.hash)}`);
  }
  const body = await answer.json().catch(() => null);
  const message = body?.error?.message ?? body?.problems?.[0]?.message ?? `It answered with status ${answer.status}.`;
  const afterS = Math.min(30, Math.max(1, Number(answer.headers.get("retry-after")) || 3));
  const failed = new Failed(message, { status: answer.status, again: [502, 503, 504].includes(answer.status), afterS });
  failed.body = body;
  throw failed;
}

async function said(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed("The answer broke off.", { again: true });
  }
}
