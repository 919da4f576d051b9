"""Backoff and lock-out."""

from __future__ import annotations

from dom0_agent.omadm import retry
from dom0_agent.omadm.retry import Backoff, BackoffLockOut, LockRecord


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(base=10, cap=100, jitter=0)
    assert [backoff.delay(failures, lambda: 0.0) for failures in range(7)] == [0, 10, 20, 40, 80, 100, 100]
    assert backoff.delay(10_000, lambda: 0.0) == 100


def test_jitter_spreads_downwards() -> None:
    backoff = Backoff(base=10, cap=100, jitter=0.5)
    assert backoff.delay(1, lambda: 0.0) == 10
    assert backoff.delay(1, lambda: 1.0) == 5


def test_records_are_kept_in_the_mapping_that_was_given() -> None:
    records: dict[str, LockRecord] = {}
    lock_out = BackoffLockOut(lambda: 100.0, free=0, records=records)
    lock_out.failed("d")
    assert records == {"d": LockRecord(1, 130.0)}
    assert BackoffLockOut(lambda: 129.0, records=records).is_locked("d")


def test_guessing_device_ids_does_not_fill_the_memory() -> None:
    records: dict[str, LockRecord] = {}
    lock_out = BackoffLockOut(lambda: 0.0, free=0, records=records)
    lock_out.failed("important")
    lock_out.failed("important")
    most = retry.MAX_REMEMBERED
    for number in range(most + 50):
        records[f"d{number}"] = LockRecord(1, 1.0)
        if len(records) >= most:
            break
    lock_out.failed("one more")
    assert len(records) == most
    assert lock_out.is_locked("important")
