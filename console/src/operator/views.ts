// What the API answers to operators, as far as pages read it. The whole is at `/docs`.

export const NAME = "Agent Runner · Operators";
export const SESSION = "/operator/v1/session";

export interface Me {
  name: string;
  csrf_token: string | null;
}

export interface NodeView {
  node: string;
  state: string;
  draining: boolean;
  version: string;
  door: string;
  zone: string | null;
  isolations: string[];
  images: string[];
  templates: string[];
  slots: number;
  sandboxes: number;
  cpus: number;
  memory_mb: number;
  running: number;
  living: number;
  free_mb: number;
  fault: string | null;
  joined_at: string;
  started_at: string;
  seen_at: string;
}

export interface Held {
  kind: string;
  tenant_id: string;
  id: string;
  state: string;
  on_shortage: string | null;
  since: string;
}

export interface NodeContents {
  node: NodeView;
  held: Held[];
  more: boolean;
}

export interface TenantLoad {
  tenant: string;
  tier: string;
  suspended: boolean;
  waiting: number;
  active: number;
  concurrent: number;
  living: number;
  ended_last_minute: number;
}

export interface Load {
  nodes: NodeView[];
  tenants: TenantLoad[];
  more: boolean;
}

export interface Health {
  readiness: { status: string; parts: Record<string, string> };
  executions: Record<string, number>;
  sandboxes: Record<string, number>;
  queue_oldest_s: number;
  queue_tenants: number;
  executions_overdue: number;
  sandboxes_overdue: number;
  audit_unsealed_s: number;
  audit_undelivered_s: Record<string, number>;
}

export interface Invitation {
  invitation_id: string;
  node: string;
  open: boolean;
  made_by: string;
  made_at: string;
  expires_at: string;
  revoked_at: string | null;
  used_at: string | null;
  used_as: string | null;
}

export interface TenantView {
  id: string;
  name: string;
  tier: string;
  max_concurrency: number | null;
  max_limits: Record<string, number>;
  required_isolation: string | null;
  egress_ceiling: Record<string, unknown>[] | null;
  retention_days: number | null;
  quotas: Record<string, number | string>;
  reuse: boolean;
  created_at: string;
  suspended_at: string | null;
  suspended_why: string | null;
}

export const TIERS = ["free", "pro", "enterprise"];
