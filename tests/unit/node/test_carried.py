"""The bytes of connections to ports are counted at once, and told while connections last."""

import pytest

from runner.node.residents.carried import TOLD_EVERY_S, CarriedBytes, PortBytes, counting


def test_a_connection_that_lasts_is_told_of_before_it_ends() -> None:
    """Each byte once; while nothing is carried, nothing is told."""
    now, ports, told = 0.0, PortBytes(), list[PortBytes]()
    carried = CarriedBytes(ports, told.append, lambda: now)
    carried.add(into=3, out=5)
    assert (ports, told) == (PortBytes(3, 5), [])
    now += TOLD_EVERY_S
    carried.add(out=1)
    assert told == [PortBytes(3, 6)]
    now += 10 * TOLD_EVERY_S
    assert len(told) == 1
    carried.add(into=2)
    carried.add(into=4)
    carried.tell()
    assert told[1:] == [PortBytes(2, 0), PortBytes(4, 0)]
    assert ports == PortBytes(9, 6)


def test_connections_of_one_sandbox_add_up() -> None:
    """What one that fails has carried counts, too."""
    ports, told = PortBytes(1, 1), list[PortBytes]()

    def breaks() -> None:
        with counting(ports, told.append) as second:
            second.add(into=10)
            raise ConnectionError

    with counting(ports, told.append) as first:
        with pytest.raises(ConnectionError):
            breaks()
        first.add(into=20, out=1)
    assert told == [PortBytes(10, 0), PortBytes(20, 1)]
    assert ports == PortBytes(31, 2)
