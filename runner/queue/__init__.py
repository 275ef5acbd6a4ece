"""The pipe between API and worker; both ends import it.

Redis is the doorbell, PostgreSQL the truth. A ring carries two ids and says "look"; the worker
then claims whose turn it is in PostgreSQL. A lost ring is rung again by the worker's reconciler,
a repeated one finds nothing to claim, a forged one runs nothing and is audited.

    doorbell     rings
    job          the one job there is; the only module that touches RQ
    changes      announcements that an execution changed
    connections  connections to Redis that wait for nothing long
"""
