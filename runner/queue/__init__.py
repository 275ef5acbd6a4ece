"""The queue between API and worker; both ends import it.

Redis is the doorbell, PostgreSQL the truth. A ring carries two ids and only says "look". The worker
then claims an execution in PostgreSQL, of the tenant whose turn it is. If a ring is lost, the
worker's reconciler rings again. A repeated ring finds nothing to claim. A forged one runs nothing
and is audited.

    doorbell     rings
    producer     makes the only permitted job
    consumer     takes it, with RQ's worker
    job          the job, checked before RQ sees it
    rings        the one queue in Redis
    ring         what a job may say
    changes      announcements that an execution changed, and sealed notices of its end
    connections  connections to Redis, with short time-outs
    eviction     what Redis does when it is full, and what its user may do
"""
