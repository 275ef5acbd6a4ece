"""Key-encryption keys, from a file or the environment: the first wraps, all unwrap."""

import base64
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.secrets.envelope import new_key
from runner.secrets.keyring import KeyFile, KeyRing, key_id, open_keys
from runner.words.errors import KeyUnavailable, SetupError

PLACE = b"a place"


def written(*keys: bytes) -> str:
    """Return a ring as text."""
    return "\n".join(base64.b64encode(key).decode() for key in keys)


async def test_the_first_key_wraps_and_every_key_unwraps() -> None:
    """So a ring with a new key in front still opens what was wrapped before."""
    old, new = new_key(), new_key()
    before = await KeyRing.parse(written(old), "ring").wrap(b"data key", bound_to=PLACE)
    ring = KeyRing.parse(written(new, old), "ring")
    after = await ring.wrap(b"data key", bound_to=PLACE)
    assert (before.kek_id, after.kek_id) == (key_id(old), key_id(new))
    assert await ring.current() == key_id(new)
    for wrapped in (before, after):
        assert await ring.unwrap(wrapped, bound_to=PLACE) == b"data key"
    with pytest.raises(KeyUnavailable, match="not in the ring"):
        await KeyRing.parse(written(new), "ring").unwrap(before, bound_to=PLACE)
    with pytest.raises(KeyUnavailable, match="does not open"):
        await ring.unwrap(after, bound_to=b"another place")


@pytest.mark.parametrize(
    "text",
    ["", "\n", "c2hvcnQ=", "not base64!", written(new_key()) + " c2VjcmV0LXRleHQ="],
    ids=["empty", "a line", "short", "not base64", "two words"],
)
def test_what_is_no_ring_is_refused_without_quoting_it(text: str) -> None:
    """It is refused when a process starts, whether it comes from the environment or a file."""
    with pytest.raises(SetupError) as refused:
        open_keys(Settings(secrets_key=SecretStr(text)))
    assert not [word for word in text.split() if word in refused.value.detail]


async def test_a_file_that_is_not_there_is_told_when_it_is_needed(tmp_path: Path) -> None:
    """A deployment without secrets needs no key."""
    keys = open_keys(Settings(state_dir=tmp_path))
    with pytest.raises(KeyUnavailable, match="RUNNER_SECRETS_KEY"):
        await keys.wrap(b"data key", bound_to=PLACE)


async def test_a_file_is_made_private_and_once(tmp_path: Path) -> None:
    """The embedded stack makes it; if several try at once, all use the same key."""
    path = tmp_path / "keys" / "secrets.kek"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: KeyFile(path).make(), range(16)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["secrets.kek"]
    assert len(KeyFile(path).ring().keys) == 1


async def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """It is refused when a process starts, and also if others got the right later."""
    path = tmp_path / "kek"
    keys = KeyFile(path)
    keys.make()
    path.chmod(0o640)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        await keys.current()
    with pytest.raises(SetupError, match="chmod 600"):
        KeyFile(path)


async def test_a_key_added_to_the_file_is_used_at_once(tmp_path: Path) -> None:
    """Even a process that opened the file earlier uses it; what was wrapped before still opens."""
    process, operator = KeyFile(tmp_path / "kek"), KeyFile(tmp_path / "kek")
    operator.make()
    before = await process.wrap(b"data key", bound_to=PLACE)
    added = operator.add()
    assert await process.current() == added != before.kek_id
    assert await process.unwrap(before, bound_to=PLACE) == b"data key"
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600


async def test_a_key_is_forgotten_a_rotation_later_and_never_while_it_wraps(tmp_path: Path) -> None:
    """The newest two keys stay, and every key that wraps something."""
    keys = KeyFile(tmp_path / "kek")
    keys.make()
    first = await keys.current()
    second = keys.add()
    assert keys.retire({second}) == []
    third = keys.add()
    assert keys.retire({first, third}) == []
    assert keys.retire({third}) == [first]
    assert list(keys.ring().keys) == [third, second]


def test_rotations_wait_for_each_other(tmp_path: Path) -> None:
    """Four processes add twenty keys each, and none is lost."""
    path = tmp_path / "kek"
    KeyFile(path).make()
    code = (
        "import sys; from pathlib import Path; from runner.secrets.keyring import KeyFile; "
        "keys = KeyFile(Path(sys.argv[1]))\n"
        "for _ in range(20):\n"
        "    with keys.rotating(): keys.add()"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    assert [each.wait(30) for each in started] == [0] * 4
    assert len(KeyFile(path).ring().keys) == 81


def test_keys_are_in_no_repr() -> None:
    """People print settings when they look for something else."""
    key = new_key()
    settings = Settings(secrets_key=SecretStr(written(key)))
    assert written(key) not in f"{settings!r}{settings.as_environment()}{open_keys(settings)!r}"
