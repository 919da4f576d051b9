"""When the next session is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.omadm.retry import Backoff
from dom0_agent.schedule import SessionSchedule


def schedule(poll: float = 100.0) -> SessionSchedule:
    return SessionSchedule(poll, Backoff(5.0, 60.0, 0.5), chance=lambda: 0.0)


def test_nothing_is_due_until_somebody_asks() -> None:
    plan = schedule()
    assert (plan.is_due(0), plan.wait(0)) == (False, None)
    plan.ask(1)
    assert (plan.is_due(1), plan.wait(1)) == (True, 0.0)


def test_a_good_session_is_followed_by_the_poll() -> None:
    plan = schedule()
    plan.ended(10, ok=True)
    assert plan.wait(10) == 100.0
    assert plan.is_due(110)


def test_without_polling_nothing_is_due() -> None:
    plan = schedule(poll=0)
    plan.ended(10, ok=True)
    assert plan.wait(10) is None


def test_failures_pause_longer_each_time_up_to_the_maximum() -> None:
    plan = schedule()
    pauses = []
    for _ in range(6):
        plan.ended(0, ok=False)
        pauses.append(plan.wait(0))
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    plan.ended(0, ok=True)
    plan.ended(0, ok=False)
    assert plan.wait(0) == 5.0


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_chance_spreads_retries_over_half_the_pause(chance: float) -> None:
    plan = SessionSchedule(0, Backoff(8.0, 60.0, 0.5), lambda: chance)
    plan.ended(0, ok=False)
    wait = plan.wait(0)
    assert wait is not None
    assert 4.0 <= wait <= 8.0


def test_asking_does_not_wait_for_the_retry() -> None:
    plan = schedule()
    plan.ended(0, ok=False)
    plan.ask(1)
    assert plan.is_due(1)


def test_alerts_make_a_session_due_once() -> None:
    plan = schedule()
    plan.ended(0, ok=True)
    plan.alerts_wait(1, waiting=True)
    assert plan.is_due(1)


@pytest.mark.parametrize(("poll", "pause"), [(100.0, 60.0), (0.0, 60.0), (30.0, 30.0)])
def test_alerts_that_the_server_did_not_take_are_not_repeated_in_a_tight_loop(poll: float, pause: float) -> None:
    plan = schedule(poll)
    plan.alerts_wait(0, waiting=True)
    plan.ended(1, ok=True)
    plan.alerts_wait(1, waiting=True)
    assert plan.wait(1) == pause


def test_an_alert_that_came_too_late_for_a_session_makes_the_next_one_due_at_once() -> None:
    """Seen on real Xen: an operation ended while the session that had answered 202 was closing."""
    plan = schedule(poll=0)
    plan.alerts_wait(10.0, False)
    plan.ended(10.0, True, late_alerts=True)
    assert plan.is_due(10.0)
    plan.alerts_wait(10.0, True)
    plan.ended(11.0, True)
    assert not plan.is_due(12.0), "one that the server did not take is not repeated in a tight loop"


def test_alerts_do_not_cut_a_retry_pause_short() -> None:
    plan = schedule()
    plan.ended(0, ok=False)
    plan.alerts_wait(1, waiting=True)
    assert not plan.is_due(1)


def test_many_failures_do_not_overflow() -> None:
    plan = schedule()
    for _ in range(5000):
        plan.ended(0, ok=False)
    assert plan.wait(0) == 60.0
