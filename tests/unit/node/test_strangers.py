"""Which hosts have failed too often at the door, for now."""

from runner.node.residents.strangers import Failures


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_failures_are_forgotten_at_their_rate() -> None:
    clock = Clock()
    failures = Failures(3, per_s=2.0, clock=clock)
    for _ in range(3):
        assert not failures.too_many("192.0.2.1")
        failures.add("192.0.2.1")
    assert failures.too_many("192.0.2.1")
    clock.now += 0.5
    assert not failures.too_many("192.0.2.1")
    failures.add("192.0.2.1")
    assert failures.too_many("192.0.2.1")
    clock.now += 3600
    assert not failures.too_many("192.0.2.1")


def test_a_success_makes_up_for_all_failures_of_its_site() -> None:
    failures = Failures(1, per_s=0.0)
    failures.add("192.0.2.1")
    failures.add("192.0.2.2")
    failures.forget("192.0.2.1")
    failures.forget("192.0.2.3")
    assert [failures.too_many(f"192.0.2.{number}") for number in (1, 2, 3)] == [False, True, False]


def test_each_site_has_its_own_count() -> None:
    """Whoever has an IPv6 /64 has all its addresses; IPv4 by IPv6 is the same host."""
    failures = Failures(1, per_s=0.0)
    failures.add("2001:db8::1")
    failures.add("192.0.2.1")
    assert [
        host
        for host in (
            "2001:db8::ffff:2", "2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.2", "fe80::1%eth0",
        )
        if failures.too_many(host)
    ] == ["2001:db8::ffff:2", "::ffff:192.0.2.1"]  # fmt: skip


def test_the_oldest_are_forgotten_first() -> None:
    """Strangers from many addresses take no more memory than that."""
    failures = Failures(1, per_s=0.0, most_sites=2)
    for host in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        failures.add(host)
    assert [failures.too_many(f"192.0.2.{number}") for number in (1, 2, 3)] == [True, False, True]
