// Of a journal that is read for the first time: how far that is, and when it is over.

import { get } from "./api.js";
import { share } from "./format.js";

const AGAIN_MS = 2000;

/** How much has been read, in a sentence; nothing of all. */
export function readSoFar(indexedShare) {
  return indexedShare < 1 ? `Of the journal ${share(indexedShare)} has been read so far.` : "";
}

/** Say so in `place` as long as it is so, and call `whole` when it is over; until `signal`. */
export async function reading(place, whole, signal) {
  for (let waited = false; !signal.aborted; waited = true) {
    // Why there is none the page says already.
    const summary = await get("summary", {}, signal).catch(() => null);
    if (signal.aborted) return;
    if (summary !== null) place.textContent = readSoFar(summary.indexed_share);
    if (summary?.indexed_share >= 1) {
      if (waited) whole();
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
