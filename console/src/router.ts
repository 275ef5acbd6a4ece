// Where the console is: the part of the address behind `#`, so the server has only one page.
import { useEffect, useState } from "preact/hooks";

export interface Place {
  parts: string[];
  query: URLSearchParams;
}

export function parse(hash: string): Place {
  const [where = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { parts: where.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function link(...parts: (string | number)[]): string {
  return `#/${parts.map((each) => encodeURIComponent(each)).join("/")}`;
}

export function go(address: string): void {
  location.hash = address;
}

export function usePlace(): Place {
  const [place, setPlace] = useState(() => parse(location.hash));
  useEffect(() => {
    const follow = (): void => setPlace(parse(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return place;
}
