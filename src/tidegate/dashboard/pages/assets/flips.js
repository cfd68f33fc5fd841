// The least that would have made a decision another one, as sentences.

import { bytes, count, plain, seconds, usd } from "./format.js";
import { ends } from "./sides.js";

const SMALL = 1e-6;
const DIGITS = 3;

// By axis: what would have had to be otherwise (`said` of a rounded number, and whether that is more), and what it was.
const AXES = {
  prompt_tokens: {
    said: (at, more) => ["its prompt had been ", `${count(at)} tokens or ${more ? "longer" : "shorter"}`],
    now: (now) => `estimated at ${count(now)}`,
    round: (value) => value,
  },
  ttft_s: limit("its first token had been promised within "),
  tpot_s: limit("each token had been promised within "),
  e2e_s: limit("its whole answer had been promised within "),
  worth: {
    said: (at, more) => ["keeping the promise had been worth ", `${times(at)} as much, or ${more ? "more" : "less"}`],
    now: () => "",
  },
  in_flight: {
    said: (at, more, endpoint) => [`at ${endpoint} `, `${count(at)} or ${more ? "more" : "fewer"}`, " requests had been under way"],
    now: (now) => `there were ${count(now)}`,
    round: (value) => value,
  },
  price: {
    said: (at, more, endpoint) => [`tokens at ${endpoint} had cost `, `${times(at)} as much, or ${more ? "more" : "less"}`],
    now: () => "",
  },
  usd_per_s: {
    said: (at, more, endpoint) => [`running ${endpoint} had cost `, `${usd(at, DIGITS)} an hour or ${more ? "more" : "less"}`],
    now: (now) => (now ? `it costs ${usd(now * 3600, DIGITS)}` : "it costs nothing"),
    factor: 3600,
  },
  rtt_s: {
    said: (at, more, endpoint) => [`the round trip to ${endpoint} had taken `, `${exact(at)} or ${more ? "longer" : "less"}`],
    now: (now) => `it takes ${seconds(now)}`,
  },
  upload_bytes_per_s: {
    said: (at, more, endpoint) => [`the upload to ${endpoint} had carried `, `${bytes(at)}/s or ${more ? "more" : "less"}`],
    now: (now) => `it carries ${bytes(now)}/s`,
  },
};

function limit(what) {
  return {
    said: (at, more) => [what, `${exact(at)} or ${more ? "more" : "less"}`],
    now: (now) => `it is ${seconds(now)}`,
  };
}

/**
 * Flips, nearest first, by where the request would have gone: `[{ goesTo, waits, tier, flips: [{ said, now }] }]`.
 *
 * `tierOf(endpoint)` is the side of one. Of `said`, every second part is what counts. A handover has the side `both`.
 */
export function grouped(flips, tierOf) {
  const groups = new Map();
  for (const flip of [...flips].sort((one, other) => distance(one) - distance(other))) {
    const goesTo = flip.goes_to ?? "";
    const id = JSON.stringify([goesTo, Boolean(flip.waits)]);
    if (!groups.has(id)) groups.set(id, { goesTo, waits: Boolean(flip.waits), tier: sideOf(goesTo, tierOf), flips: [] });
    groups.get(id).flips.push(sentence(flip));
  }
  return [...groups.values()];
}

function sideOf(goesTo, tierOf) {
  if (!goesTo) return null;
  return ends(goesTo).length > 1 ? "both" : (tierOf(goesTo) ?? null);
}

function sentence(flip) {
  const axis = AXES[flip.axis];
  const more = flip.at > flip.now;
  if (!axis) return { said: [`${flip.axis} had been `, plain(flip.at, 4)], now: `it is ${plain(flip.now, 4)}` };
  const at = (axis.round ?? away)(flip.at * (axis.factor ?? 1), more);
  return { said: axis.said(at, more, flip.endpoint ?? ""), now: axis.now(flip.now) };
}

const distance = (flip) => Math.abs(Math.log((flip.at + SMALL) / (flip.now + SMALL)));

/** So many digits, rounded away from where it stands: what is shown flips, too. */
function away(value, more) {
  if (value === 0) return 0;
  const size = 10 ** (Math.floor(Math.log10(Math.abs(value))) + 1 - DIGITS);
  const digits = value / size;
  const near = Math.abs(digits - Math.round(digits)) < 1e-9 ? Math.round(digits) : more ? Math.ceil(digits) : Math.floor(digits);
  return near * size;
}

const exact = (value) => (value < 0.1 ? `${plain(value * 1000, DIGITS)} ms` : `${plain(value, DIGITS)} s`);
const times = (factor) => `${plain(factor, DIGITS)} times`;
