"""Progress of a build: a bar on a terminal, percentage lines elsewhere (logs, CI).

Knows nothing of what is built. A build names its steps with weights (roughly seconds), so that the percentage moves
with time and not with the number of steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

#: Width of the bar itself; with percentage, time and message the line fits 80 columns for short messages.
BAR_WIDTH = 24
#: In a log, a step's own advance is worth a line only every so many percent of the whole.
LOG_STEP_PERCENT = 10


class Progress:
    """One build's progress. Not thread-safe: the builder reports from the thread that builds."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = sys.stderr if stream is None else stream
        self._bar = self._stream.isatty()
        self._total = 0.0
        self._done = 0.0
        self._weight = 0.0
        self._message = ""
        self._last_percent = -LOG_STEP_PERCENT
        self._started = time.monotonic()
        self._weights: dict[str, float] = {}

    def plan(self, weights: Mapping[str, float]) -> None:
        """Adds the steps that lie ahead. A step that turns out to be cached is finished by `skip`."""
        self._weights.update(weights)
        self._total = sum(self._weights.values())

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Runs one planned step; what it does in between may call `fraction`."""
        self._weight = self._weights[name]
        self._message = name
        self._show(0.0, new_message=True)
        yield
        self._done += self._weight
        self._weight = 0.0
        self._show(0.0)

    def skip(self, names: Mapping[str, float], why: str) -> None:
        """Counts planned steps as done without running them, because their result exists."""
        self._done += sum(self._weights[name] for name in names)
        self._message = why
        self._show(0.0, new_message=True)

    def note(self, message: str) -> None:
        """Shows a message inside the running step."""
        self._message = message
        self._show(0.0, new_message=True)

    def fraction(self, part: float) -> None:
        """Tells how much of the running step is done, 0 to 1."""
        self._show(min(max(part, 0.0), 1.0))

    def finish(self) -> None:
        """Ends the bar's line."""
        seconds = time.monotonic() - self._started
        self._done, self._weight, self._message = self._total, 0.0, f"done in {seconds:.0f} s"
        self._show(0.0, new_message=True)
        if self._bar:
            self._stream.write("\n")
            self._stream.flush()

    def percent(self) -> int:
        """The whole percentage of finished steps."""
        return int(100 * self._done / self._total) if self._total else 0

    def _show(self, part: float, *, new_message: bool = False) -> None:
        share = (self._done + part * self._weight) / self._total if self._total else 0.0
        percent = int(100 * share)
        if self._bar:
            filled = int(BAR_WIDTH * share)
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            self._stream.write(f"\r\x1b[K{self._title} [{bar}] {percent:3d}% {self._message[:60]}")
        elif new_message or percent >= self._last_percent + LOG_STEP_PERCENT:
            self._last_percent = percent
            self._stream.write(f"{self._title} {percent:3d}% {self._message}\n")
        self._stream.flush()
