"""The pipe between API and worker; both ends import it.

Redis is the doorbell, PostgreSQL the truth. A ring carries two ids and says "look"; the worker
then claims whose turn it is in PostgreSQL. A lost ring is rung again by the worker's reconciler,
a repeated one finds nothing to claim, a forged one runs nothing and is audited.

    doorbell     rings
    producer     makes the one job there is
    consumer     takes it, with RQ's worker
    job          the job, checked before RQ sees it
    rings        the one queue in Redis
    ring         what a job may say
    changes      announcements that an execution changed
    connections  connections to Redis that wait for nothing long
"""
