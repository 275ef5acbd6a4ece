-- The whole schema as it stands, to be read: what `versions/` of the migrations adds up to. Nothing
-- runs it; a test holds it equal to a database that was migrated (test_migrations.py).
-- Written with each migration: tables by what they are about, then functions, triggers, policies,
-- and who may do what.

-- ==== Roles =====================================================================================

-- They are the cluster's, not the database's. None is a superuser, bypasses row-level security or
-- owns a table.
--   runner_owner     owns the schema; migrates, and makes the first keys
--   runner_api       the API: one tenant at a time, cannot schedule
--   runner_worker    the worker: one tenant at a time, may claim and reap
--   runner_operator  the operators' part of the API: tenants, not what is theirs
--   runner_definer   no login; owns the few functions that look across tenants
--   runner_eraser    no login; owns the one function that ends a tenant
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['runner_api', 'runner_worker', 'runner_operator',
                                  'runner_definer', 'runner_eraser'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE %s',
                           wanted, CASE WHEN wanted IN ('runner_definer', 'runner_eraser')
                                        THEN 'NOLOGIN' ELSE 'LOGIN' END);
        END IF;
    END LOOP;
END
$$;
GRANT runner_definer, runner_eraser TO CURRENT_USER;
GRANT USAGE ON SCHEMA public
    TO runner_api, runner_worker, runner_operator, runner_definer, runner_eraser;

-- Functions follow the tables that they name, and each other, in no order.
SET LOCAL check_function_bodies = off;

-- The tenant of this transaction. NULL when unset, so that every policy below matches nothing.
CREATE FUNCTION app_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

-- ==== Tenants and what they may have ============================================================

-- A customer. The platform's own log belongs to none: its id, all zeros, is refused.
CREATE TABLE tenants (
    tenant_id          uuid PRIMARY KEY
                           CHECK (tenant_id <> '00000000-0000-0000-0000-000000000000'::uuid),
    name               text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$') UNIQUE,
    max_concurrency    integer CHECK (max_concurrency > 0),
    max_limits         jsonb NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    required_isolation text CHECK (required_isolation = 'gvisor'),
    tier               text NOT NULL DEFAULT 'free' CHECK (tier IN ('free', 'pro', 'enterprise')),
    suspended_at       timestamptz,
    suspended_why      text,
    egress_ceiling     jsonb,
    retention_days     integer CHECK (retention_days > 0),
    quotas             jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quotas) = 'object'),
    reuse              boolean NOT NULL DEFAULT false,
    CHECK ((suspended_why IS NULL) = (suspended_at IS NULL))
);
COMMENT ON COLUMN tenants.max_concurrency IS 'NULL: what the tier says.';
COMMENT ON COLUMN tenants.required_isolation IS 'NULL: the tenant may choose.';
COMMENT ON COLUMN tenants.egress_ceiling IS
    'Rules that bound this tenant''s, beside the deployment''s ceiling. NULL: that one alone.';
COMMENT ON COLUMN tenants.quotas IS 'In place of the tier''s, by the names of its columns.';
COMMENT ON COLUMN tenants.reuse IS 'Whether its executions may ask for reuse.';

-- What a tier may have. Of the deployment: its owner publishes profiles/tiers.toml here, so that
-- every process goes by the same numbers.
CREATE TABLE tiers (
    tier                 text PRIMARY KEY CHECK (tier IN ('free', 'pro', 'enterprise')),
    concurrent           integer NOT NULL CHECK (concurrent > 0),
    queued               integer NOT NULL CHECK (queued > 0),
    cpu_s_per_day        bigint NOT NULL CHECK (cpu_s_per_day > 0),
    egress_bytes_per_day bigint NOT NULL CHECK (egress_bytes_per_day >= 0),
    storage_bytes        bigint NOT NULL CHECK (storage_bytes >= 0),
    stored_objects       bigint NOT NULL CHECK (stored_objects >= 0),
    max_size             text NOT NULL,
    weight               integer NOT NULL CHECK (weight BETWEEN 1 AND 1000),
    sandboxes            integer NOT NULL CHECK (sandboxes >= 0),
    sandbox_memory_mb    integer NOT NULL CHECK (sandbox_memory_mb >= 0),
    sandbox_hours_per_day integer NOT NULL CHECK (sandbox_hours_per_day >= 0),
    snapshot_bytes       bigint NOT NULL CHECK (snapshot_bytes >= 0),
    snapshot_days        integer NOT NULL CHECK (snapshot_days >= 0),
    templates            integer NOT NULL CHECK (templates >= 0),
    template_bytes       bigint NOT NULL CHECK (template_bytes >= 0),
    template_days        integer NOT NULL CHECK (template_days >= 0)
);
COMMENT ON COLUMN tiers.template_days IS
    'At most, from when the last tag was taken from one; 0 for no limit.';
COMMENT ON COLUMN tiers.snapshot_days IS 'At most, from when one was taken; 0 for no limit.';

-- The platform's operators: keys that belong to no tenant.
CREATE TABLE operators (
    operator_id  uuid PRIMARY KEY,
    name         text NOT NULL,
    prefix       text NOT NULL UNIQUE,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- Sessions of operators in their console. Each rests on an operator's key, and ends with it.
CREATE TABLE operator_sessions (
    session_id   uuid PRIMARY KEY,
    operator_id  uuid NOT NULL REFERENCES operators(operator_id) ON DELETE CASCADE,
    hash         bytea NOT NULL CHECK (length(hash) = 32) UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz
);
CREATE INDEX operator_sessions_by_operator ON operator_sessions (operator_id);

-- Projects are known by their names, which do not change.
CREATE TABLE projects (
    tenant_id     uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    description   text NOT NULL,
    egress_policy text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

-- What a tenant may have: its own figures, or else its tier's. Seen with the right of who asks.
CREATE VIEW tenant_quotas WITH (security_invoker = true) AS
SELECT t.tenant_id, t.tier, t.suspended_at IS NOT NULL AS suspended,
       COALESCE(t.max_concurrency, r.concurrent) AS concurrent,
       COALESCE((t.quotas ->> 'queued')::integer, r.queued) AS queued,
       COALESCE((t.quotas ->> 'cpu_s_per_day')::bigint, r.cpu_s_per_day) AS cpu_s_per_day,
       COALESCE((t.quotas ->> 'egress_bytes_per_day')::bigint, r.egress_bytes_per_day)
           AS egress_bytes_per_day,
       COALESCE((t.quotas ->> 'storage_bytes')::bigint, r.storage_bytes) AS storage_bytes,
       COALESCE((t.quotas ->> 'stored_objects')::bigint, r.stored_objects) AS stored_objects,
       COALESCE(t.quotas ->> 'max_size', r.max_size) AS max_size,
       COALESCE((t.quotas ->> 'weight')::integer, r.weight) AS weight,
       COALESCE((t.quotas ->> 'sandboxes')::integer, r.sandboxes) AS sandboxes,
       COALESCE((t.quotas ->> 'sandbox_memory_mb')::integer, r.sandbox_memory_mb)
           AS sandbox_memory_mb,
       COALESCE((t.quotas ->> 'sandbox_hours_per_day')::integer, r.sandbox_hours_per_day)
           AS sandbox_hours_per_day,
       COALESCE((t.quotas ->> 'snapshot_bytes')::bigint, r.snapshot_bytes) AS snapshot_bytes,
       COALESCE((t.quotas ->> 'snapshot_days')::integer, r.snapshot_days) AS snapshot_days,
       COALESCE((t.quotas ->> 'templates')::integer, r.templates) AS templates,
       COALESCE((t.quotas ->> 'template_bytes')::bigint, r.template_bytes) AS template_bytes,
       COALESCE((t.quotas ->> 'template_days')::integer, r.template_days) AS template_days
FROM tenants t JOIN tiers r USING (tier);

-- ==== Keys, people and sessions =================================================================

-- A key is kept as a hash, and found by its prefix.
CREATE TABLE api_keys (
    key_id       uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    prefix       text NOT NULL UNIQUE,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    role         text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    name         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    permissions  text[],
    networks     cidr[],
    created_by   text NOT NULL DEFAULT 'system:operator',
    last_used_at timestamptz,
    replaced_by  uuid
);
CREATE INDEX api_keys_maker ON api_keys (tenant_id, created_by);
CREATE INDEX api_keys_successor ON api_keys (tenant_id, replaced_by)
WHERE (replaced_by IS NOT NULL);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id);
COMMENT ON COLUMN api_keys.permissions IS 'Of its role''s, these alone. NULL: all of them.';
COMMENT ON COLUMN api_keys.networks IS 'Where it may be used from. NULL: anywhere.';

-- A person, of no tenant: there is one as long as there is a membership of theirs. Only functions
-- of runner_definer reach the password; a tenant sees its members' addresses.
CREATE TABLE users (
    user_id    uuid PRIMARY KEY,
    email      text NOT NULL CHECK (email = lower(email) AND length(email) <= 254) UNIQUE,
    password   text NOT NULL CHECK (password LIKE '$argon2id$%'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN users.password IS
    'Argon2id in PHC format: a hash, with its salt and parameters.';

-- Who belongs to a tenant, and as what.
CREATE TABLE memberships (
    tenant_id  uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users(user_id),
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

-- An open invitation; its token is kept as a hash.
CREATE TABLE invitations (
    tenant_id     uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    invitation_id uuid NOT NULL,
    email         text NOT NULL CHECK (email = lower(email) AND length(email) <= 254),
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    hash          bytea NOT NULL CHECK (length(hash) = 32) UNIQUE,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, invitation_id),
    UNIQUE (tenant_id, email)
);

-- Whom a subject of the identity provider stands for, in one tenant. Like a session, this ends with
-- the membership that it rests on.
CREATE TABLE identities (
    tenant_id   uuid NOT NULL,
    identity_id uuid NOT NULL,
    user_id     uuid NOT NULL,
    issuer      text NOT NULL CHECK (length(issuer) BETWEEN 1 AND 512),
    subject     text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, identity_id),
    UNIQUE (issuer, subject, tenant_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES memberships(tenant_id, user_id) ON DELETE CASCADE
);
CREATE INDEX identities_by_user ON identities (tenant_id, user_id);
CREATE UNIQUE INDEX identities_by_id ON identities (identity_id);

-- A session acts in one tenant: it ends with the membership that it rests on, and with the link if it
-- began at the identity provider.
CREATE TABLE sessions (
    tenant_id    uuid NOT NULL,
    session_id   uuid NOT NULL,
    user_id      uuid NOT NULL,
    hash         bytea NOT NULL CHECK (length(hash) = 32) UNIQUE,
    ip           text,
    user_agent   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    identity_id  uuid,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES memberships(tenant_id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, identity_id) REFERENCES identities(tenant_id, identity_id)
        ON DELETE CASCADE
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE UNIQUE INDEX sessions_by_id ON sessions (session_id);
CREATE INDEX sessions_by_identity ON sessions (tenant_id, identity_id)
    WHERE identity_id IS NOT NULL;

-- Made by the operator for who has forgotten a password: no mail is sent.
CREATE TABLE password_resets (
    user_id    uuid PRIMARY KEY REFERENCES users(user_id) ON DELETE CASCADE,
    hash       bytea NOT NULL CHECK (length(hash) = 32) UNIQUE,
    expires_at timestamptz NOT NULL
);

-- ==== Files and the object store ================================================================

-- The ledger of every object in the store. A row is there before the object is, and goes after it:
-- what no row names does not exist, so that nothing is lost to a crash and no bucket is ever
-- searched for strays.
--   writing  its bytes are reserved; abandoned if that lasts
--   kept     a file, an artifact or an input refers to it
--   doomed   nothing does any more; the worker removes it, then this row
CREATE TABLE objects (
    tenant_id  uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    object_key text NOT NULL,
    bytes      bigint NOT NULL CHECK (bytes >= 0),
    state      text NOT NULL DEFAULT 'writing' CHECK (state IN ('writing', 'kept', 'doomed')),
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (starts_with(object_key, 'tenants/' || tenant_id || '/')),
    PRIMARY KEY (tenant_id, object_key)
);
CREATE INDEX objects_to_remove ON objects (tenant_id, since) WHERE (state <> 'kept');

-- What a tenant stores now: the sum of its objects that are not doomed, kept by a trigger.
CREATE TABLE storage_usage (
    tenant_id uuid PRIMARY KEY REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    bytes     bigint NOT NULL,
    objects   bigint NOT NULL,
    snapshot_bytes bigint NOT NULL DEFAULT 0
);

-- A tenant's files by path. What is overwritten or deleted lets go of its object.
CREATE TABLE files (
    tenant_id  uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    path       text COLLATE "C" NOT NULL,
    size       bigint NOT NULL,
    sha256     text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    media_type text NOT NULL,
    object_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, path),
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX files_expiry ON files (tenant_id, expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX files_object ON files (tenant_id, object_key);

-- The files of a sandbox, kept as a sealed object. What a new sandbox needs to be like the old one
-- stands beside it; the sandbox itself may have gone.
CREATE TABLE snapshots (
    tenant_id   uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    snapshot_id uuid NOT NULL,
    sandbox_id  uuid NOT NULL,
    name        text,
    metadata    jsonb NOT NULL,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    image       text NOT NULL,
    size        text NOT NULL,
    resources   jsonb NOT NULL,
    isolation   text NOT NULL CHECK (isolation IN ('container', 'gvisor')),
    bytes       bigint NOT NULL CHECK (bytes >= 0),
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    sealed_key  bytea NOT NULL,
    object_key  text NOT NULL,
    expires_at  timestamptz,
    PRIMARY KEY (tenant_id, snapshot_id),
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX snapshots_object ON snapshots (tenant_id, object_key);
CREATE INDEX snapshots_expiry ON snapshots (tenant_id, expires_at) WHERE (expires_at IS NOT NULL);
COMMENT ON COLUMN snapshots.bytes IS 'Of the archive in the object.';
COMMENT ON COLUMN snapshots.sha256 IS 'Of the archive before it was sealed.';
COMMENT ON COLUMN snapshots.sealed_key IS 'The object''s own key, under the tenant''s data key.';

-- What sandboxes are made from: an image of the operator or another template, and what the steps of
-- a build changed in it. The changes are an archive, kept as a sealed object.
CREATE TABLE templates (
    tenant_id     uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    template_id   uuid NOT NULL,
    name          text NOT NULL,
    tag           text NOT NULL,
    state         text NOT NULL DEFAULT 'building'
                      CHECK (state IN ('waiting', 'building', 'ready', 'failed')),
    detail        text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    due_at        timestamptz NOT NULL,
    base_image    text NOT NULL,
    base_template uuid,
    env           jsonb NOT NULL,
    steps         text[] NOT NULL,
    bytes         bigint CHECK (bytes >= 0),
    sha256        text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    sealed_key    bytea,
    object_key    text,
    start_command text CHECK (length(start_command) BETWEEN 1 AND 65536),
    ready_command text CHECK (length(ready_command) BETWEEN 1 AND 65536),
    ready_s       integer CHECK (ready_s BETWEEN 1 AND 600),
    more_tags     text[] NOT NULL DEFAULT '{}',
    base_owner    uuid,
    untagged_at   timestamptz,
    limits        jsonb NOT NULL DEFAULT '{}',
    workdir       text CHECK (length(workdir) BETWEEN 1 AND 4096),
    username      text CHECK (username ~ '^[a-z][a-z0-9_-]{0,30}$'),
    CONSTRAINT templates_startup
        CHECK ((num_nonnulls(start_command, ready_command) > 0) = (ready_s IS NOT NULL)),
    CONSTRAINT templates_ended CHECK ((state IN ('waiting', 'building')) = (ended_at IS NULL)),
    CONSTRAINT templates_content CHECK ((state = 'building' OR (state = 'ready') = (object_key IS NOT NULL))
        AND num_nulls(bytes, sha256, sealed_key, object_key) IN (0, 4)),
    PRIMARY KEY (tenant_id, template_id),
    CONSTRAINT templates_below FOREIGN KEY (base_owner, base_template)
        REFERENCES templates(tenant_id, template_id),
    CONSTRAINT templates_base_owner CHECK ((base_owner IS NULL) = (base_template IS NULL)),
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX templates_base ON templates (base_owner, base_template)
WHERE (base_template IS NOT NULL);
CREATE INDEX templates_id ON templates (template_id);
CREATE INDEX templates_name ON templates (tenant_id, name, tag, template_id);
CREATE INDEX templates_object ON templates (tenant_id, object_key) WHERE (object_key IS NOT NULL);
COMMENT ON COLUMN templates.due_at IS
    'When its build has ended at the latest; a build that goes on then has lost its process.';
COMMENT ON COLUMN templates.base_image IS 'The operator''s image below all templates.';
COMMENT ON COLUMN templates.env IS 'Variables of every process in its sandboxes.';
COMMENT ON COLUMN templates.limits IS
    'Resources of its sandboxes that differ from the default size''s.';
COMMENT ON COLUMN templates.workdir IS 'Where processes of its sandboxes start; NULL: at home.';
COMMENT ON COLUMN templates.username IS
    'The user of its sandboxes, whose home is /home/ and this name; NULL: that of its base.';
COMMENT ON COLUMN templates.steps IS
    'For each step, a hash of it and of all that came before, from the image on.';
COMMENT ON COLUMN templates.bytes IS 'Of the archive in the object.';
COMMENT ON COLUMN templates.sha256 IS 'Of the archive before it was sealed.';
COMMENT ON COLUMN templates.sealed_key IS 'The object''s own key, under the tenant''s data key.';
COMMENT ON COLUMN templates.start_command IS 'Runs in every sandbox that is made from it.';
COMMENT ON COLUMN templates.ready_command IS
    'Repeated in a new sandbox until it exits with 0; nobody uses the sandbox before.';
COMMENT ON COLUMN templates.ready_s IS 'Seconds that the ready command has for that.';
COMMENT ON COLUMN templates.more_tags IS 'What it is tagged besides `tag` once it is ready.';
CREATE INDEX templates_untagged ON templates (tenant_id, untagged_at)
WHERE (untagged_at IS NOT NULL);
COMMENT ON COLUMN templates.untagged_at IS 'Since when no tag stands for it; null while one does.';
COMMENT ON COLUMN templates.base_owner IS 'Whose the template below is.';

CREATE TABLE template_tags (
    tenant_id   uuid NOT NULL,
    name        text NOT NULL,
    tag         text NOT NULL,
    template_id uuid NOT NULL,
    assigned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, name, tag),
    FOREIGN KEY (tenant_id, template_id)
        REFERENCES templates(tenant_id, template_id) ON DELETE CASCADE
);
CREATE INDEX template_tags_template ON template_tags (tenant_id, template_id);
COMMENT ON TABLE template_tags IS 'Which build each name and tag of a tenant stands for.';

CREATE TABLE public_templates (
    name         text NOT NULL,
    tag          text NOT NULL,
    tenant_id    uuid NOT NULL,
    template_id  uuid NOT NULL,
    published_by text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, tag),
    FOREIGN KEY (tenant_id, template_id)
        REFERENCES templates(tenant_id, template_id) ON DELETE CASCADE
);
CREATE INDEX public_templates_template ON public_templates (tenant_id, template_id);
COMMENT ON TABLE public_templates IS
    'Templates that the operator has made everybody''s. Only the operator writes here.';

-- What a build writes, in order.
CREATE TABLE template_logs (
    tenant_id   uuid NOT NULL,
    template_id uuid NOT NULL,
    seq         bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    text        text NOT NULL,
    PRIMARY KEY (tenant_id, template_id, seq),
    FOREIGN KEY (tenant_id, template_id)
        REFERENCES templates(tenant_id, template_id) ON DELETE CASCADE
);

-- ==== Executions ================================================================================

-- One program, queued, run and kept with its result. States and their allowed changes:
-- runner/words/states.py.
CREATE TABLE executions (
    tenant_id           uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    execution_id        uuid NOT NULL,
    state               text NOT NULL DEFAULT 'queued'
                            CHECK (state IN ('queued', 'starting', 'running', 'succeeded',
                                'failed', 'timed_out', 'cancelled', 'out_of_memory',
                                'output_limit_exceeded', 'system_error')),
    attempt             integer NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    queued_at           timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    ended_at            timestamptz,
    cancel_requested_at timestamptz,
    lease_until         timestamptz,
    node                text,
    instance            text,
    event_seq           bigint NOT NULL DEFAULT 0,
    language            text,
    image               text NOT NULL,
    size                text NOT NULL,
    limits              jsonb NOT NULL,
    egress              jsonb NOT NULL,
    metadata            jsonb NOT NULL,
    on_worker_loss      text NOT NULL CHECK (on_worker_loss IN ('fail', 'retry')),
    argv                text[] NOT NULL,
    env                 jsonb NOT NULL,
    stdin               bytea NOT NULL,
    result              jsonb,
    isolation           text NOT NULL CHECK (isolation IN ('container', 'gvisor')),
    egress_policy       text,
    secret_env          jsonb NOT NULL DEFAULT '{}',
    project             text,
    artifacts_to        text,
    claimed_at          timestamptz,
    interpret           boolean NOT NULL DEFAULT false,
    reuse               boolean NOT NULL DEFAULT false,
    given_back          integer NOT NULL DEFAULT 0,
    output_keep         text NOT NULL DEFAULT 'head'
                            CHECK (output_keep IN ('head', 'head_and_tail')),
    artifacts           text[] NOT NULL DEFAULT '{}',
    traceparent         text CHECK (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$'),
    CHECK ((state IN ('starting', 'running')) = (lease_until IS NOT NULL)),
    CONSTRAINT executions_check1
        CHECK ((ended_at IS NULL) = (state IN ('queued', 'starting', 'running'))),
    CONSTRAINT executions_check2 CHECK ((ended_at IS NULL) = (result IS NULL)),
    PRIMARY KEY (tenant_id, execution_id),
    FOREIGN KEY (tenant_id, project)
        REFERENCES projects(tenant_id, name) ON DELETE SET NULL (project)
);
CREATE INDEX executions_active ON executions (tenant_id) WHERE (state IN ('starting', 'running'));
CREATE INDEX executions_by_project ON executions (tenant_id, project, execution_id)
WHERE (project IS NOT NULL);
CREATE INDEX executions_by_state ON executions (tenant_id, state, execution_id);
CREATE INDEX executions_ended ON executions (tenant_id, ended_at) WHERE (ended_at IS NOT NULL);
CREATE INDEX executions_lease ON executions (lease_until) WHERE (state IN ('starting', 'running'));
CREATE INDEX executions_waiting ON executions (tenant_id, queued_at, execution_id)
WHERE (state = 'queued');
COMMENT ON COLUMN executions.secret_env IS 'Environment variable to name of a secret; no values.';
COMMENT ON COLUMN executions.artifacts IS 'Patterns of the files to keep; none: all of its own.';
COMMENT ON COLUMN executions.artifacts_to IS
    'What the names of files made from artifacts begin with.';
COMMENT ON COLUMN executions.interpret IS 'Python that an interpreter which is loaded may run.';
COMMENT ON COLUMN executions.reuse IS 'May be run where the tenant''s executions were before.';
COMMENT ON COLUMN executions.traceparent IS
    'Place in a trace of the request that submitted it (W3C Trace Context).';
COMMENT ON COLUMN executions.given_back IS
    'Attempts that failed before their program began, by a fault of a node: '
    'they count for nothing.';

-- The metadata of executions, one row for each label, so that executions are found by it. An index
-- on the column itself would not be used: `@>` is not leakproof, and row-level security lets no
-- such operator read an index before the tenant is checked.
CREATE TABLE labels (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    key          text NOT NULL,
    value        text NOT NULL,
    PRIMARY KEY (tenant_id, execution_id, key),
    FOREIGN KEY (tenant_id, execution_id)
        REFERENCES executions(tenant_id, execution_id) ON DELETE CASCADE
);
CREATE INDEX labels_execution ON labels (tenant_id, key, value, execution_id);

-- Files that an execution is given: small ones here, others in the object store.
CREATE TABLE input_files (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    path         text NOT NULL,
    content      bytea,
    object_key   text,
    size         bigint,
    sha256       text,
    CHECK ((content IS NULL) = (object_key IS NOT NULL)),
    CONSTRAINT input_files_check1
        CHECK ((object_key IS NULL) = (size IS NULL) AND (size IS NULL) = (sha256 IS NULL)),
    PRIMARY KEY (tenant_id, execution_id, path),
    FOREIGN KEY (tenant_id, execution_id)
        REFERENCES executions(tenant_id, execution_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX input_files_object ON input_files (tenant_id, object_key)
WHERE (object_key IS NOT NULL);

-- What happened to an execution, in the order in which clients are told.
CREATE TABLE events (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    seq          bigint NOT NULL,
    attempt      integer NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('state', 'stdout', 'stderr', 'egress')),
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    data         jsonb NOT NULL DEFAULT '{}',
    chunk        bytea NOT NULL DEFAULT '\x'::bytea,
    PRIMARY KEY (tenant_id, execution_id, seq),
    FOREIGN KEY (tenant_id, execution_id)
        REFERENCES executions(tenant_id, execution_id) ON DELETE CASCADE
);

-- What an execution left. The bytes are in the object store.
CREATE TABLE artifacts (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    path         text NOT NULL,
    size         bigint NOT NULL,
    sha256       text NOT NULL,
    media_type   text NOT NULL,
    object_key   text NOT NULL,
    PRIMARY KEY (tenant_id, execution_id, object_key),
    FOREIGN KEY (tenant_id, execution_id)
        REFERENCES executions(tenant_id, execution_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, object_key) REFERENCES objects(tenant_id, object_key)
);
CREATE INDEX artifacts_object ON artifacts (tenant_id, object_key);

-- What the worker signed of an execution's end.
CREATE TABLE receipts (
    tenant_id    uuid NOT NULL,
    execution_id uuid NOT NULL,
    document     text NOT NULL,
    PRIMARY KEY (tenant_id, execution_id),
    FOREIGN KEY (tenant_id, execution_id)
        REFERENCES executions(tenant_id, execution_id) ON DELETE CASCADE
);
COMMENT ON COLUMN receipts.document IS
    'The signed text itself: parsed and written again, it might differ.';

-- ==== Nodes =====================================================================================

-- Docker hosts, each with one process. Who is one registers itself; the operator drains and removes.
CREATE TABLE nodes (
    node       text PRIMARY KEY CHECK (node ~ '^[A-Za-z0-9._-]{1,80}$'),
    instance   text NOT NULL,
    state      text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'draining', 'removed')),
    version    text NOT NULL,
    door       text NOT NULL,
    zone       text,
    isolations text[] NOT NULL,
    images     text[] NOT NULL,
    templates  uuid[] NOT NULL DEFAULT '{}',
    slots      integer NOT NULL CHECK (slots >= 0),
    sandboxes  integer NOT NULL CHECK (sandboxes >= 0),
    cpus       integer NOT NULL CHECK (cpus > 0),
    memory_mb  bigint NOT NULL CHECK (memory_mb > 0),
    running    integer NOT NULL DEFAULT 0,
    living     integer NOT NULL DEFAULT 0,
    free_mb    bigint NOT NULL DEFAULT 0,
    fault      text,
    joined_at  timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    away_at    timestamptz NOT NULL
);
COMMENT ON COLUMN nodes.instance IS 'The process that is the node now; an earlier one takes nothing.';
COMMENT ON COLUMN nodes.state IS 'What the operator wants; one that is away has any of them.';
COMMENT ON COLUMN nodes.door IS 'Where the API reaches its living sandboxes.';
COMMENT ON COLUMN nodes.images IS 'The deployment''s images that it may be asked for.';
COMMENT ON COLUMN nodes.templates IS 'Tenants'' templates that it has made an image of.';
COMMENT ON COLUMN nodes.fault IS 'Why it cannot start sandboxes now.';
COMMENT ON COLUMN nodes.away_at IS 'From then on it counts as away, unless it is seen again.';

-- One-time tokens by which hosts join, of which only hashes are stored.
CREATE TABLE node_invitations (
    invitation_id uuid PRIMARY KEY,
    node          text NOT NULL CHECK (node ~ '^[A-Za-z0-9._-]{1,63}$'),
    hash          bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    made_by       text NOT NULL,
    made_at       timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL CHECK (expires_at > made_at),
    revoked_at    timestamptz,
    used_at       timestamptz,
    used_as       text,
    CHECK (num_nonnulls(revoked_at, used_at) <= 1),
    CHECK ((used_at IS NULL) = (used_as IS NULL))
);
COMMENT ON COLUMN node_invitations.node IS 'Its name without the digits of its state folder.';
COMMENT ON COLUMN node_invitations.used_as IS 'The node that was given a certificate for it.';

-- ==== Sandboxes that live =======================================================================

-- States and their allowed changes: runner/words/lives.py. A sandbox is the API's to ask for and
-- its node's to change; the node holds it by a lease, as an execution's worker does.
CREATE TABLE sandboxes (
    tenant_id     uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    sandbox_id    uuid NOT NULL,
    state         text NOT NULL DEFAULT 'starting'
                      CHECK (state IN ('starting', 'running', 'pausing', 'paused', 'resuming',
                                       'stopping', 'ended')),
    reason        text CHECK (reason IN ('killed', 'expired', 'max_life', 'out_of_memory', 'lost',
                                         'start_failed', 'node_drained', 'tenant_suspended',
                                         'protocol_violation', 'evicted', 'internal_error')),
    detail        text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    timeout_s     double precision CHECK (timeout_s > 0),
    expires_at    timestamptz,
    on_timeout    text NOT NULL CHECK (on_timeout IN ('kill', 'pause')),
    lives_until   timestamptz,
    project       text,
    image         text NOT NULL,
    size          text NOT NULL,
    resources     jsonb NOT NULL,
    isolation     text NOT NULL CHECK (isolation IN ('container', 'gvisor')),
    egress        jsonb NOT NULL,
    egress_policy text,
    env           jsonb NOT NULL,
    secret_env    jsonb NOT NULL,
    metadata      jsonb NOT NULL,
    node          text,
    instance      text,
    lease_until   timestamptz,
    guest         jsonb,
    counted_at    timestamptz,
    counted_cpu_s numeric(20,6),
    counted_up    bigint NOT NULL DEFAULT 0,
    counted_down  bigint NOT NULL DEFAULT 0,
    slices        integer NOT NULL DEFAULT 0,
    auto_resume   boolean NOT NULL DEFAULT false,
    masks         bytea,
    filling       boolean NOT NULL DEFAULT false,
    builds        boolean NOT NULL DEFAULT false,
    on_shortage   text NOT NULL DEFAULT 'keep' CHECK (on_shortage IN ('keep', 'snapshot')),
    kept_as       uuid,
    workdir       text CHECK (length(workdir) BETWEEN 1 AND 4096),
    username      text CHECK (username ~ '^[a-z][a-z0-9_-]{0,30}$'),
    counted_port_in  bigint NOT NULL DEFAULT 0,
    counted_port_out bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, sandbox_id),
    FOREIGN KEY (tenant_id, project)
        REFERENCES projects(tenant_id, name) ON DELETE SET NULL (project),
    CONSTRAINT sandboxes_end CHECK ((state = 'ended') = (ended_at IS NOT NULL)
                                    AND (state = 'ended') = (reason IS NOT NULL)),
    CONSTRAINT sandboxes_lease CHECK ((state = 'ended') = (lease_until IS NULL)),
    CONSTRAINT sandboxes_node CHECK ((node IS NULL) = (instance IS NULL)),
    -- What a node needs to find its sandbox again, a secret among it, goes with the sandbox.
    CONSTRAINT sandboxes_guest CHECK (guest IS NULL OR state <> 'ended'),
    CONSTRAINT sandboxes_masks CHECK (masks IS NULL OR state <> 'ended'),
    CONSTRAINT sandboxes_kept_as
        CHECK ((reason IS NOT DISTINCT FROM 'evicted') = (kept_as IS NOT NULL))
);
CREATE INDEX sandboxes_living ON sandboxes (tenant_id) WHERE (state <> 'ended');
CREATE INDEX sandboxes_by_project ON sandboxes (tenant_id, project, sandbox_id)
WHERE (project IS NOT NULL);
CREATE INDEX sandboxes_ended ON sandboxes (tenant_id, ended_at) WHERE (ended_at IS NOT NULL);
CREATE INDEX sandboxes_living_by_id ON sandboxes (sandbox_id) WHERE (state <> 'ended');
CREATE INDEX sandboxes_lease ON sandboxes (lease_until) WHERE (state <> 'ended');
CREATE INDEX sandboxes_node ON sandboxes (node) WHERE (state <> 'ended');
COMMENT ON COLUMN sandboxes.expires_at IS 'NULL: its time is not limited.';
COMMENT ON COLUMN sandboxes.lives_until IS 'No later, however often its time is set again.';
COMMENT ON COLUMN sandboxes.secret_env IS 'Environment variable to name of a secret; no values.';
COMMENT ON COLUMN sandboxes.guest IS
    'What its node finds it by after a restart. A secret is in it: the worker''s alone to read.';
COMMENT ON COLUMN sandboxes.counted_at IS 'Until when its use is in the ledger.';
COMMENT ON COLUMN sandboxes.counted_cpu_s IS 'As its container''s counter said then.';
COMMENT ON COLUMN sandboxes.counted_up IS 'As the way out said then that this instance opened.';
COMMENT ON COLUMN sandboxes.slices IS 'How many rows of the ledger are its.';
COMMENT ON COLUMN sandboxes.auto_resume IS 'Whether its use resumes it if it is paused.';
COMMENT ON COLUMN sandboxes.builds IS
    'Whether a template is built in it: its processes are root, which is nobody on the host.';
COMMENT ON COLUMN sandboxes.filling IS
    'Whether it is still given the files that it begins with; until then its time is short.';
COMMENT ON COLUMN sandboxes.on_shortage IS
    'What happens to it, while it is paused, if its host is short of memory.';
COMMENT ON COLUMN sandboxes.kept_as IS
    'The snapshot that holds the files of an evicted one; it may have been deleted since.';
COMMENT ON COLUMN sandboxes.workdir IS 'Where its processes start; NULL: at home.';
COMMENT ON COLUMN sandboxes.username IS 'The user of its processes; NULL: the image''s own.';
COMMENT ON COLUMN sandboxes.masks IS
    'Every value of a secret that it was ever given, sealed: the worker''s alone to read.';

CREATE TABLE sandbox_receipts (
    tenant_id  uuid NOT NULL,
    sandbox_id uuid NOT NULL,
    document   text NOT NULL,
    PRIMARY KEY (tenant_id, sandbox_id),
    FOREIGN KEY (tenant_id, sandbox_id)
        REFERENCES sandboxes(tenant_id, sandbox_id) ON DELETE CASCADE
);
COMMENT ON COLUMN sandbox_receipts.document IS
    'The signed text itself: parsed and written again, it might differ.';

-- ==== Idempotency keys ==========================================================================

-- Ports of living sandboxes that may be reached without an API key: by a token, or by anybody. A
-- token is stored as its hash. What is opened ends with its sandbox, and with its opener's right.
CREATE TABLE sandbox_ports (
    tenant_id  uuid NOT NULL,
    sandbox_id uuid NOT NULL,
    port       integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    public     boolean NOT NULL,
    token_hash bytea CHECK (length(token_hash) = 32),
    opened_by  text NOT NULL,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, sandbox_id, port),
    FOREIGN KEY (tenant_id, sandbox_id)
        REFERENCES sandboxes(tenant_id, sandbox_id) ON DELETE CASCADE,
    CONSTRAINT sandbox_ports_token CHECK (public = (token_hash IS NULL))
);
CREATE UNIQUE INDEX sandbox_ports_found ON sandbox_ports (sandbox_id, port);
CREATE INDEX sandbox_ports_opened_by ON sandbox_ports (tenant_id, opened_by);

-- Keys that were given a token of a sandbox which another key, or a user, has made. The key that
-- made it is in `created_by`. Tokens are computed, and stored nowhere.
CREATE TABLE sandbox_holders (
    tenant_id  uuid NOT NULL,
    sandbox_id uuid NOT NULL,
    prefix     text NOT NULL CHECK (prefix ~ '^[a-z2-7]{12}$'),
    PRIMARY KEY (tenant_id, sandbox_id, prefix),
    FOREIGN KEY (tenant_id, sandbox_id)
        REFERENCES sandboxes(tenant_id, sandbox_id) ON DELETE CASCADE
);
CREATE INDEX sandbox_holders_sandbox ON sandbox_holders (sandbox_id);

-- What a client's key was first used for, and by which request. A snapshot is named by its object:
-- that is there before the snapshot is, and says whether it is being written, kept or given up.
CREATE TABLE idempotency_keys (
    tenant_id    uuid NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    execution_id uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    sandbox_id   uuid,
    object_key   text,
    CONSTRAINT idempotency_keys_one
        CHECK (num_nonnulls(execution_id, sandbox_id, object_key) = 1),
    PRIMARY KEY (tenant_id, key),
    FOREIGN KEY (tenant_id, execution_id)
        REFERENCES executions(tenant_id, execution_id) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT idempotency_keys_sandbox FOREIGN KEY (tenant_id, sandbox_id)
        REFERENCES sandboxes(tenant_id, sandbox_id) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT idempotency_keys_object FOREIGN KEY (tenant_id, object_key)
        REFERENCES objects(tenant_id, object_key) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX idempotency_keys_object ON idempotency_keys (tenant_id, object_key)
    WHERE (object_key IS NOT NULL);

-- ==== Whose turn it is ==========================================================================

-- A tenant's place among the others.
CREATE TABLE queues (
    tenant_id uuid PRIMARY KEY REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    waiting   integer NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    active    integer NOT NULL DEFAULT 0 CHECK (active >= 0),
    load      double precision NOT NULL DEFAULT 0,
    served    double precision NOT NULL DEFAULT 0,
    ready     boolean GENERATED ALWAYS AS ((waiting > 0)) STORED NOT NULL
) WITH (fillfactor=50, autovacuum_vacuum_threshold=500, autovacuum_vacuum_scale_factor=0);
CREATE INDEX queues_turn ON queues (load, served, tenant_id) WHERE ready;
COMMENT ON COLUMN queues.load IS 'Active executions by weight.';
COMMENT ON COLUMN queues.served IS
    'Seconds that its executions held a slot, by weight: virtual time.';

-- One row: how far virtual time has come, and how fast executions are claimed while others wait.
CREATE TABLE queue_clock (
    one        boolean DEFAULT true PRIMARY KEY CHECK (one),
    served     double precision NOT NULL DEFAULT 0,
    claimed_at timestamptz,
    backlog    boolean NOT NULL DEFAULT false,
    interval_s double precision
) WITH (fillfactor=50);

-- Claims run one after another under a lock that needs a right: any login can hold an advisory
-- lock, nobody but claim_execution's owner this table's.
CREATE TABLE claim_turn ();
COMMENT ON TABLE claim_turn IS 'Without rows: whoever claims an execution locks it.';

-- ==== Usage =====================================================================================

-- The ledger: a row for each attempt that has ended, and for each slice of a sandbox's life.
-- Deleted with its tenant, changed never.
CREATE TABLE usage_records (
    tenant_id         uuid NOT NULL REFERENCES tenants(tenant_id),
    execution_id      uuid NOT NULL,
    attempt           integer NOT NULL,
    outcome           text NOT NULL,
    started_at        timestamptz,
    ended_at          timestamptz NOT NULL,
    image             text NOT NULL,
    size              text NOT NULL,
    isolation         text NOT NULL,
    wall_s            numeric(20,6) NOT NULL CHECK (wall_s >= (0)::numeric),
    cpu_s             numeric(20,6) NOT NULL CHECK (cpu_s >= (0)::numeric),
    cpu_measured      boolean NOT NULL,
    memory_gib_s      numeric(20,6) NOT NULL CHECK (memory_gib_s >= (0)::numeric),
    egress_bytes_up   bigint NOT NULL CHECK (egress_bytes_up >= 0),
    egress_bytes_down bigint NOT NULL CHECK (egress_bytes_down >= 0),
    artifact_bytes    bigint NOT NULL CHECK (artifact_bytes >= 0),
    kind              text NOT NULL DEFAULT 'execution' CHECK (kind IN ('execution', 'sandbox')),
    port_bytes_in     bigint NOT NULL DEFAULT 0 CHECK (port_bytes_in >= 0),
    port_bytes_out    bigint NOT NULL DEFAULT 0 CHECK (port_bytes_out >= 0),
    PRIMARY KEY (tenant_id, execution_id, attempt)
);
COMMENT ON COLUMN usage_records.execution_id IS 'The execution''s id, or the sandbox''s.';
COMMENT ON COLUMN usage_records.attempt IS 'Of an execution; or the number of the slice, from 1.';
COMMENT ON COLUMN usage_records.outcome IS
    'The state it ended in, or requeued; of a sandbox, whether it ran, was paused or has ended.';
COMMENT ON COLUMN usage_records.cpu_measured IS
    'If not: wall-clock time times the limit, the most.';

-- The ledger's sums by day (UTC) of the end: what a quota is compared with is one row.
CREATE TABLE usage_days (
    tenant_id         uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    day               date NOT NULL,
    attempts          bigint NOT NULL,
    wall_s            numeric(20,6) NOT NULL,
    cpu_s             numeric(20,6) NOT NULL,
    memory_gib_s      numeric(20,6) NOT NULL,
    egress_bytes_up   bigint NOT NULL,
    egress_bytes_down bigint NOT NULL,
    artifact_bytes    bigint NOT NULL,
    -- How much of it living sandboxes used.
    sandbox_wall_s       numeric(20,6) NOT NULL DEFAULT 0,
    sandbox_cpu_s        numeric(20,6) NOT NULL DEFAULT 0,
    sandbox_memory_gib_s numeric(20,6) NOT NULL DEFAULT 0,
    -- Through the ports of living sandboxes.
    port_bytes_in        bigint NOT NULL DEFAULT 0,
    port_bytes_out       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day)
);

-- ==== Egress policies and secrets ===============================================================

-- Rules by name of what an execution may reach; submitted with one, it keeps those rules.
CREATE TABLE egress_policies (
    tenant_id  uuid NOT NULL REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    name       text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    rules      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

-- One data key for each tenant, wrapped by a key-encryption key that is never stored here.
CREATE TABLE secret_keys (
    tenant_id uuid PRIMARY KEY REFERENCES tenants(tenant_id) ON DELETE CASCADE,
    kek_id    text NOT NULL CHECK (kek_id <> ''),
    wrapped   bytea NOT NULL
);

-- Sealed with the tenant's data key. The API can write one and not read it back.
CREATE TABLE secrets (
    tenant_id  uuid NOT NULL REFERENCES secret_keys(tenant_id) ON DELETE CASCADE,
    name       text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$'),
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

-- ==== The audit log =============================================================================

-- The log. `body` is the record, canonical JSON (RFC 8785); every other column is made from it or
-- from the chain, so that none can disagree with what was hashed. No foreign key: the log outlives
-- what it tells of.
CREATE TABLE audit_events (
    tenant_id     uuid NOT NULL,
    seq           bigint NOT NULL,
    body          text NOT NULL,
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL,
    event_id      text GENERATED ALWAYS AS (((body)::jsonb ->> 'id')) STORED NOT NULL,
    at            text COLLATE "C" GENERATED ALWAYS AS (((body)::jsonb ->> 'at')) STORED NOT NULL,
    actor         text GENERATED ALWAYS AS (((body)::jsonb ->> 'actor')) STORED NOT NULL,
    action        text GENERATED ALWAYS AS (((body)::jsonb ->> 'action')) STORED NOT NULL,
    outcome       text GENERATED ALWAYS AS (((body)::jsonb ->> 'outcome')) STORED NOT NULL,
    resource_type text GENERATED ALWAYS AS (((body)::jsonb ->> 'resource_type')) STORED,
    resource_id   text GENERATED ALWAYS AS (((body)::jsonb ->> 'resource_id')) STORED,
    PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX audit_events_export ON audit_events (tenant_id, seq) WHERE (action = 'audit:export');
CREATE INDEX audit_events_resource ON audit_events (tenant_id, resource_id, seq);
-- Each process of a sandbox is a record of it: the few of its own life must be found among millions.
CREATE INDEX audit_events_lives ON audit_events (tenant_id, resource_id, seq)
WHERE (action IN ('sandbox:kill', 'sandbox:pause', 'sandbox:resume', 'sandbox:start'));

-- Where a tenant's chain ends. Locked by who appends until the transaction ends.
CREATE TABLE audit_heads (
    tenant_id     uuid PRIMARY KEY,
    seq           bigint NOT NULL,
    hash          bytea NOT NULL,
    previous_hash bytea
);

-- Statements of the worker, signed outside the database: "record `seq` had this hash then". No
-- foreign key, as with the log: they outlive what they tell of.
CREATE TABLE audit_checkpoints (
    tenant_id  uuid NOT NULL,
    seq        bigint NOT NULL CHECK (seq > 0),
    document   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, seq)
);
COMMENT ON COLUMN audit_checkpoints.document IS 'The signed text itself.';

-- The one webhook of a tenant. The secret is made by the API, which cannot read it back.
CREATE TABLE audit_webhooks (
    tenant_id  uuid PRIMARY KEY REFERENCES secret_keys(tenant_id) ON DELETE CASCADE,
    url        text NOT NULL CHECK (url ~ '^https://'),
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- How far a tenant's log has been delivered to a sink: `tenant` is its own webhook, the others are
-- the deployment's.
CREATE TABLE audit_cursors (
    tenant_id uuid NOT NULL,
    sink      text NOT NULL CHECK (sink IN ('tenant', 'webhook', 'syslog')),
    seq       bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
    due_at    timestamptz NOT NULL DEFAULT now(),
    claim     uuid,
    failures  integer NOT NULL DEFAULT 0,
    problem   text,
    PRIMARY KEY (tenant_id, sink)
);
CREATE INDEX audit_cursors_due ON audit_cursors (sink, due_at);
COMMENT ON COLUMN audit_cursors.due_at IS
    'When to try next: after a failure later and later, while a worker tries when its lease ends.';

-- ==== Functions: tenants ========================================================================

-- A tenant by its name, for the owner's commands.
CREATE FUNCTION find_tenant(p_name text) RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM tenants t WHERE t.name = p_name;
END;

-- A tenant as an identity provider names it.
CREATE FUNCTION tenant_standing(p_name text)
    RETURNS TABLE (tenant_id uuid, tier text, suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id, t.tier, t.suspended_at IS NOT NULL FROM tenants t WHERE t.name = p_name;
END;

-- Deletes every row of this transaction's tenant, which must be suspended and run nothing; returns
-- how many there were in each table. DELETE has no WHERE: the policies name the rows.
CREATE FUNCTION erase_tenant() RETURNS TABLE (name text, removed bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    remaining regclass[];
    next regclass;
BEGIN
    PERFORM FROM tenants t WHERE t.tenant_id = app_tenant() AND t.suspended_at IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'only a tenant that is suspended can be erased'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM FROM executions e
    WHERE e.tenant_id = app_tenant() AND e.state IN ('starting', 'running');
    IF FOUND THEN
        RAISE EXCEPTION 'executions of this tenant are still being ended'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM FROM sandboxes s WHERE s.tenant_id = app_tenant() AND s.state <> 'ended';
    IF FOUND THEN
        RAISE EXCEPTION 'sandboxes of this tenant are still being ended'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT array_agg(c.oid::regclass) INTO remaining FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace;
    WHILE cardinality(remaining) > 0 LOOP
        -- One that no other of those that remain refers to.
        SELECT r INTO STRICT next FROM unnest(remaining) r
        WHERE NOT EXISTS (SELECT FROM pg_constraint k
                          WHERE k.contype = 'f' AND k.confrelid = r AND k.conrelid <> r
                            AND k.conrelid = ANY (remaining::oid[]))
        ORDER BY r::text LIMIT 1;
        EXECUTE format('DELETE FROM %s', next);
        GET DIAGNOSTICS removed = ROW_COUNT;
        name := next::text;
        RETURN NEXT;
        remaining := array_remove(remaining, next);
    END LOOP;
END
$$;

-- ==== Functions: keys, people and sessions ======================================================

-- The key behind a prefix with its tenant's standing, before its tenant is known. The caller
-- compares the hash, and the client's address with the networks.
CREATE FUNCTION find_api_key(p_prefix text)
    RETURNS TABLE (tenant_id uuid, key_id uuid, role text, hash bytea, permissions text[],
                   networks text[], tier text, suspended boolean, unused_for interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.tenant_id, k.key_id, k.role, k.hash, k.permissions, k.networks::text[], t.tier,
           t.suspended_at IS NOT NULL, now() - k.last_used_at
    FROM api_keys k JOIN tenants t USING (tenant_id)
    WHERE k.prefix = p_prefix AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > now());
END;

-- Which rights of requests under way still stand: keys, logins and tenants as they are now. A
-- member's login is a session, or a subject of the identity provider that stands for them.
CREATE FUNCTION rights_that_stand(p_keys uuid[], p_logins uuid[], p_tenants uuid[],
                                  p_idle interval)
    RETURNS TABLE (id uuid, role text, suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.key_id, k.role, t.suspended_at IS NOT NULL
    FROM api_keys k JOIN tenants t USING (tenant_id)
    WHERE k.key_id = ANY (p_keys) AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > now())
    UNION ALL
    SELECT s.session_id, m.role, t.suspended_at IS NOT NULL
    FROM sessions s JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE s.session_id = ANY (p_logins) AND s.expires_at > now()
      AND s.last_used_at > now() - p_idle
    UNION ALL
    SELECT i.identity_id, m.role, t.suspended_at IS NOT NULL
    FROM identities i JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE i.identity_id = ANY (p_logins)
    UNION ALL
    SELECT t.tenant_id, NULL, t.suspended_at IS NOT NULL
    FROM tenants t WHERE t.tenant_id = ANY (p_tenants);
END;

-- Who is to be logged in where: in the tenant of that name, else where they have been longest.
CREATE FUNCTION find_login(p_email text, p_tenant text)
    RETURNS TABLE (user_id uuid, password text, tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.user_id, u.password, m.tenant_id
    FROM users u JOIN memberships m USING (user_id) JOIN tenants t ON t.tenant_id = m.tenant_id
    WHERE u.email = p_email AND (p_tenant IS NULL OR t.name = p_tenant)
    ORDER BY m.created_at, m.tenant_id LIMIT 1;
END;

-- A session by its token's hash, before its tenant is known.
CREATE FUNCTION find_session(p_hash bytea, p_idle interval)
    RETURNS TABLE (tenant_id uuid, session_id uuid, user_id uuid, role text, tier text,
                   suspended boolean, unused_for interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.session_id, s.user_id, m.role, t.tier, t.suspended_at IS NOT NULL,
           now() - s.last_used_at
    FROM sessions s JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE s.hash = p_hash AND s.expires_at > now() AND s.last_used_at > now() - p_idle;
END;

-- The members that a subject stands for: one if a tenant is named, else at most two, which tells
-- whether one has to be named.
CREATE FUNCTION find_identity(p_issuer text, p_subject text, p_tenant text)
    RETURNS TABLE (tenant_id uuid, identity_id uuid, user_id uuid, role text, tier text,
                   suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT i.tenant_id, i.identity_id, i.user_id, m.role, t.tier, t.suspended_at IS NOT NULL
    FROM identities i JOIN memberships m USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
    WHERE i.issuer = p_issuer AND i.subject = p_subject
      AND (p_tenant IS NULL OR t.name = p_tenant)
    ORDER BY m.created_at, i.tenant_id LIMIT 2;
END;

-- An invitation that can still be taken up, and the person of that address if there is one.
CREATE FUNCTION find_invitation(p_hash bytea)
    RETURNS TABLE (tenant_id uuid, invitation_id uuid, email text, role text, created_by text,
                   user_id uuid, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT i.tenant_id, i.invitation_id, i.email, i.role, i.created_by, u.user_id, u.password
    FROM invitations i LEFT JOIN users u USING (email)
    WHERE i.hash = p_hash AND i.expires_at > now();
END;

-- The person whose password may be set anew with this token.
CREATE FUNCTION find_reset(p_hash bytea)
    RETURNS TABLE (user_id uuid, email text, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.user_id, u.email, u.password FROM password_resets r JOIN users u USING (user_id)
    WHERE r.hash = p_hash AND r.expires_at > now();
END;

-- Whether a person belongs to this transaction's tenant: what is done to them is done in one of
-- theirs.
CREATE FUNCTION is_member(p_user uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM memberships m
                   WHERE m.tenant_id = app_tenant() AND m.user_id = p_user);
END;

-- What a person may know of themselves, whichever tenant they act in: where they belong.
CREATE FUNCTION memberships_of(p_user uuid)
    RETURNS TABLE (tenant text, role text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.name, m.role FROM memberships m JOIN tenants t USING (tenant_id)
    WHERE m.user_id = p_user AND is_member(p_user) ORDER BY m.created_at, m.tenant_id;
END;

-- And where they are logged in.
CREATE FUNCTION sessions_of(p_user uuid, p_idle interval)
    RETURNS TABLE (session_id uuid, tenant text, ip text, user_agent text,
                   created_at timestamptz, last_used_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.session_id, t.name, s.ip, s.user_agent, s.created_at, s.last_used_at, s.expires_at
    FROM sessions s JOIN tenants t USING (tenant_id)
    WHERE s.user_id = p_user AND is_member(p_user)
      AND s.expires_at > now() AND s.last_used_at > now() - p_idle
    ORDER BY s.session_id DESC;
END;

-- One session of a person's, or with NULL all of them; how many there were.
CREATE FUNCTION end_sessions(p_user uuid, p_session uuid) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH ended AS (
        DELETE FROM sessions
        WHERE user_id = p_user AND is_member(p_user)
          AND (p_session IS NULL OR session_id = p_session)
        RETURNING 1)
    SELECT count(*) FROM ended;
END;

-- Sessions of a person that are over are cleared away when they log in again.
CREATE FUNCTION clear_sessions(p_user uuid, p_idle interval) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    DELETE FROM sessions
    WHERE user_id = p_user AND is_member(p_user)
      AND (expires_at <= now() OR last_used_at <= now() - p_idle);
END;

-- A person's address and password's hash, to be verified before a change.
CREATE FUNCTION password_of(p_user uuid) RETURNS TABLE (email text, password text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT u.email, u.password FROM users u WHERE u.user_id = p_user AND is_member(p_user);
END;

-- Whether it is the password still, and until the end of the transaction: a change of it waits,
-- and then ends the session that was begun meanwhile.
CREATE FUNCTION hold_password(p_user uuid, p_password text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users u
    WHERE u.user_id = p_user AND u.password = p_password AND is_member(p_user) FOR SHARE;
    RETURN FOUND;
END
$$;

-- Compare and set: of two changes at once, one finds that the password is no longer the old one.
CREATE FUNCTION replace_password(p_user uuid, p_old text, p_new text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH changed AS (
        UPDATE users SET password = p_new
        WHERE user_id = p_user AND password = p_old AND is_member(p_user) RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM changed);
END;

-- Who is added was invited to this transaction's tenant under that address.
CREATE FUNCTION add_user(p_user uuid, p_email text, p_password text) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH added AS (
        INSERT INTO users (user_id, email, password)
        SELECT p_user, p_email, p_password FROM invitations i
        WHERE i.tenant_id = app_tenant() AND i.email = p_email AND i.expires_at > now()
        ON CONFLICT (email) DO NOTHING RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM added);
END;

-- A token by which a person may set their password anew, in place of an earlier one.
CREATE FUNCTION issue_reset(p_email text, p_hash bytea, p_expires timestamptz) RETURNS uuid
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    INSERT INTO password_resets AS r (user_id, hash, expires_at)
    SELECT u.user_id, p_hash, p_expires FROM users u WHERE u.email = p_email
    ON CONFLICT (user_id) DO UPDATE SET hash = EXCLUDED.hash, expires_at = EXCLUDED.expires_at
    RETURNING r.user_id;
END;

-- Takes such a token, sets the password and ends all sessions.
CREATE FUNCTION reset_password(p_hash bytea, p_new text)
    RETURNS TABLE (user_id uuid, sessions_ended bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM password_resets r WHERE r.hash = p_hash AND r.expires_at > now()
    RETURNING r.user_id INTO user_id;
    IF FOUND THEN
        UPDATE users u SET password = p_new WHERE u.user_id = reset_password.user_id;
        -- A statement of its own: it sees the session that a login has stored meanwhile.
        DELETE FROM sessions s WHERE s.user_id = reset_password.user_id;
        GET DIAGNOSTICS sessions_ended = ROW_COUNT;
        RETURN NEXT;
    END IF;
END
$$;

-- Nothing is kept of a person who belongs to no tenant, and their address is free again. The lock
-- makes a membership that is being added elsewhere be seen.
CREATE FUNCTION forget_user() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users u WHERE u.user_id = OLD.user_id FOR UPDATE;
    DELETE FROM users u WHERE u.user_id = OLD.user_id
        AND NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.user_id);
    RETURN NULL;
END
$$;

-- ==== Functions: whose turn it is ===============================================================

-- The tenant whose turn it is: of those that wait and may have one more, the one with the fewest
-- active by its weight; among equals, the one that was served least.
CREATE FUNCTION next_tenant() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT q.tenant_id FROM queues q JOIN tenant_quotas t USING (tenant_id)
    WHERE q.ready AND NOT t.suspended AND q.active < t.concurrent
    ORDER BY q.load, q.served, q.tenant_id LIMIT 1;
END;

-- Claims run one after another, so that turns and caps are exact. None waits for a tenant whose
-- count is being written while another tenant can be served: hence SKIP LOCKED, at first.
CREATE FUNCTION claim_execution(p_node text, p_instance text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, execution_id uuid, attempt integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tried uuid[] := '{}';
    turn queues;
    chosen uuid;
    leaves boolean;
    claimed executions;
    taker nodes;
BEGIN
    LOCK TABLE claim_turn IN EXCLUSIVE MODE;
    -- A node of a release before this has no row, and may claim anything.
    SELECT n.* INTO taker FROM nodes n WHERE n.node = p_node;
    IF FOUND AND (taker.state <> 'ready' OR taker.instance <> p_instance) THEN
        RETURN;
    END IF;
    LOOP
        SELECT q.* INTO turn FROM queues q JOIN tenant_quotas t USING (tenant_id)
        WHERE q.ready AND NOT t.suspended AND q.active < t.concurrent
          AND q.tenant_id <> ALL (tried)
        ORDER BY q.load, q.served, q.tenant_id LIMIT 1 FOR NO KEY UPDATE OF q SKIP LOCKED;
        IF NOT FOUND THEN
            SELECT q.* INTO turn FROM queues q JOIN tenant_quotas t USING (tenant_id)
            WHERE q.ready AND NOT t.suspended AND q.active < t.concurrent
              AND q.tenant_id <> ALL (tried)
            ORDER BY q.load, q.served, q.tenant_id LIMIT 1 FOR NO KEY UPDATE OF q;
        END IF;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        FOREACH leaves IN ARRAY ARRAY[true, false] LOOP
            SELECT e.execution_id INTO chosen FROM executions e
            WHERE e.tenant_id = turn.tenant_id AND e.state = 'queued'
              AND (taker.node IS NULL
                   OR (e.isolation = ANY (taker.isolations)
                       AND CASE WHEN strpos(e.image, '@') = 0 THEN e.image = ANY (taker.images)
                           -- Of a template, it makes an image on the template's base. One that was
                           -- deleted meanwhile is nobody's: whoever claims it ends it.
                           ELSE NOT EXISTS (SELECT FROM templates t
                                            WHERE t.template_id = right(e.image, 36)::uuid
                                              AND t.base_image <> ALL (taker.images)) END))
              -- For a moment, it leaves one to a node with a slot that has the image already.
              AND NOT (leaves AND taker.node IS NOT NULL AND strpos(e.image, '@') > 0
                       AND right(e.image, 36)::uuid <> ALL (taker.templates)
                       AND e.queued_at > clock_timestamp() - interval '2 seconds'
                       AND EXISTS (SELECT FROM nodes n
                                   WHERE right(e.image, 36)::uuid = ANY (n.templates)
                                     AND n.node <> taker.node AND n.state = 'ready'
                                     AND n.away_at > clock_timestamp() AND n.fault IS NULL
                                     AND e.isolation = ANY (n.isolations)
                                     AND n.slots > (SELECT count(*) FROM executions r
                                                    WHERE r.node = n.node
                                                      AND r.state IN ('starting', 'running'))))
            ORDER BY e.queued_at, e.execution_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
            EXIT WHEN chosen IS NOT NULL;
        END LOOP;
        EXIT WHEN leaves;
        IF chosen IS NOT NULL THEN
            -- The ring for it woke this node: it rings again, until that one hears it.
            PERFORM set_config('runner.left', format('%s %s', turn.tenant_id, chosen), true);
        END IF;
        -- What it has waiting is being cancelled, or is for other nodes.
        tried := tried || turn.tenant_id;
    END LOOP;
    UPDATE executions e
    SET state = 'starting', attempt = e.attempt + 1, node = p_node, instance = p_instance,
        claimed_at = clock_timestamp(), lease_until = clock_timestamp() + p_lease,
        event_seq = e.event_seq + 1
    WHERE e.tenant_id = turn.tenant_id AND e.execution_id = chosen AND e.state = 'queued'
    RETURNING e.* INTO STRICT claimed;
    UPDATE queue_clock c
    SET served = GREATEST(c.served, turn.served),
        -- Smoothed over some ten claims; only of claims for which something waited before.
        interval_s = CASE
            WHEN NOT c.backlog THEN c.interval_s
            ELSE EXTRACT(EPOCH FROM claimed.claimed_at - c.claimed_at) * 0.1
                 + 0.9 * COALESCE(c.interval_s,
                                  EXTRACT(EPOCH FROM claimed.claimed_at - c.claimed_at))
            END,
        claimed_at = claimed.claimed_at,
        backlog = turn.waiting > 1 OR EXISTS (
            SELECT FROM queues q WHERE q.ready AND q.tenant_id <> turn.tenant_id);
    INSERT INTO events (tenant_id, execution_id, seq, attempt, kind, data)
    VALUES (claimed.tenant_id, claimed.execution_id, claimed.event_seq, claimed.attempt, 'state',
            jsonb_build_object('state', 'starting'));
    RETURN QUERY SELECT claimed.tenant_id, claimed.execution_id, claimed.attempt;
END
$$;

-- How many executions are claimed before this one if all goes on as now: those ahead of it in its
-- own tenant's queue, of each other tenant as many by weight, and one of each that is before it.
CREATE FUNCTION queue_position(p_execution uuid) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH mine AS (
        SELECT e.queued_at, e.execution_id FROM executions e
        WHERE e.tenant_id = app_tenant() AND e.execution_id = p_execution AND e.state = 'queued'
    ), ahead AS (
        SELECT count(*) AS own FROM executions e, mine m
        WHERE e.state = 'queued' AND e.tenant_id = app_tenant()
          AND (e.queued_at, e.execution_id) < (m.queued_at, m.execution_id)
    ), standing AS (
        SELECT q.load, q.served, q.tenant_id, t.weight
        FROM queues q JOIN tenant_quotas t USING (tenant_id) WHERE q.tenant_id = app_tenant()
    ), others AS (
        SELECT LEAST(q.waiting, a.own * t.weight / s.weight
                     + ((q.load, q.served, q.tenant_id)
                        < (s.load, s.served, s.tenant_id))::integer) AS share
        FROM ahead a, standing s, queues q JOIN tenant_quotas t USING (tenant_id)
        WHERE q.ready AND NOT t.suspended AND q.tenant_id <> app_tenant()
    )
    SELECT a.own + COALESCE((SELECT sum(o.share) FROM others o), 0)::bigint
    FROM ahead a WHERE EXISTS (SELECT FROM mine);
END;

-- Seconds from one claim to the next, lately, while something waited. NULL until that is known.
CREATE FUNCTION claim_interval() RETURNS double precision
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT CASE WHEN c.backlog
           THEN GREATEST(c.interval_s, EXTRACT(EPOCH FROM clock_timestamp() - c.claimed_at))
           ELSE c.interval_s END
    FROM queue_clock c WHERE c.interval_s IS NOT NULL;
END;

-- Waits until no other submission of this tenant is under way, and keeps others waiting until this
-- transaction ends: the last place is given away once. Any login could hold an advisory lock; this
-- row is the API's alone to lock. References to the tenant, which every insert checks, go on.
CREATE FUNCTION take_submission_turn() RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM tenants t WHERE t.tenant_id = app_tenant() FOR NO KEY UPDATE;
END
$$;

-- How many executions wait, and of how many tenants: overload is refused by it.
CREATE FUNCTION waiting_everywhere(OUT executions bigint, OUT tenants bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT COALESCE(sum(q.waiting), 0), count(*) FROM queues q WHERE q.ready;
END;

-- A weight that changed counts from now on.
CREATE FUNCTION weigh_queues() RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    UPDATE queues q SET load = q.active::double precision / t.weight
    FROM tenant_quotas t
    WHERE t.tenant_id = q.tenant_id AND q.load <> q.active::double precision / t.weight;
END;

-- Counts what waits and what is active, and charges the time for which a slot was held: by weight,
-- and a tenth of a second for each turn, as a container is made and removed however short it runs.
-- A queue that was empty begins where the clock is: nobody saves up turns by asking for none.
CREATE FUNCTION queue_moves() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    tenant uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.tenant_id ELSE NEW.tenant_id END;
    before text := CASE WHEN TG_OP = 'INSERT' THEN '' ELSE OLD.state END;
    after text := CASE WHEN TG_OP = 'DELETE' THEN '' ELSE NEW.state END;
    waits integer := (after = 'queued')::integer - (before = 'queued')::integer;
    is_active boolean := after IN ('starting', 'running');
    was_active boolean := before IN ('starting', 'running');
    begins integer := is_active::integer - was_active::integer;
    charge double precision := 0;
BEGIN
    IF begins > 0 THEN
        charge := 0.1;
    ELSIF begins < 0 THEN
        charge := COALESCE(GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - OLD.claimed_at), 0), 0);
    END IF;
    LOOP
        UPDATE queues q
        SET waiting = q.waiting + waits,
            active = q.active + begins,
            load = (q.active + begins) / w.share,
            served = CASE WHEN q.waiting = 0 AND waits > 0 THEN GREATEST(q.served, c.served)
                     ELSE q.served END + charge / w.share
        FROM queue_clock c,
             (SELECT COALESCE((SELECT t.weight FROM tenant_quotas t WHERE t.tenant_id = tenant), 1)
                     AS share) w
        WHERE q.tenant_id = tenant;
        EXIT WHEN FOUND OR TG_OP <> 'INSERT';
        INSERT INTO queues (tenant_id) VALUES (tenant) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NULL;
END
$$;

-- ==== Functions: executions =====================================================================

-- Attempts whose worker stopped renewing its lease, by the database's clock.
CREATE FUNCTION expired_leases(p_limit integer)
    RETURNS TABLE (tenant_id uuid, execution_id uuid, attempt integer)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT e.tenant_id, e.execution_id, e.attempt FROM executions e
    WHERE e.state IN ('starting', 'running') AND e.lease_until < clock_timestamp()
    ORDER BY e.lease_until LIMIT p_limit;
END;

-- A worker that starts knows that its node's earlier instances are dead: their leases end now.
CREATE FUNCTION end_leases_of_node(p_node text, p_instance text) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH ended AS (
        UPDATE executions e SET lease_until = '-infinity'
        WHERE e.state IN ('starting', 'running') AND e.node = p_node AND e.instance <> p_instance
        RETURNING 1
    )
    SELECT count(*) FROM ended;
END;

-- What suspended tenants still have waiting or running, and nobody has asked to end.
CREATE FUNCTION executions_of_suspended(p_limit integer)
    RETURNS TABLE (tenant_id uuid, execution_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT e.tenant_id, e.execution_id FROM tenants t JOIN executions e USING (tenant_id)
    WHERE t.suspended_at IS NOT NULL AND e.cancel_requested_at IS NULL
      AND e.state IN ('queued', 'starting', 'running')
    LIMIT p_limit;
END;

-- Gauges for /metrics: counts only.
CREATE FUNCTION state_counts() RETURNS TABLE (state text, executions bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT e.state, count(*) FROM executions e
    WHERE e.state IN ('queued', 'starting', 'running') GROUP BY e.state;
END;

-- How far the deployment is behind, in sums over all tenants.
CREATE FUNCTION deployment_lags(OUT queue_oldest_s double precision, OUT queue_tenants bigint,
                                OUT executions_overdue bigint, OUT sandboxes_overdue bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT (SELECT GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - min(e.queued_at)), 0)
            FROM executions e WHERE e.state = 'queued')::double precision,
           (SELECT count(*) FROM queues q WHERE q.ready),
           (SELECT count(*) FROM executions e
            WHERE e.state IN ('starting', 'running') AND e.lease_until < clock_timestamp()),
           (SELECT count(*) FROM sandboxes s
            WHERE s.state <> 'ended' AND s.lease_until < clock_timestamp());
END;

-- Tenants that have work or had some in the last minute, the longest queue first. Numbers alone: it
-- shows an operator nothing that is a tenant's.
CREATE FUNCTION load_by_tenant(p_limit integer)
    RETURNS TABLE (tenant text, tier text, suspended boolean, waiting integer, active integer,
                   concurrent integer, living bigint, ended_last_minute bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.name, t.tier, x.suspended, COALESCE(q.waiting, 0), COALESCE(q.active, 0),
           x.concurrent, s.living, e.ended
    FROM tenants t JOIN tenant_quotas x USING (tenant_id)
    LEFT JOIN queues q ON q.tenant_id = t.tenant_id
    CROSS JOIN LATERAL (SELECT count(*) AS living FROM sandboxes s
                        WHERE s.tenant_id = t.tenant_id AND s.state <> 'ended') s
    CROSS JOIN LATERAL (SELECT count(*) AS ended FROM executions e
                        WHERE e.tenant_id = t.tenant_id
                          AND e.ended_at > clock_timestamp() - interval '1 minute') e
    WHERE q.waiting > 0 OR q.active > 0 OR s.living > 0 OR e.ended > 0
    ORDER BY q.waiting DESC NULLS LAST, q.active DESC NULLS LAST, s.living DESC, t.name
    LIMIT p_limit;
END;

-- Adds what the ledger got to its day.
CREATE FUNCTION usage_adds_up() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    living boolean := NEW.kind = 'sandbox';
BEGIN
    INSERT INTO usage_days AS d (tenant_id, day, attempts, wall_s, cpu_s, memory_gib_s,
                                 egress_bytes_up, egress_bytes_down, artifact_bytes,
                                 sandbox_wall_s, sandbox_cpu_s, sandbox_memory_gib_s,
                                 port_bytes_in, port_bytes_out)
    VALUES (NEW.tenant_id, (NEW.ended_at AT TIME ZONE 'UTC')::date,
            CASE WHEN living THEN 0 ELSE 1 END, NEW.wall_s, NEW.cpu_s, NEW.memory_gib_s,
            NEW.egress_bytes_up, NEW.egress_bytes_down, NEW.artifact_bytes,
            CASE WHEN living THEN NEW.wall_s ELSE 0 END, CASE WHEN living THEN NEW.cpu_s ELSE 0 END,
            CASE WHEN living THEN NEW.memory_gib_s ELSE 0 END,
            NEW.port_bytes_in, NEW.port_bytes_out)
    ON CONFLICT (tenant_id, day) DO UPDATE
    SET attempts = d.attempts + EXCLUDED.attempts,
        wall_s = d.wall_s + EXCLUDED.wall_s,
        cpu_s = d.cpu_s + EXCLUDED.cpu_s,
        memory_gib_s = d.memory_gib_s + EXCLUDED.memory_gib_s,
        egress_bytes_up = d.egress_bytes_up + EXCLUDED.egress_bytes_up,
        egress_bytes_down = d.egress_bytes_down + EXCLUDED.egress_bytes_down,
        artifact_bytes = d.artifact_bytes + EXCLUDED.artifact_bytes,
        sandbox_wall_s = d.sandbox_wall_s + EXCLUDED.sandbox_wall_s,
        sandbox_cpu_s = d.sandbox_cpu_s + EXCLUDED.sandbox_cpu_s,
        sandbox_memory_gib_s = d.sandbox_memory_gib_s + EXCLUDED.sandbox_memory_gib_s,
        port_bytes_in = d.port_bytes_in + EXCLUDED.port_bytes_in,
        port_bytes_out = d.port_bytes_out + EXCLUDED.port_bytes_out;
    RETURN NULL;
END
$$;

-- ==== Functions: sandboxes that live ============================================================

-- All that a node holds, in one statement. What is not returned is not its any more; what is
-- `stopping` was asked to end. A lease that has run out is renewed as well, unless somebody has ended
-- the sandbox for it: it lives nowhere else, and while PostgreSQL was away nobody could renew it.
CREATE FUNCTION renew_sandbox_leases(p_node text, p_instance text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid, state text)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    UPDATE sandboxes s SET lease_until = clock_timestamp() + p_lease
    WHERE s.node = p_node AND s.instance = p_instance AND s.state <> 'ended'
    RETURNING s.tenant_id, s.sandbox_id, s.state;
END;

-- What may live on a node, whichever of its processes held it: a worker that starts looks for it.
CREATE FUNCTION sandboxes_of_node(p_node text)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid, state text, instance text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.sandbox_id, s.state, s.instance FROM sandboxes s
    WHERE s.node = p_node AND s.state <> 'ended';
END;

-- Sandboxes whose node stopped renewing its lease, or that no node has claimed in time.
CREATE FUNCTION expired_sandbox_leases(p_limit integer)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid, state text, node text, instance text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.sandbox_id, s.state, s.node, s.instance FROM sandboxes s
    WHERE s.state <> 'ended' AND s.lease_until < clock_timestamp()
    ORDER BY s.lease_until LIMIT p_limit;
END;

-- What keeps a node from being empty: it ends by itself, or its owner ends it.
CREATE FUNCTION held_by_node(p_node text, p_limit integer)
    RETURNS TABLE (kind text, tenant_id uuid, id uuid, state text, on_shortage text,
                   since timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT h.* FROM (
        SELECT 'execution', e.tenant_id, e.execution_id, e.state, NULL::text, e.claimed_at
        FROM executions e WHERE e.node = p_node AND e.state IN ('starting', 'running')
        UNION ALL
        SELECT 'sandbox', s.tenant_id, s.sandbox_id, s.state, s.on_shortage, s.created_at
        FROM sandboxes s WHERE s.node = p_node AND s.state <> 'ended'
    ) h (kind, tenant_id, id, state, on_shortage, since)
    ORDER BY h.since LIMIT p_limit;
END;

-- What of suspended tenants lives on a node.
CREATE FUNCTION sandboxes_of_suspended(p_node text, p_limit integer)
    RETURNS TABLE (tenant_id uuid, sandbox_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.tenant_id, s.sandbox_id FROM tenants t JOIN sandboxes s USING (tenant_id)
    WHERE t.suspended_at IS NOT NULL AND s.node = p_node AND s.state <> 'ended'
    LIMIT p_limit;
END;

-- Gauges for /metrics: counts only.
CREATE FUNCTION sandbox_counts() RETURNS TABLE (state text, sandboxes bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.state, count(*) FROM sandboxes s WHERE s.state <> 'ended' GROUP BY s.state;
END;

-- Whose an opened port is: who comes with a token, or with nothing, names no tenant.
CREATE FUNCTION find_sandbox_port(p_sandbox uuid, p_port integer)
    RETURNS TABLE (tenant_id uuid, token_hash bytea, expires_at timestamptz, tier text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT p.tenant_id, p.token_hash, p.expires_at, t.tier
    FROM sandbox_ports p JOIN sandboxes s USING (tenant_id, sandbox_id)
    JOIN tenants t USING (tenant_id)
    WHERE p.sandbox_id = p_sandbox AND p.port = p_port AND p.expires_at > now()
      AND s.state <> 'ended' AND t.suspended_at IS NULL;
END;

-- Prefixes of usable keys that may hold a token of a living sandbox. They are no secrets, and prove
-- nothing.
CREATE FUNCTION token_holders_of(p_sandbox uuid) RETURNS TABLE (prefix text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.prefix
    FROM sandboxes s
    JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.prefix = substr(s.created_by, 5)
    WHERE s.sandbox_id = p_sandbox AND s.state <> 'ended' AND s.created_by LIKE 'key:%'
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    UNION
    SELECT k.prefix
    FROM sandbox_holders h JOIN sandboxes s USING (tenant_id, sandbox_id)
    JOIN api_keys k USING (tenant_id, prefix)
    WHERE h.sandbox_id = p_sandbox AND s.state <> 'ended'
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now());
END;

-- The same of all living sandboxes, as a signed address of a file names neither sandbox nor key.
-- Tenants take turns, each with its newest sandboxes first, so none hides another's. The answer is
-- one value, because rows would take longer to read than to search: 16 bytes of a sandbox's id and
-- 12 of a prefix, again and again.
CREATE FUNCTION find_token_holders(p_limit integer, p_each integer) RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH held AS (
        SELECT s.tenant_id, s.sandbox_id, k.prefix
        FROM sandboxes s
        JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.prefix = substr(s.created_by, 5)
        WHERE s.state <> 'ended' AND s.created_by LIKE 'key:%'
          AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
        UNION
        SELECT s.tenant_id, s.sandbox_id, k.prefix
        FROM sandbox_holders h JOIN sandboxes s USING (tenant_id, sandbox_id)
        JOIN api_keys k USING (tenant_id, prefix)
        WHERE s.state <> 'ended'
          AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    ), ranked AS (
        SELECT sandbox_id, prefix,
               row_number() OVER (PARTITION BY tenant_id ORDER BY sandbox_id DESC, prefix) AS turn
        FROM held
    ), chosen AS (
        SELECT sandbox_id, prefix FROM ranked WHERE turn <= p_each
        ORDER BY turn, sandbox_id DESC LIMIT p_limit
    )
    SELECT COALESCE(string_agg(uuid_send(sandbox_id) || convert_to(prefix, 'UTF8'), ''), '')
    FROM chosen WHERE length(prefix) = 12;
END;

-- ==== Functions: files, objects and what is removed =============================================

-- Keeps storage_usage the sum of what is stored, and of the snapshots in it.
CREATE FUNCTION count_object() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    more_bytes bigint := 0;
    more       bigint := 0;
    of_these   bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state <> 'doomed' THEN
        more_bytes := more_bytes - OLD.bytes;
        more := more - 1;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state <> 'doomed' THEN
        more_bytes := more_bytes + NEW.bytes;
        more := more + 1;
    END IF;
    IF split_part(COALESCE(NEW.object_key, OLD.object_key), '/', 3) = 'snapshots' THEN
        of_these := more_bytes;
    END IF;
    IF TG_OP = 'INSERT' THEN
        -- Locks the tenant's sum until commit: what a quota is then compared with is exact.
        INSERT INTO storage_usage AS u (tenant_id, bytes, objects, snapshot_bytes)
        VALUES (NEW.tenant_id, more_bytes, more, of_these)
        ON CONFLICT (tenant_id) DO UPDATE
        SET bytes = u.bytes + excluded.bytes, objects = u.objects + excluded.objects,
            snapshot_bytes = u.snapshot_bytes + excluded.snapshot_bytes;
    ELSIF more <> 0 OR more_bytes <> 0 THEN
        UPDATE storage_usage u SET bytes = u.bytes + more_bytes, objects = u.objects + more,
                                   snapshot_bytes = u.snapshot_bytes + of_these
        WHERE u.tenant_id = OLD.tenant_id;
    END IF;
    RETURN NULL;
END
$$;

-- What nothing refers to any more is doomed. Its row is locked first: of two that let go of it at
-- once the second sees that the first has, and a new reference, which locks it as well, is seen.
CREATE FUNCTION release_object() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF OLD.object_key IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM FROM objects o
    WHERE o.tenant_id = OLD.tenant_id AND o.object_key = OLD.object_key FOR UPDATE;
    UPDATE objects o SET state = 'doomed', since = clock_timestamp()
    WHERE o.tenant_id = OLD.tenant_id AND o.object_key = OLD.object_key
      AND NOT EXISTS (SELECT FROM files r
                      WHERE r.tenant_id = o.tenant_id AND r.object_key = o.object_key)
      AND NOT EXISTS (SELECT FROM artifacts r
                      WHERE r.tenant_id = o.tenant_id AND r.object_key = o.object_key)
      AND NOT EXISTS (SELECT FROM input_files r
                      WHERE r.tenant_id = o.tenant_id AND r.object_key = o.object_key);
    RETURN NULL;
END
$$;

-- How large a snapshot is shows only once it is written. The API may write no sums, so this makes
-- its object as large as it is: never larger than what was reserved, and only while it is written.
CREATE FUNCTION keep_object_as(p_object_key text, p_bytes bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE objects o SET state = 'kept', bytes = p_bytes, since = clock_timestamp()
    WHERE o.tenant_id = app_tenant() AND o.object_key = p_object_key AND o.state = 'writing'
      AND p_bytes BETWEEN 0 AND o.bytes;
    RETURN FOUND;
END
$$;

-- An execution that has ended needs its inputs no more: what was overwritten meanwhile may go.
CREATE FUNCTION release_inputs() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM input_files i
    WHERE i.tenant_id = NEW.tenant_id AND i.execution_id = NEW.execution_id
      AND i.object_key IS NOT NULL;
    RETURN NULL;
END
$$;

-- Across tenants: who has something that is to go. What goes then goes tenant by tenant.
CREATE FUNCTION tenants_with_expired(p_days integer, p_grace interval, p_abandoned interval)
    RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT t.tenant_id FROM tenants t
    WHERE EXISTS (SELECT FROM executions e WHERE e.tenant_id = t.tenant_id AND e.ended_at
                  < now() - make_interval(days => COALESCE(t.retention_days, p_days)))
       OR EXISTS (SELECT FROM sandboxes s WHERE s.tenant_id = t.tenant_id AND s.ended_at
                  < now() - make_interval(days => COALESCE(t.retention_days, p_days)))
       OR EXISTS (SELECT FROM files f WHERE f.tenant_id = t.tenant_id AND f.expires_at <= now())
       OR EXISTS (SELECT FROM snapshots s WHERE s.tenant_id = t.tenant_id AND s.expires_at <= now())
       OR EXISTS (SELECT FROM templates m JOIN tenant_quotas q USING (tenant_id)
                  WHERE m.tenant_id = t.tenant_id AND q.template_days > 0
                    AND m.untagged_at < now() - make_interval(days => q.template_days))
       OR EXISTS (SELECT FROM objects o WHERE o.tenant_id = t.tenant_id AND o.state <> 'kept'
                  AND o.since < now() - CASE o.state WHEN 'doomed' THEN p_grace
                                                     ELSE p_abandoned END);
END;

-- Whether a template of this tenant is below another one, which may be another tenant's.
CREATE FUNCTION is_below_a_template(p_template uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM templates
                   WHERE base_owner = app_tenant() AND base_template = p_template)
$$;

-- How many templates of other tenants are built on this tenant's.
CREATE FUNCTION others_build_on_ours() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT count(*) FROM templates WHERE base_owner = app_tenant() AND tenant_id <> app_tenant();
END;

-- Of this transaction's tenant: templates that no tag has stood for too long, and on which nothing
-- rests: no template, no sandbox that lives, no execution that has not ended, no snapshot, and not
-- everybody. Objects are let go of.
CREATE FUNCTION remove_expired_templates(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT t.tenant_id, t.template_id FROM templates t JOIN tenant_quotas q USING (tenant_id)
        WHERE t.tenant_id = app_tenant() AND t.state = 'ready' AND q.template_days > 0
          AND t.untagged_at < now() - make_interval(days => q.template_days)
          AND NOT EXISTS (SELECT FROM public_templates p
                          WHERE p.tenant_id = t.tenant_id AND p.template_id = t.template_id)
          AND NOT EXISTS (SELECT FROM templates u
                          WHERE u.base_owner = t.tenant_id AND u.base_template = t.template_id)
          AND NOT EXISTS (SELECT FROM sandboxes s
                          WHERE s.image = t.name || '@' || t.template_id AND s.state <> 'ended')
          AND NOT EXISTS (SELECT FROM snapshots n WHERE n.image = t.name || '@' || t.template_id)
          AND NOT EXISTS (SELECT FROM executions e
                          WHERE e.tenant_id = t.tenant_id AND e.image = t.name || '@' || t.template_id
                            AND e.state IN ('queued', 'starting', 'running'))
        ORDER BY t.untagged_at LIMIT p_limit
    ), gone AS (
        DELETE FROM templates t USING chosen c
        WHERE t.tenant_id = c.tenant_id AND t.template_id = c.template_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;
-- Of this transaction's tenant: executions that ended longer ago than it keeps them, with all that
-- belongs to them. One that runs has no end and is out of reach.
CREATE FUNCTION remove_expired_executions(p_days integer, p_limit integer)
    RETURNS TABLE (executions bigint, events bigint, input_files bigint, artifacts bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT e.tenant_id, e.execution_id FROM executions e JOIN tenants t USING (tenant_id)
        WHERE e.tenant_id = app_tenant() AND e.ended_at
              < now() - make_interval(days => COALESCE(t.retention_days, p_days))
        ORDER BY e.ended_at LIMIT p_limit FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
        DELETE FROM executions e USING chosen c
        WHERE e.tenant_id = c.tenant_id AND e.execution_id = c.execution_id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone),
           (SELECT count(*) FROM events JOIN chosen USING (tenant_id, execution_id)),
           (SELECT count(*) FROM input_files JOIN chosen USING (tenant_id, execution_id)),
           (SELECT count(*) FROM artifacts JOIN chosen USING (tenant_id, execution_id));
END;

-- Of this transaction's tenant: sandboxes that ended longer ago than it keeps them.
CREATE FUNCTION remove_expired_sandboxes(p_days integer, p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT s.tenant_id, s.sandbox_id FROM sandboxes s JOIN tenants t USING (tenant_id)
        WHERE s.tenant_id = app_tenant() AND s.ended_at
              < now() - make_interval(days => COALESCE(t.retention_days, p_days))
        ORDER BY s.ended_at LIMIT p_limit FOR UPDATE OF s SKIP LOCKED
    ), gone AS (
        DELETE FROM sandboxes s USING chosen c
        WHERE s.tenant_id = c.tenant_id AND s.sandbox_id = c.sandbox_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;

-- Of this transaction's tenant: files whose time is over.
CREATE FUNCTION remove_expired_files(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT f.tenant_id, f.path FROM files f
        WHERE f.tenant_id = app_tenant() AND f.expires_at <= now()
        ORDER BY f.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM files f USING chosen c WHERE f.tenant_id = c.tenant_id AND f.path = c.path
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;

-- Of this transaction's tenant: snapshots whose time is over. Their objects are let go of.
CREATE FUNCTION remove_expired_snapshots(p_limit integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH chosen AS (
        SELECT s.tenant_id, s.snapshot_id FROM snapshots s
        WHERE s.tenant_id = app_tenant() AND s.expires_at <= now()
        ORDER BY s.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM snapshots s USING chosen c
        WHERE s.tenant_id = c.tenant_id AND s.snapshot_id = c.snapshot_id
        RETURNING 1
    )
    SELECT count(*) FROM gone;
END;

-- ==== Functions: secrets ========================================================================

-- Data keys that are wrapped by another key-encryption key: what a rotation has left to do.
CREATE FUNCTION secret_keys_not_under(p_kek text)
    RETURNS TABLE (tenant_id uuid, kek_id text, wrapped bytea)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT k.tenant_id, k.kek_id, k.wrapped FROM secret_keys k WHERE k.kek_id <> p_kek;
END;

-- ==== Functions: the audit log ==================================================================

-- Numbers and hashes a record. Locks the tenant's head until commit: concurrent writers queue up
-- and cannot fork the chain.
CREATE FUNCTION audit_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF (NEW.body::jsonb ->> 'tenant') IS DISTINCT FROM NEW.tenant_id::text THEN
        RAISE EXCEPTION 'audit body names another tenant' USING ERRCODE = 'check_violation';
    END IF;
    LOOP
        UPDATE audit_heads h
        SET seq = h.seq + 1, previous_hash = h.hash,
            hash = sha256(h.hash || int8send(h.seq + 1) || convert_to(NEW.body, 'UTF8'))
        WHERE h.tenant_id = NEW.tenant_id
        RETURNING h.seq, h.previous_hash, h.hash INTO NEW.seq, NEW.previous_hash, NEW.hash;
        EXIT WHEN FOUND;
        INSERT INTO audit_heads (tenant_id, seq, hash)
        VALUES (NEW.tenant_id, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NEW;
END
$$;

-- Records stay as they are. They go with their tenant alone; what is left is the platform's record
-- of that.
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'runner_eraser' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Whose chains differ from their newest checkpoint: it is that old, or an export waits.
CREATE FUNCTION audit_chains_due(p_age interval, p_except uuid[], p_limit integer)
    RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT h.tenant_id FROM audit_heads h
    LEFT JOIN LATERAL (SELECT c.seq, c.created_at FROM audit_checkpoints c
                       WHERE c.tenant_id = h.tenant_id ORDER BY c.seq DESC LIMIT 1) newest ON true
    WHERE h.seq <> COALESCE(newest.seq, 0) AND h.tenant_id <> ALL (p_except)
      AND (newest.seq IS NULL OR newest.created_at <= now() - p_age
           OR EXISTS (SELECT FROM audit_events e
                      WHERE e.tenant_id = h.tenant_id AND e.action = 'audit:export'
                        AND e.seq > newest.seq))
    ORDER BY newest.created_at NULLS FIRST LIMIT p_limit;
END;

-- How long the oldest record that no checkpoint covers has waited for one.
CREATE FUNCTION audit_unsealed_s() RETURNS double precision
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT COALESCE(EXTRACT(EPOCH FROM now() - min(e.at::timestamptz)), 0)::double precision
    FROM audit_heads h
    CROSS JOIN LATERAL (SELECT COALESCE(max(c.seq), 0) AS seq FROM audit_checkpoints c
                        WHERE c.tenant_id = h.tenant_id) newest
    JOIN audit_events e ON e.tenant_id = h.tenant_id AND e.seq = newest.seq + 1
    WHERE h.seq > newest.seq;
END;

-- Age of the oldest record that each sink has yet to get.
CREATE FUNCTION audit_undelivered() RETURNS TABLE (sink text, seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT c.sink, EXTRACT(EPOCH FROM now() - min(e.at::timestamptz))::double precision
    FROM audit_cursors c
    JOIN audit_heads h ON h.tenant_id = c.tenant_id AND h.seq > c.seq
    JOIN audit_events e ON e.tenant_id = c.tenant_id AND e.seq = c.seq + 1
    GROUP BY c.sink;
END;

-- The delivery that has been due for longest, for the caller alone until the lease ends.
CREATE FUNCTION claim_audit_delivery(p_sink text, p_lease interval)
    RETURNS TABLE (tenant_id uuid, seq bigint, failures integer, claim uuid)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF p_sink <> 'tenant' THEN
        -- The deployment's sinks get every chain, from its beginning.
        INSERT INTO audit_cursors (tenant_id, sink)
            SELECT h.tenant_id, p_sink FROM audit_heads h
            WHERE NOT EXISTS (SELECT FROM audit_cursors c
                              WHERE c.tenant_id = h.tenant_id AND c.sink = p_sink)
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN QUERY
        UPDATE audit_cursors c SET claim = gen_random_uuid(), due_at = now() + p_lease
        WHERE c.sink = p_sink AND c.tenant_id = (
            SELECT d.tenant_id FROM audit_cursors d JOIN audit_heads h USING (tenant_id)
            WHERE d.sink = p_sink AND d.due_at <= now() AND h.seq > d.seq
            ORDER BY d.due_at LIMIT 1 FOR UPDATE OF d SKIP LOCKED)
        RETURNING c.tenant_id, c.seq, c.failures, c.claim;
END
$$;

-- ==== Triggers ==================================================================================

CREATE TRIGGER release_object AFTER DELETE ON artifacts
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER audit_chain BEFORE INSERT ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_chain();
CREATE CONSTRAINT TRIGGER queue_enters AFTER INSERT ON executions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION queue_moves();
CREATE CONSTRAINT TRIGGER queue_leaves AFTER DELETE ON executions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW
    WHEN (old.state IN ('queued', 'starting', 'running'))
    EXECUTE FUNCTION queue_moves();
CREATE CONSTRAINT TRIGGER queue_moves AFTER UPDATE ON executions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW
    WHEN (old.state IS DISTINCT FROM new.state
          AND NOT (old.state = 'starting' AND new.state = 'running'))
    EXECUTE FUNCTION queue_moves();
CREATE TRIGGER release_inputs AFTER UPDATE OF state ON executions
    FOR EACH ROW
    WHEN (old.ended_at IS NULL AND new.ended_at IS NOT NULL)
    EXECUTE FUNCTION release_inputs();
-- Keeps templates.untagged_at.
CREATE FUNCTION tag_moves() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE templates t SET untagged_at = clock_timestamp()
        WHERE t.tenant_id = OLD.tenant_id AND t.template_id = OLD.template_id
          AND NOT EXISTS (SELECT FROM template_tags g WHERE g.tenant_id = t.tenant_id
                          AND g.template_id = t.template_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE templates t SET untagged_at = NULL
        WHERE t.tenant_id = NEW.tenant_id AND t.template_id = NEW.template_id
          AND t.untagged_at IS NOT NULL;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER release_object AFTER DELETE OR UPDATE OF object_key ON files
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER release_object AFTER DELETE ON input_files
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER release_object AFTER DELETE ON snapshots
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER release_object AFTER DELETE OR UPDATE OF object_key ON templates
    FOR EACH ROW EXECUTE FUNCTION release_object();
CREATE TRIGGER tag_moves AFTER INSERT OR DELETE OR UPDATE OF template_id ON template_tags
    FOR EACH ROW EXECUTE FUNCTION tag_moves();
CREATE TRIGGER forget_user AFTER DELETE ON memberships FOR EACH ROW EXECUTE FUNCTION forget_user();
CREATE TRIGGER count_object AFTER INSERT OR DELETE OR UPDATE ON objects
    FOR EACH ROW EXECUTE FUNCTION count_object();
CREATE CONSTRAINT TRIGGER usage_adds_up AFTER INSERT ON usage_records DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION usage_adds_up();
CREATE TRIGGER usage_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON usage_records
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();

-- ==== Policies ==================================================================================

-- A tenant's rows are seen and written in a transaction of that tenant alone, by the tables'
-- owner, too.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'api_keys', 'artifacts', 'audit_checkpoints', 'audit_cursors', 'audit_events',
        'audit_heads', 'audit_webhooks', 'egress_policies', 'events', 'executions',
        'files', 'idempotency_keys', 'identities', 'input_files', 'invitations', 'labels', 'memberships',
        'objects', 'projects', 'public_templates', 'queues', 'receipts', 'sandbox_holders', 'sandbox_ports', 'sandbox_receipts',
        'sandboxes', 'secret_keys', 'secrets', 'sessions', 'snapshots',
        'storage_usage', 'template_logs', 'template_tags', 'templates', 'tenants', 'usage_days', 'usage_records'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (tenant_id = app_tenant()) '
                       'WITH CHECK (tenant_id = app_tenant())', name);
    END LOOP;
END
$$;

ALTER TABLE password_resets ENABLE ROW LEVEL SECURITY;
ALTER TABLE password_resets FORCE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;

-- The functions that look across tenants are their owner's, runner_definer, who sees what they
-- need.
CREATE POLICY across_tenants ON api_keys TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON audit_checkpoints FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON audit_cursors TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY own_webhook ON audit_cursors AS RESTRICTIVE TO runner_api
    USING (sink = 'tenant') WITH CHECK (sink = 'tenant');
CREATE POLICY across_tenants ON audit_events FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON audit_heads TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON events TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON executions TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON files FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON identities FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON invitations FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON memberships FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON objects FOR SELECT TO runner_definer USING (true);
CREATE POLICY platform ON password_resets TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON queues TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON sandbox_ports TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON sandbox_holders TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON sandboxes TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON snapshots FOR SELECT TO runner_definer USING (true);
CREATE POLICY everybodys ON public_templates FOR SELECT USING (true);
CREATE POLICY everybodys ON templates FOR SELECT TO runner_api, runner_worker
    USING (EXISTS (SELECT FROM public_templates p
                   WHERE p.tenant_id = templates.tenant_id AND p.template_id = templates.template_id));
CREATE POLICY across_tenants ON templates TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY across_tenants ON template_tags FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON secret_keys FOR SELECT TO runner_definer USING (true);
CREATE POLICY across_tenants ON sessions FOR SELECT TO runner_definer USING (true);
CREATE POLICY ending ON sessions FOR DELETE TO runner_definer USING (true);
CREATE POLICY across_tenants ON tenants TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY operator ON tenants FOR SELECT TO runner_operator USING (true);
CREATE POLICY across_tenants ON usage_days TO runner_definer USING (true) WITH CHECK (true);
CREATE POLICY members ON users FOR SELECT TO runner_api, runner_owner
    USING (EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = users.user_id));
CREATE POLICY platform ON users TO runner_definer USING (true) WITH CHECK (true);

-- ==== Owners and grants =========================================================================

-- PostgreSQL asks for CREATE of the role that is to own a function; taken back below.
GRANT CREATE ON SCHEMA public TO runner_definer, runner_eraser;

DO $$
DECLARE
    signature regprocedure;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'add_user(uuid, text, text)',
        'audit_chain()',
        'audit_chains_due(interval, uuid[], integer)',
        'audit_undelivered()',
        'audit_unsealed_s()',
        'claim_audit_delivery(text, interval)',
        'claim_execution(text, text, interval)',
        'claim_interval()',
        'clear_sessions(uuid, interval)',
        'count_object()',
        'deployment_lags()',
        'end_leases_of_node(text, text)',
        'end_sessions(uuid, uuid)',
        'executions_of_suspended(integer)',
        'expired_leases(integer)',
        'expired_sandbox_leases(integer)',
        'find_api_key(text)',
        'find_identity(text, text, text)',
        'find_invitation(bytea)',
        'find_login(text, text)',
        'find_reset(bytea)',
        'find_sandbox_port(uuid, integer)', 'find_token_holders(integer, integer)',
        'token_holders_of(uuid)',
        'find_session(bytea, interval)',
        'find_tenant(text)',
        'forget_user()',
        'held_by_node(text, integer)',
        'hold_password(uuid, text)',
        'is_below_a_template(uuid)',
        'is_member(uuid)',
        'issue_reset(text, bytea, timestamptz)',
        'keep_object_as(text, bigint)',
        'load_by_tenant(integer)',
        'memberships_of(uuid)',
        'next_tenant()',
        'others_build_on_ours()',
        'password_of(uuid)',
        'queue_moves()',
        'queue_position(uuid)',
        'release_inputs()',
        'release_object()',
        'remove_expired_executions(integer, integer)',
        'remove_expired_files(integer)',
        'remove_expired_sandboxes(integer, integer)',
        'remove_expired_snapshots(integer)',
        'remove_expired_templates(integer)',
        'tag_moves()',
        'renew_sandbox_leases(text, text, interval)',
        'replace_password(uuid, text, text)',
        'reset_password(bytea, text)',
        'rights_that_stand(uuid[], uuid[], uuid[], interval)',
        'sandbox_counts()',
        'sandboxes_of_node(text)',
        'sandboxes_of_suspended(text, integer)',
        'secret_keys_not_under(text)',
        'sessions_of(uuid, interval)',
        'state_counts()',
        'take_submission_turn()',
        'tenant_standing(text)',
        'tenants_with_expired(integer, interval, interval)',
        'usage_adds_up()',
        'waiting_everywhere()',
        'weigh_queues()'
    ]::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runner_definer', signature);
    END LOOP;
END
$$;
ALTER FUNCTION erase_tenant() OWNER TO runner_eraser;

REVOKE ALL ON FUNCTION
    add_user(uuid, text, text), audit_chain(), audit_chains_due(interval, uuid[], integer),
    audit_undelivered(), audit_unsealed_s(), claim_audit_delivery(text, interval),
    deployment_lags(), load_by_tenant(integer), claim_execution(text, text, interval), claim_interval(), clear_sessions(uuid, interval),
    count_object(), end_leases_of_node(text, text), end_sessions(uuid, uuid), erase_tenant(),
    executions_of_suspended(integer), expired_leases(integer), find_api_key(text),
    find_identity(text, text, text), find_invitation(bytea), find_login(text, text),
    find_reset(bytea),
    find_sandbox_port(uuid, integer), find_session(bytea, interval), find_tenant(text),
    find_token_holders(integer, integer), token_holders_of(uuid), forget_user(),
    held_by_node(text, integer), hold_password(uuid, text), is_below_a_template(uuid), is_member(uuid),
    issue_reset(text, bytea, timestamptz),
    keep_object_as(text, bigint), memberships_of(uuid), next_tenant(), others_build_on_ours(), password_of(uuid), queue_moves(),
    queue_position(uuid), release_inputs(), release_object(),
    remove_expired_executions(integer, integer), remove_expired_files(integer),
    replace_password(uuid, text, text), reset_password(bytea, text),
    remove_expired_sandboxes(integer, integer), remove_expired_snapshots(integer),
    remove_expired_templates(integer), tag_moves(),
    renew_sandbox_leases(text, text, interval),
    rights_that_stand(uuid[], uuid[], uuid[], interval), sandbox_counts(),
    sandboxes_of_node(text), sandboxes_of_suspended(text, integer), secret_keys_not_under(text),
    sessions_of(uuid, interval), state_counts(), take_submission_turn(), tenant_standing(text),
    expired_sandbox_leases(integer), tenants_with_expired(integer, interval, interval), usage_adds_up(), waiting_everywhere(),
    weigh_queues()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    add_user(uuid, text, text), audit_undelivered(), audit_unsealed_s(), claim_interval(),
    deployment_lags(),
    clear_sessions(uuid, interval), end_sessions(uuid, uuid), find_api_key(text),
    find_identity(text, text, text), find_invitation(bytea), find_login(text, text),
    find_reset(bytea),
    find_sandbox_port(uuid, integer), find_session(bytea, interval),
    find_token_holders(integer, integer), token_holders_of(uuid), hold_password(uuid, text),
    is_below_a_template(uuid), keep_object_as(text, bigint), memberships_of(uuid),
    password_of(uuid), queue_position(uuid), replace_password(uuid, text, text),
    reset_password(bytea, text), rights_that_stand(uuid[], uuid[], uuid[], interval),
    sandbox_counts(), sessions_of(uuid, interval), state_counts(), take_submission_turn(), tenant_standing(text),
    waiting_everywhere()
TO runner_api;
GRANT EXECUTE ON FUNCTION
    erase_tenant(), load_by_tenant(integer), held_by_node(text, integer), others_build_on_ours()
TO runner_operator;
GRANT EXECUTE ON FUNCTION
    find_tenant(text), issue_reset(text, bytea, timestamptz), secret_keys_not_under(text),
    weigh_queues()
TO runner_owner;
GRANT EXECUTE ON FUNCTION
    audit_chains_due(interval, uuid[], integer), claim_audit_delivery(text, interval),
    claim_execution(text, text, interval), end_leases_of_node(text, text),
    executions_of_suspended(integer), expired_leases(integer), next_tenant(),
    expired_sandbox_leases(integer), is_below_a_template(uuid), keep_object_as(text, bigint),
    remove_expired_executions(integer, integer),
    remove_expired_files(integer), remove_expired_sandboxes(integer, integer),
    remove_expired_snapshots(integer), remove_expired_templates(integer),
    renew_sandbox_leases(text, text, interval), sandboxes_of_node(text),
    sandboxes_of_suspended(text, integer), tenants_with_expired(integer, interval, interval)
TO runner_worker;

REVOKE CREATE ON SCHEMA public FROM runner_definer, runner_eraser;

-- The API: what clients ask for.
GRANT SELECT ON tenants, tiers, storage_usage, artifacts, receipts, sandbox_receipts, queues, usage_records,
    usage_days, audit_heads, audit_checkpoints, tenant_quotas TO runner_api;
GRANT SELECT, INSERT, UPDATE (description, egress_policy, updated_at), DELETE ON projects TO
    runner_api;
GRANT SELECT, INSERT, UPDATE (expires_at, revoked_at, last_used_at, replaced_by) ON api_keys
    TO runner_api;
GRANT SELECT (user_id, email, created_at) ON users TO runner_api;
GRANT SELECT, INSERT, UPDATE (role), DELETE ON memberships TO runner_api;
GRANT SELECT (tenant_id, invitation_id, email, role, created_by, created_at, expires_at),
    INSERT, DELETE ON invitations TO runner_api;
GRANT SELECT (tenant_id, session_id, user_id), INSERT, UPDATE (last_used_at) ON sessions TO
    runner_api;
GRANT SELECT, INSERT, UPDATE (state, since) ON objects TO runner_api;
GRANT SELECT, INSERT, DELETE ON snapshots TO runner_api;
GRANT SELECT, INSERT ON snapshots TO runner_worker;
GRANT SELECT, INSERT, UPDATE (state, detail, ended_at, bytes, sha256, sealed_key, object_key, due_at,
    base_image, base_template, env, steps, start_command, ready_command, ready_s, base_owner, limits,
    workdir, username), DELETE
    ON templates TO runner_api;
GRANT SELECT, INSERT, UPDATE (template_id, assigned_at), DELETE ON template_tags TO runner_api;
GRANT SELECT ON public_templates TO runner_api, runner_worker;
GRANT SELECT, INSERT, UPDATE (tenant_id, template_id, published_by, published_at), DELETE
    ON public_templates TO runner_operator;
GRANT SELECT (tenant_id, template_id, name, tag, state) ON templates TO runner_operator;
GRANT SELECT (tenant_id, template_id, base_image, base_owner, base_template, name, state, untagged_at),
      UPDATE (untagged_at), DELETE
    ON templates TO runner_definer;
GRANT SELECT ON template_tags, public_templates TO runner_definer;
GRANT SELECT (image) ON sandboxes TO runner_definer;
GRANT SELECT, INSERT ON template_logs TO runner_api;
GRANT SELECT (tenant_id, template_id, state, base_image, base_template, base_owner, bytes, sha256,
              sealed_key, object_key, untagged_at, due_at, username)
    ON templates TO runner_worker;
-- A key is free again if nothing came of its first use.
GRANT DELETE ON idempotency_keys TO runner_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON files, egress_policies TO runner_api;
GRANT SELECT, INSERT, UPDATE (state, ended_at, cancel_requested_at, event_seq, result) ON
    executions TO runner_api;
GRANT SELECT (tenant_id, sandbox_id, state, reason, detail, created_at, created_by, started_at,
              ended_at, timeout_s, expires_at, on_timeout, lives_until, project, image, size,
              resources, isolation, egress, egress_policy, env, secret_env, metadata, node,
              lease_until, auto_resume, filling, builds, on_shortage, kept_as, workdir,
              username),
      INSERT (tenant_id, sandbox_id, created_by, timeout_s, expires_at, on_timeout, lives_until,
              project, image, size, resources, isolation, egress, egress_policy, env, secret_env,
              metadata, lease_until, auto_resume, filling, builds, on_shortage, workdir,
              username),
      UPDATE (state, reason, detail, ended_at, timeout_s, expires_at, metadata, lease_until,
              egress, egress_policy, filling, on_shortage)
    ON sandboxes TO runner_api;
GRANT SELECT (tenant_id, sandbox_id, port, public, opened_by, opened_at, expires_at), INSERT,
      DELETE
    ON sandbox_ports TO runner_api;
GRANT SELECT, INSERT ON sandbox_holders TO runner_api;
GRANT SELECT, INSERT ON labels, input_files, events, idempotency_keys, secret_keys,
    audit_events TO runner_api;
GRANT SELECT (tenant_id, name, created_at, updated_at), INSERT, UPDATE (sealed, updated_at),
    DELETE ON secrets TO runner_api;
GRANT SELECT (tenant_id, url, created_at, updated_at), INSERT, UPDATE (url, sealed,
    updated_at), DELETE ON audit_webhooks TO runner_api;
GRANT SELECT, INSERT, UPDATE (due_at, failures, problem), DELETE ON audit_cursors TO
    runner_api;

-- The worker: what executions are given, and what becomes of them.
GRANT SELECT ON tenants, tiers, storage_usage, input_files, queues, usage_days, secret_keys,
    secrets, audit_heads, audit_webhooks, tenant_quotas TO runner_worker;
GRANT SELECT, INSERT, UPDATE (state, since), DELETE ON objects TO runner_worker;
GRANT SELECT, INSERT, UPDATE ON files TO runner_worker;
GRANT SELECT, UPDATE (state, queued_at, started_at, ended_at, cancel_requested_at,
    lease_until, node, instance, event_seq, result, given_back) ON executions TO runner_worker;
GRANT SELECT, UPDATE (state, reason, detail, started_at, ended_at, expires_at, node, instance,
                      lease_until, guest, counted_at, counted_cpu_s, counted_up, counted_down,
                      counted_port_in, counted_port_out, slices, masks, kept_as)
    ON sandboxes TO runner_worker;
GRANT SELECT, INSERT ON events, artifacts, receipts, sandbox_receipts, secret_keys, audit_checkpoints TO runner_worker;
GRANT INSERT ON usage_records TO runner_worker;
GRANT SELECT, INSERT, SELECT (tenant_id, seq, hash) ON audit_events TO runner_worker;
GRANT SELECT, UPDATE (seq, due_at, claim, failures, problem) ON audit_cursors TO
    runner_worker;

-- Nodes: the worker writes its own, the operator decides whether it takes anything.
GRANT SELECT ON nodes TO runner_api, runner_operator, runner_worker, runner_definer;
GRANT UPDATE (state) ON nodes TO runner_operator;
GRANT INSERT (node, instance, version, door, zone, isolations, images, slots, sandboxes, cpus,
              memory_mb, free_mb, away_at),
      UPDATE (instance, version, door, zone, isolations, images, templates, slots, sandboxes, cpus,
              memory_mb, running, living, free_mb, fault, started_at, seen_at, away_at)
    ON nodes TO runner_worker;

-- The operator's alone: whoever could write here could become a node.
GRANT SELECT, INSERT (invitation_id, node, hash, made_by, expires_at),
      UPDATE (revoked_at, used_at, used_as)
    ON node_invitations TO runner_operator;

-- The operators' part of the API: tenants, not what is theirs.
GRANT SELECT, INSERT, UPDATE (max_concurrency, max_limits, required_isolation, tier,
    suspended_at, suspended_why, egress_ceiling, retention_days, quotas, reuse) ON tenants TO
    runner_operator;
GRANT SELECT, UPDATE (last_used_at) ON operators TO runner_operator;
GRANT SELECT, INSERT (session_id, operator_id, hash, expires_at),
      UPDATE (last_used_at, ended_at)
    ON operator_sessions TO runner_operator;
GRANT INSERT ON api_keys TO runner_operator;
GRANT SELECT (tenant_id, state) ON executions, sandboxes TO runner_operator;
GRANT SELECT (tenant_id, seq, hash), INSERT ON audit_events TO runner_operator;
GRANT SELECT (tenant_id, seq, hash) ON audit_heads TO runner_operator;

-- The functions that look across tenants.
GRANT SELECT ON tenants, tiers, api_keys, identities, memberships, invitations, artifacts, secret_keys,
    audit_checkpoints, tenant_quotas, sandbox_ports, sandbox_holders TO runner_definer;
GRANT SELECT, INSERT, UPDATE (password), DELETE ON users TO runner_definer;
GRANT SELECT, DELETE ON sessions, input_files TO runner_definer;
GRANT SELECT, INSERT, UPDATE, DELETE ON password_resets TO runner_definer;
GRANT SELECT, UPDATE (bytes, state, since) ON objects TO runner_definer;
GRANT SELECT, INSERT, UPDATE ON storage_usage, queues, usage_days, audit_heads, audit_cursors
    TO runner_definer;
GRANT SELECT, UPDATE (expires_at), DELETE ON files, snapshots TO runner_definer;
GRANT SELECT, UPDATE, DELETE ON executions TO runner_definer;
GRANT SELECT (tenant_id, sandbox_id, state, ended_at, node, instance, lease_until, created_by,
              created_at, on_shortage),
      UPDATE (lease_until), DELETE
    ON sandboxes TO runner_definer;
GRANT SELECT, INSERT ON events TO runner_definer;
GRANT SELECT, UPDATE ON queue_clock TO runner_definer;
GRANT UPDATE ON claim_turn TO runner_definer;
GRANT UPDATE (tenant_id) ON tenants TO runner_definer;
GRANT SELECT (tenant_id, seq, at, action) ON audit_events TO runner_definer;

-- The function that ends a tenant.
GRANT SELECT (tenant_id, suspended_at), DELETE ON tenants TO runner_eraser;
GRANT DELETE ON projects, api_keys, identities, memberships, invitations, sessions, objects,
    storage_usage, files, snapshots, templates, template_logs, template_tags, public_templates, labels, input_files, events, artifacts, receipts, sandbox_receipts,
    idempotency_keys,
    queues, usage_records, usage_days, egress_policies, secret_keys, secrets, audit_events, audit_heads,
    audit_checkpoints, audit_webhooks, audit_cursors, sandbox_ports, sandbox_holders TO runner_eraser;
GRANT SELECT (tenant_id, state), DELETE ON executions, sandboxes TO runner_eraser;

-- Rows of tables that are made later go with their tenant, too.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT DELETE ON TABLES TO runner_eraser;
