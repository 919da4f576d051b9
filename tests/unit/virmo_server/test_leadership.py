"""Of several processes one leads; when it is gone, another does."""

from __future__ import annotations

from tests.unit.virmo_server.conftest import MovableClock
from virmo_server.leadership import LEASE, Leadership
from virmo_server.maintenance import maintain
from virmo_server.services import Services


def test_one_leads_until_it_is_gone(services: Services, clock: MovableClock) -> None:
    first, second = (Leadership(services.database, clock) for _ in range(2))
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    clock.forward(seconds=LEASE.total_seconds() - 1)
    assert not second.take()
    clock.forward(seconds=1)
    assert [second.take(), first.take()] == [True, False]


def test_an_orderly_end_lets_others_lead_at_once(services: Services, clock: MovableClock) -> None:
    first, second = (Leadership(services.database, clock) for _ in range(2))
    assert first.take()
    second.give_up()
    assert not second.take()
    first.give_up()
    assert second.take()


def test_only_the_leader_maintains(services: Services, clock: MovableClock) -> None:
    assert maintain(services)
    other = Leadership(services.database, clock)
    clock.forward(seconds=LEASE.total_seconds())
    assert other.take()
    assert not maintain(services)
