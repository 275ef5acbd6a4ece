// Who uses the console, and what they may do.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Api } from "./api";

export interface Me {
  kind: string;
  name: string;
  email: string | null;
  tenant: string;
  role: "owner" | "admin" | "developer" | "viewer";
  permissions: string[];
  memberships: { tenant: string; role: string }[];
  csrf_token: string | null;
}

export interface Session {
  api: Api;
  me: Me;
  /** Whether the API would accept this: what it would refuse is not shown. */
  can: (permission: string) => boolean;
}

/** What both consoles share asks this for the API; a page of a tenant has it from its session. */
export const ApiContext = createContext<Api | null>(null);

export function useApi(): Api {
  const api = useContext(ApiContext);
  if (!api) throw new Error("this page needs the API");
  return api;
}

export const SessionContext = createContext<Session | null>(null);

export function useSession(): Session {
  const session = useContext(SessionContext);
  if (!session) throw new Error("this page needs a session");
  return session;
}
