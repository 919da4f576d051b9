"""The verb ``clock``: after a resume the guest's clock stands where it was suspended; dom0's is right.

Sets the clock when it is off by more than a second, and after a resume runs the executables in ``/etc/virmo/resume.d``
in the order of their names, as an integrator needs them (renew a lease, tell a service).
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from guest_shim.dispatch import Answer, Dispatcher, Request

logger = logging.getLogger(__name__)

HOOKS = "/etc/virmo/resume.d"
#: Seconds of difference that are left to NTP.
TOLERANCE = 1.0
#: Seconds that one hook may run.
HOOK_DEADLINE = 30.0
#: A clock before this, 2020-01-01, is dom0's mistake.
_EARLIEST = 1577836800.0


class Clock:
    """Handles ``clock``. Its dependencies are passed in for tests: nobody sets a test machine's clock."""

    def __init__(
        self,
        hooks: str = HOOKS,
        now: Callable[[], float] = time.time,
        set_time: Callable[[float], None] = lambda value: time.clock_settime(time.CLOCK_REALTIME, value),
        deadline: float = HOOK_DEADLINE,
    ) -> None:
        self._hooks = hooks
        self._now = now
        self._set_time = set_time
        self._deadline = deadline

    def register(self, dispatcher: Dispatcher) -> None:
        """Answer ``clock``, and say so in hello."""
        dispatcher.add("clock", self.handle)
        dispatcher.capabilities.add("clock")

    def handle(self, request: Request) -> Answer:
        """``time`` is seconds since the epoch; ``resumed``: run the hooks. Tells the step and what hooks ran."""
        wanted = request.fields["time"]
        if not isinstance(wanted, (int, float)) or isinstance(wanted, bool) or not _EARLIEST <= wanted < 1 << 40:
            raise ValueError(f"{wanted!r} is no time")
        step = float(wanted) - self._now()
        if abs(step) > TOLERANCE:
            self._set_time(float(wanted))
            logger.warning("the clock was set by %+.1f s", step)
        else:
            step = 0.0
        hooks = self._run_hooks() if request.fields.get("resumed") is True else {}
        return Answer(200, {"step": step, "hooks": hooks})

    def _run_hooks(self) -> dict[str, int]:
        """Exit statuses by name; -9 for one that had to be killed."""
        try:
            names = sorted(os.listdir(self._hooks))  # noqa: PTH208 - no pathlib here: it costs memory
        except FileNotFoundError:
            return {}
        return {
            name: self._run(f"{self._hooks}/{name}") for name in names if os.access(f"{self._hooks}/{name}", os.X_OK)
        }

    def _run(self, path: str) -> int:
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        pid = os.posix_spawn(path, [path], dict(os.environ), file_actions=actions, setsid=True)
        end = time.monotonic() + self._deadline
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if code:
            logger.warning("the resume hook %s ended with %d", path, code)
        return code
