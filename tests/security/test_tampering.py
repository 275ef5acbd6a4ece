"""A database superuser rewrites a log and brings a signing key of their own.

Nothing that the database says makes a rewritten log look right, and the worker never seals it.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from agent_runner import Client
from agent_runner.errors import Unavailable
from runner.api.gauges import KEPT_S
from runner.audit import checkpoints
from runner.audit.chain import Head, link_hash
from runner.audit.memory import Memory
from runner.base.signing import Signer, TrustedKeys
from tests.support.deployment import Deployment, eventually


@dataclass
class Victim:
    """A tenant whose log is sealed, and what an attacker does to it."""

    deployment: Deployment
    client: Client
    key: str
    tenant: UUID
    forger: Signer
    receipt: str

    @property
    def trusted(self) -> TrustedKeys:
        """The keys that the deployment trusts."""
        return TrustedKeys(self.deployment.stack.settings.state_dir)

    @property
    def memory(self) -> Memory:
        """The worker's memory."""
        return Memory(self.deployment.stack.settings.state_dir)

    def rewrite(self, first: int, *, forge: bool) -> Head:
        """Change record `first`, compute all hashes after it anew, and replace the checkpoints."""
        url = self.deployment.stack.services.postgres.url("postgres", "runner")
        with psycopg.connect(url) as attacker:
            attacker.execute("SET session_replication_role = replica")
            rows = attacker.execute(
                "SELECT seq, body, previous_hash FROM audit_events "
                "WHERE tenant_id = %s AND seq >= %s ORDER BY seq",
                [self.tenant, first],
            ).fetchall()
            previous = before = rows[0][2]
            for seq, body, _ in rows:
                changed = json.loads(body)
                changed["user_agent"] = "rewritten"
                text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
                before, previous = previous, link_hash(previous, seq, text)
                attacker.execute(
                    "UPDATE audit_events SET body = %s, previous_hash = %s, hash = %s "
                    "WHERE tenant_id = %s AND seq = %s",
                    [text, before, previous, self.tenant, seq],
                )
            head = Head(rows[-1][0], previous)
            attacker.execute(
                "UPDATE audit_heads SET hash = %s, previous_hash = %s WHERE tenant_id = %s",
                [head.hash, before, self.tenant],
            )
            attacker.execute("DELETE FROM audit_checkpoints WHERE tenant_id = %s", [self.tenant])
            if forge:
                sealed = checkpoints.sign(self.forger, self.tenant, head, datetime.now(UTC))
                attacker.execute(
                    "INSERT INTO audit_checkpoints (tenant_id, seq, document) VALUES (%s, %s, %s)",
                    [self.tenant, head.seq, sealed],
                )
        return head

    def verify(self) -> "subprocess.CompletedProcess[str]":
        """Run `runner audit verify` as an operator does on the worker's host."""
        return subprocess.run(
            [sys.executable, "-m", "runner", "audit", "verify"],
            env={
                "PATH": "/usr/bin:/bin",
                "COLUMNS": "500",
                "RUNNER_URL": self.deployment.url,
                "RUNNER_API_KEY": self.key,
                "RUNNER_STATE_DIR": str(self.deployment.stack.settings.state_dir),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def sealed(self) -> int:
        """Return the record of the newest stored checkpoint."""
        rows = self.deployment.sql(
            "SELECT COALESCE(max(seq), 0) AS seq FROM audit_checkpoints WHERE tenant_id = %s",
            self.tenant,
        )
        return int(rows[0]["seq"])

    def seal(self) -> None:
        """Ask for an export, which makes the worker seal at once."""
        with self.client.export_audit() as pieces:
            b"".join(pieces)

    def refused(self) -> list[str]:
        """Return what the worker's log says about this tenant's log."""
        log = self.deployment.stack.settings.state_dir / "log" / "worker.log"
        return [
            line
            for line in log.read_text().splitlines()
            if "audit_chain_broken" in line and str(self.tenant) in line
        ]

    def unsealed_s(self) -> float:
        """Return the value of the metric."""
        time.sleep(KEPT_S)
        text = self.deployment.http("sec-metrics").get("/metrics").text
        name = "runner_audit_unsealed_seconds "
        (line,) = [line for line in text.splitlines() if line.startswith(name)]
        return float(line.split()[1])


@pytest.fixture
def victim(own: Deployment, tmp_path: Path) -> Victim:
    """Return a tenant with a run, its receipt, and a sealed log."""
    key = own.key("sec-tampered")
    client = own.clients.enter_context(Client(own.url, key))
    ran = client.run(command=["true"], size="nano")
    tenant = UUID(client.audit(limit=1)["items"][0]["record"]["tenant"])
    victim = Victim(
        own, client, key, tenant, Signer.open(tmp_path / "forger"), client.receipt(ran.id)
    )
    victim.seal()
    assert victim.verify().returncode == 0
    return victim


def test_a_key_that_the_attacker_stores_verifies_nothing(victim: Victim) -> None:
    """`runner audit verify` names the place, and the worker refuses to seal and says so.

    The control trusts the attacker's key, as the database's keys once were, and lacks the worker's
    memory and the receipts. There, the same log looks right, and is sealed with our key.
    """
    head = victim.rewrite(2, forge=True)
    found = victim.verify()
    assert found.returncode == 1
    assert "is not ours: signed by key" in found.stderr, found.stderr
    place = json.loads(victim.receipt)["body"]["audit_head"]["seq"]
    assert f"record {place} is not the one of the receipt" in found.stderr
    with pytest.raises(Unavailable, match="not one of ours"):
        victim.seal()
    (line,) = eventually(victim.refused)[:1]
    assert "signed by key" in line
    assert victim.sealed() == head.seq, "the forger's own, and none of the worker's"
    time.sleep(1)
    assert victim.unsealed_s() > 0.5

    victim.trusted.add(victim.forger.public_keys[0].pem)
    assert "is not the one of the receipt" in victim.verify().stderr
    victim.deployment.sql("DELETE FROM receipts WHERE tenant_id = %s", victim.tenant)
    assert "is not the one of what you hold" in victim.verify().stderr
    assert victim.memory.forget(victim.tenant)
    assert victim.verify().returncode == 0
    victim.deployment.portal.call(victim.deployment.worker.stop)
    victim.deployment.restart_worker()
    eventually(lambda: victim.sealed() > head.seq)


def test_checkpoints_that_are_gone_do_not_make_a_rewritten_log_whole(victim: Victim) -> None:
    """The worker's memory shows the place. The control: without that memory, nothing shows it."""
    victim.rewrite(2, forge=False)
    victim.deployment.sql("DELETE FROM receipts WHERE tenant_id = %s", victim.tenant)
    found = victim.verify()
    assert found.returncode == 1
    assert "is not the one of what you hold" in found.stderr
    with pytest.raises(Unavailable, match="no worker has signed"):
        victim.seal()
    assert "what this worker sealed" in victim.refused()[0]
    assert victim.sealed() == 0
    assert victim.memory.forget(victim.tenant)
    assert victim.verify().returncode == 0


def test_a_receipt_pins_the_log(victim: Victim) -> None:
    """It does so without checkpoints and memory. The control: without it, the log looks right."""
    victim.rewrite(2, forge=False)
    assert victim.memory.forget(victim.tenant)
    found = victim.verify()
    assert found.returncode == 1
    assert "is not the one of the receipt of execution" in found.stderr
    with pytest.raises(Unavailable, match="no worker has signed"):
        victim.seal()
    assert "the receipt of execution" in victim.refused()[0]
    assert victim.sealed() == 0
    victim.deployment.sql("DELETE FROM receipts WHERE tenant_id = %s", victim.tenant)
    assert victim.verify().returncode == 0
