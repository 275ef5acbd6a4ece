"""The secrets of a living sandbox stay masked after its worker was started again."""

import signal
from functools import partial

from agent_runner import Client, Process, Sandbox, Unavailable
from tests.support.deployment import Deployment, eventually

FIRST, SECOND, DELETED = "first-value-of-it", "second-value-of-it-too", "deleted-value-of-it"


def with_secrets(api: Client) -> tuple[Sandbox, Process]:
    """Return a sandbox, and a process that writes its secrets once it is told to."""
    given = {"ROTATED": "rotated", "DELETED": "deleted"}
    made = api.sandboxes.create(size="nano", timeout_s=None, secret_env=given)
    return made, made.start("read _; echo $ROTATED $DELETED", keep_stdin_open=True)


def answers(sandbox: Sandbox) -> bool:
    """Return whether its node is there."""
    try:
        sandbox.processes()
    except Unavailable:
        return False
    return True


def written(process: Process) -> str:
    """Have it write what it was given."""
    process.write(b"\n")
    process.wait()
    return b"".join(each.raw for each in process.output(offset=0)).decode()


def test_what_a_secret_was_is_masked_and_one_that_was_deleted_ends_nothing(own: Deployment) -> None:
    """The control, whose masks were not kept, shows the earlier values."""
    api = own.client("masks")
    api.put_secret("rotated", FIRST)
    api.put_secret("deleted", DELETED)
    (kept, keeper), (control, bare) = with_secrets(api), with_secrets(api)
    own.portal.call(own.worker.stop, signal.SIGKILL)
    api.put_secret("rotated", SECOND)
    api.delete_secret("deleted")
    (row,) = own.sql("SELECT masks FROM sandboxes WHERE sandbox_id = %s", kept.id)
    assert FIRST.encode() not in bytes(row["masks"])
    own.sql("UPDATE sandboxes SET masks = NULL WHERE sandbox_id = %s", control.id)
    own.restart_worker()
    for each in (kept, control):
        eventually(partial(answers, each), within_s=60)
    said = written(keeper)
    assert FIRST not in said
    assert DELETED not in said
    assert FIRST in written(bare)
    now = kept.run("echo ${DELETED-gone}; printf %s $ROTATED | wc -c; echo $ROTATED")
    assert now.stdout.text.split()[:2] == ["gone", str(len(SECOND))]
    assert SECOND not in now.stdout.text
    for each in (kept, control):
        each.kill()
