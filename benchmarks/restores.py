"""How long a backup, a restore and its verification take, by what the deployment holds.

    python -m benchmarks.restores --objects 1000 --kib 1024 --records 100000

It needs no Docker: a test's small deployment is filled with files and audit records of one tenant,
backed up, and restored into an empty one on the same disk.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from runner.backup import whole
from runner.backup.check import check
from runner.backup.restore import restore
from runner.base.signing import TrustedKeys
from runner.cli import human
from runner.secrets.keyring import KeyFile
from runner.store.db import Database
from tests.support.backups import HERE, quiet, small
from tests.support.deployment import DISK

RECORDS = """
INSERT INTO audit_events (tenant_id, body)
SELECT %s::uuid, format('{"action":"execution:submit","actor":"key:a",'
       '"at":"2026-01-01T00:00:00.000000Z","id":"%%s","metadata":{"number":%%s},"outcome":"success","resource_id":null,'
       '"resource_type":"execution","tenant":"%%s"}', gen_random_uuid(), n, %s::text)
FROM generate_series(1, %s) AS n"""
"""Records as small as real ones; the database chains them."""
STEP = 20_000


async def measure(objects: int, kib: int, records: int) -> None:
    """Fill, back up, restore and verify; print how long each took."""
    with small() as source, small() as target, tempfile.TemporaryDirectory(dir=DISK) as folder:
        await source.install()
        tenant = await source.tenant("acme", count=0)
        for number in range(objects):
            await source.file(tenant, f"{number}", os.urandom(kib * 1024))
        for begun in range(0, records, STEP):
            count = min(STEP, records - begun)
            source.sql(RECORDS, str(tenant), str(tenant), count, tenant=tenant)
        await source.seal()
        ((size,),) = source.sql("SELECT pg_database_size(current_database())")
        print(f"{objects} objects of {kib} KiB, {records} records, database {human.size(size)}")
        backup, keys = Path(folder) / "backup", Path(folder) / "keys"
        began = time.monotonic()
        manifest = await source.backed_up(backup, keys)
        print(f"backup   {time.monotonic() - began:8.1f} s")
        began = time.monotonic()
        whole.require_whole(backup, keys, manifest)
        print(f"verify   {time.monotonic() - began:8.1f} s")
        began = time.monotonic()
        await restore(backup, keys, manifest, target.place, HERE, quiet)
        print(f"restore  {time.monotonic() - began:8.1f} s")
        began = time.monotonic()
        ring = KeyFile(target.settings.secrets_key_path).ring()
        async with Database(target.logins.superuser, max_size=1) as database:
            keys_of = TrustedKeys(target.folder).read()
            checked = await check(database, target.objects, keys_of, ring, backup)
        print(f"check    {time.monotonic() - began:8.1f} s")
        faults = [fault for each in checked for fault in each.faults]
        if faults:
            raise SystemExit(f"what was restored does not hold: {faults}")


def main() -> None:
    """Read the sizes, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--kib", type=int, default=1024)
    parser.add_argument("--records", type=int, default=100_000)
    given = parser.parse_args()
    asyncio.run(measure(given.objects, given.kib, given.records))


if __name__ == "__main__":
    main()
