// What the API answers, as far as pages read it. The whole is at `/docs`.

export interface Artifact {
  path: string;
  size: number;
  sha256: string;
  media_type: string;
}

export interface Result {
  reason: string;
  detail: string;
  exit_code: number | null;
  signal: string | null;
  usage: {
    wall_s: number;
    cpu_s: number | null;
    memory_peak_bytes: number | null;
    pids_peak: number | null;
  };
  limits_hit: string[];
  artifacts: Artifact[] | null;
  artifacts_refused: string[];
  image_digest: string | null;
}

export type Rule = Record<string, unknown>;

export interface ExecutionView {
  id: string;
  state: string;
  attempt: number;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  project: string | null;
  language: string | null;
  image: string;
  size: string;
  metadata: Record<string, string>;
  isolation: string;
  egress: Rule[];
  egress_policy: string | null;
  queue_position: number | null;
  estimated_start_s: number | null;
  result: Result | null;
}

export interface Decision {
  outcome: "allowed" | "denied";
  method: string;
  host: string;
  port: number;
  rule: string | null;
  reason: string;
  detail: string;
  bytes_up: number;
  bytes_down: number;
}

export interface ExecutionEvent {
  attempt: number;
  at: string;
  state?: string;
  detail?: string;
  egress?: Decision;
  content?: string;
  encoding?: "utf-8" | "base64";
  omitted_bytes?: number;
}

export const ENDED = new Set([
  "succeeded", "failed", "timed_out", "cancelled", "out_of_memory", "output_limit_exceeded",
  "system_error",
]); // prettier-ignore

export const STATES = ["queued", "starting", "running", ...ENDED];

export interface SandboxView {
  id: string;
  state: string;
  reason: string | null;
  detail: string | null;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  expires_at: string | null;
  project: string | null;
  image: string;
  size: string;
  isolation: string;
  limits: { cpu: number; memory_mb: number; pids: number; disk_mb: number };
  egress: Rule[];
  egress_policy: string | null;
  metadata: Record<string, string>;
}

export interface Quota {
  name: string;
  limit: number;
  used: number;
  remaining: number;
  frees_at: string | null;
}

export interface Used {
  attempts: number;
  wall_s: number;
  cpu_s: number;
  memory_gib_s: number;
  egress_bytes_up: number;
  egress_bytes_down: number;
  artifact_bytes: number;
  sandbox_wall_s: number;
  sandbox_cpu_s: number;
  sandbox_memory_gib_s: number;
  port_bytes_in: number;
  port_bytes_out: number;
}

export interface UsageReport {
  tier: string;
  max_size: string;
  quotas: Quota[];
  first: string;
  last: string;
  total: Used;
  days: { day: string; used: Used }[];
}
