-- part: columns
node, state, away_at <= clock_timestamp() AS away, version, door, zone, isolations, images,
templates, slots, sandboxes, cpus, memory_mb, running, living, free_mb, fault, joined_at,
started_at, seen_at

-- name: join
-- A node that was removed stays removed: no row comes back.
INSERT INTO nodes AS n (node, instance, version, door, zone, isolations, images, slots, sandboxes,
                        cpus, memory_mb, free_mb, away_at)
VALUES (%(node)s, %(instance)s, %(version)s, %(door)s, %(zone)s, %(isolations)s, %(images)s,
        %(slots)s, %(sandboxes)s, %(cpus)s, %(memory_mb)s, %(free_mb)s,
        clock_timestamp() + %(lasting)s)
ON CONFLICT (node) DO UPDATE
SET instance = EXCLUDED.instance, version = EXCLUDED.version, door = EXCLUDED.door,
    zone = EXCLUDED.zone, isolations = EXCLUDED.isolations, images = EXCLUDED.images,
    slots = EXCLUDED.slots, sandboxes = EXCLUDED.sandboxes, cpus = EXCLUDED.cpus,
    memory_mb = EXCLUDED.memory_mb, free_mb = EXCLUDED.free_mb, away_at = EXCLUDED.away_at,
    running = 0, living = 0, fault = NULL, started_at = clock_timestamp(),
    seen_at = clock_timestamp()
WHERE n.state <> 'removed'
RETURNING n.state, n.joined_at = now() AS is_new;

-- name: beat
UPDATE nodes
SET running = %(running)s, living = %(living)s, free_mb = %(free_mb)s, fault = %(fault)s,
    templates = %(templates)s, seen_at = clock_timestamp(),
    away_at = clock_timestamp() + %(lasting)s
WHERE node = %(node)s AND instance = %(instance)s
RETURNING state;

-- name: leave
UPDATE nodes SET away_at = clock_timestamp(), running = 0
WHERE node = %(node)s AND instance = %(instance)s;

-- name: list
SELECT {columns}
FROM nodes ORDER BY node;

-- name: get
SELECT {columns}
FROM nodes WHERE node = %(node)s;

-- name: lock
SELECT state, away_at <= clock_timestamp() AS away FROM nodes WHERE node = %(node)s FOR NO KEY UPDATE;

-- name: order
UPDATE nodes SET state = %(state)s WHERE node = %(node)s;

-- name: held
SELECT kind, tenant_id, id, state, on_shortage, since FROM held_by_node(%(node)s, %(limit)s);
