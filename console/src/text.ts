// How values are written for people. What programs wrote is text and nothing else: characters that
// would move, hide or reorder other text are shown, not obeyed.

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f]/g;
// C1 controls, and what reorders text (UAX 9; CVE-2021-42574) or is not drawn at all (UAX 44,
// Default_Ignorable_Code_Point). What asks for the coloured or the plain form of a sign may follow it.
const HIDDEN =
  /[\u0080-\u009f\u2028\u2029]|(?![\ufe0e\ufe0f])[\p{Cf}\p{DI}]|(?<!\p{Extended_Pictographic})[\ufe0e\ufe0f]/gu;

/** Text of unknown origin, such as output or a file's content, with lines as they are. */
export function plain(text: string): string {
  return text
    .replace(/\r\n/g, "\n")
    .replace(CONTROL, (each) =>
      each === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + each.charCodeAt(0)),
    )
    .replace(HIDDEN, (each) => {
      const number = each.codePointAt(0) ?? 0;
      return `⟨U+${number.toString(16).toUpperCase().padStart(4, "0")}⟩`;
    });
}

/** A name of unknown origin, on one line. */
export function inline(text: string): string {
  return plain(text).replace(/\n/g, "\u240a").replace(/\t/g, "\u2409");
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count: number | null | undefined): string {
  if (count == null) return "–";
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

export function seconds(value: number | null | undefined): string {
  if (value == null) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function between(from: string | null, to: string | null): string {
  if (!from) return "–";
  const end = to ? Date.parse(to) : Date.now();
  return seconds(Math.max(0, end - Date.parse(from)) / 1000);
}

export function count(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: 1 });
}

/** An id in tables: random ids differ at their end, for they begin with the time (RFC 9562). */
export function short(id: string): string {
  return id.length > 12 ? `…${id.slice(-12)}` : id;
}

export function words(name: string): string {
  return name.replace(/_/g, " ");
}
