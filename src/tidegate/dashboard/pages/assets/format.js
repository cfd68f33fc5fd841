// Numbers for people. Two digits that count, three where they are compared; a minus that is one; nothing is rounded to naught.

const MINUS = "\u2212";
const NONE = "\u2013";
// A number and its unit stay on one line.
const NB = "\u00a0";
// What is less is no more than that it is something.
const LEAST_USD = 0.00001;
const DAY_S = 86_400;
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const set = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 6 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hours = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// What is more than so much is, below nothing, less than that.
const MIRRORED = { "< ": "> ", "> ": "< ", "": "" };

const unknown = (value) => value === null || value === undefined || Number.isNaN(value);
const signed = (value, said) => (value < 0 ? MINUS + said : said);

/** Dollars: $0, $0.0012, $0.12, $12.30, $1,230. Cents are cents, and what is less has so many `digits` that count. */
export function usd(value, digits = 2) {
  if (unknown(value)) return NONE;
  const size = Math.abs(value);
  if (size < 1e-9) return "$0";
  if (size < LEAST_USD && digits <= 2) return `${value < 0 ? `> ${MINUS}` : "< "}$0.00001`;
  if (size >= 1000) return signed(value, `$${whole.format(size)}`);
  if (size >= 0.1 && digits <= 2) return signed(value, `$${size.toFixed(2)}`);
  return signed(value, `$${size >= 10 ? size.toFixed(2) : plain(size, digits)}`);
}

/** Dollars as somebody has set them: $0.375, $3.00, $0; with all digits, and cents at least. */
export function usdSet(value) {
  return unknown(value) || value === 0 ? usd(value) : `$${set.format(value)}`;
}

/** Dollars at an axis: $4, $0.5. */
export function usdRound(value) {
  return value < 0 ? `${MINUS}$${plain(-value, 3)}` : `$${plain(value, 3)}`;
}

/** Dollars with a sign, of what adds up. */
export function usdSigned(value, digits = 2) {
  return value > 1e-9 ? `+${usd(value, digits)}` : usd(value, digits);
}

/** A duration: 14 ms, 0.69 s, 1.2 s, 24 s, 3 min 20 s. */
export function seconds(value) {
  if (unknown(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return `0${NB}s`;
  if (size < 0.1) return signed(value, `${plain(size * 1000, 2)}${NB}ms`);
  if (size < 1) return signed(value, `${size.toFixed(2)}${NB}s`);
  if (size < 9.95) return signed(value, `${size.toFixed(1)}${NB}s`);
  if (size < 99.5) return signed(value, `${size.toFixed(0)}${NB}s`);
  if (size < 3600) return signed(value, `${Math.floor(Math.round(size) / 60)}${NB}min${Math.round(size) % 60 ? `${NB}${Math.round(size) % 60}${NB}s` : ""}`);
  return signed(value, `${(size / 3600).toFixed(1)}${NB}h`);
}

/** A count: 983, 12,300, 1.2 M. */
export function count(value) {
  if (unknown(value)) return NONE;
  return value >= 1e6 ? `${plain(value / 1e6, 3)}${NB}M` : whole.format(value);
}

/** A count that is short of room: 983, 12k, 1.2M. */
export function short(value) {
  if (unknown(value)) return NONE;
  if (value >= 1e6) return `${plain(value / 1e6, 2)}M`;
  return value >= 1e3 ? `${plain(value / 1e3, value >= 1e4 ? 3 : 2)}k` : `${Math.round(value)}`;
}

/** A share: 97%, 99.2%, of what may be more than all 250%, or less than nothing −3%; all and nothing only where it is all or nothing. */
export function share(value) {
  if (unknown(value)) return NONE;
  if (value < 0) return share(-value).replace(/^(?:[<>] )?/, (bound) => MIRRORED[bound] + MINUS);
  if (value === 1 || value === 0) return `${value * 100}%`;
  const percent = value * 100;
  if (percent > 100) return percent < 101 ? "> 100%" : `${whole.format(percent)}%`;
  const digits = percent > 95 || percent < 1 ? 1 : 0;
  if (percent > 99.9) return "> 99.9%";
  return percent < 0.1 ? "< 0.1%" : `${percent.toFixed(digits)}%`;
}

/** Bytes: 12 kB, 3.4 MB. */
export function bytes(value) {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return `${plain(value / size, 3)}${NB}${unit}`;
  }
  return `${Math.round(value)}${NB}B`;
}

/** Digits that count, never in powers of ten. */
export function plain(value, digits) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= digits) return whole.format(value);
  const fixed = value.toFixed(Math.min(12, Math.max(0, digits - 1 - size)));
  return fixed.includes(".") ? fixed.replace(/\.?0+$/, "") : fixed;
}

/** When, as this browser's clock has it; the day only where it is not `nowS`'s. */
export function moment(atS, nowS) {
  if (unknown(atS)) return NONE;
  const date = new Date(atS * 1000);
  const today = nowS !== undefined && new Date(nowS * 1000).toDateString() === date.toDateString();
  return today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** The same in hours and minutes, for an axis of that width: with the day where it has more than one, which stands alone at midnight. */
export function tick(atS, widthS) {
  const date = new Date(atS * 1000);
  const said = hours.format(date);
  if (widthS <= DAY_S) return said;
  return said === "00:00" ? day.format(date) : `${day.format(date)}, ${said}`;
}

/** From when to when, in hours and minutes, of an axis of that width. */
export function between(fromS, toS, widthS) {
  const [from, to] = [fromS, toS].map((atS) => new Date(atS * 1000));
  const days = widthS > DAY_S;
  const until = days && from.toDateString() !== to.toDateString() ? `${day.format(to)}, ` : "";
  return `${days ? `${day.format(from)}, ` : ""}${hours.format(from)} to ${until}${hours.format(to)}`;
}

/** One or many. */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}
