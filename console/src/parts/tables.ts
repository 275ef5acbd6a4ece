// Comma- and tab-separated values (RFC 4180), as far as a page shows them.

const MOST_ROWS = 200;
const MOST_COLUMNS = 50;

export interface Read {
  head: string[];
  rows: string[][];
  more: number;
}

export function read(text: string, kind: "csv" | "tsv"): Read {
  const all = lines(text, kind === "csv" ? "," : "\t");
  const [head = [], ...rows] = all;
  return {
    head: head.slice(0, MOST_COLUMNS),
    rows: rows.slice(0, MOST_ROWS).map((each) => each.slice(0, MOST_COLUMNS)),
    more: Math.max(0, rows.length - MOST_ROWS),
  };
}

function lines(text: string, separator: string): string[][] {
  const found: string[][] = [];
  let row: string[] = [];
  let cell = "";
  let quoted = false;
  const endCell = (): void => {
    row.push(cell);
    cell = "";
  };
  const endRow = (): void => {
    endCell();
    found.push(row);
    row = [];
  };
  for (let at = 0; at < text.length; at += 1) {
    const each = text.charAt(at);
    if (quoted) {
      if (each !== '"') cell += each;
      else if (text.charAt(at + 1) === '"') {
        cell += each;
        at += 1;
      } else quoted = false;
    } else if (each === '"' && cell === "") quoted = true;
    else if (each === separator) endCell();
    else if (each === "\n") endRow();
    else if (each !== "\r") cell += each;
  }
  if (cell || row.length) endRow();
  return found;
}
