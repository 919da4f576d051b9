"""DM messages on their way from the event loop to the threads that work on them, several in one transaction.

Beginning and ending a transaction costs as much as a message, so what waits together is worked on together: one thread
takes all there is, and another one begins only when that one is held up, by somebody who has locked a device. Messages
of one device never share a transaction. Knows nothing of what is done with messages.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from virmo_server.dm.conversation import Alone, Answer, Busy, Question

#: Messages in one transaction: more save little, and each waits for the last.
MAX_TOGETHER = 64
#: Seconds after which a thread that is at work counts as held up.
HELD_UP = 0.1

Outcome = Answer | BaseException
Work = Callable[[Sequence[Question]], Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    question: Question
    answer: asyncio.Future[Answer]


class MessageQueue:
    """``threads`` threads that call ``work``. Used from one event loop, between :meth:`start` and :meth:`close`."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work = work
        self._threads = [threading.Thread(target=self._run, name=f"dm-{number}") for number in range(threads)]
        self._waiting: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._begun: dict[str, float] = {}  # threads that are at work, and since when
        self._is_watched = False  # a thread waits for that to have lasted too long
        self._closing = False

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    async def ask(self, question: Question) -> Answer:
        """The answer; raises what the work raised for this message."""
        waiting = _Waiting(question, asyncio.get_running_loop().create_future())
        with self._change:
            if self._closing:
                raise Busy("the server is stopping")
            self._waiting.append(waiting)
            if not self._begun or not self._is_watched:  # else there is somebody who looks at it in time
                self._change.notify()
        return await waiting.answer

    def close(self) -> None:
        """Work on what waits, and end."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while taken := self._take():
            outcomes = self._outcomes([waiting.question for waiting in taken])
            taken[0].answer.get_loop().call_soon_threadsafe(_deliver, taken, outcomes)

    def _take(self) -> list[_Waiting]:
        """What is to be worked on next; nothing when all is done and the queue is closed."""
        name = threading.current_thread().name
        with self._change:
            self._begun.pop(name, None)
            while not (self._waiting and self._may_begin()):
                if self._waiting:
                    self._is_watched = True
                    self._change.wait(HELD_UP)
                    self._is_watched = False
                elif self._closing:
                    return []
                else:
                    self._change.wait()
            self._begun[name] = time.monotonic()
            taken: dict[str, _Waiting] = {}
            later: list[_Waiting] = []
            while self._waiting and len(taken) < MAX_TOGETHER:
                waiting = self._waiting.popleft()
                if taken.setdefault(waiting.question.source, waiting) is not waiting:
                    later.append(waiting)
            self._waiting.extendleft(reversed(later))
            return list(taken.values())

    def _may_begin(self) -> bool:
        now = time.monotonic()
        return all(now - begun >= HELD_UP for begun in self._begun.values())

    def _outcomes(self, questions: Sequence[Question]) -> Sequence[Outcome]:
        try:
            outcomes = self._work(questions)
        except Exception as error:  # noqa: BLE001 - it is raised where the message came from
            if len(questions) == 1:
                return [error]
        else:
            pairs = zip(questions, outcomes, strict=True)
            return [self._alone(question) if isinstance(outcome, Alone) else outcome for question, outcome in pairs]
        # All was undone. Whichever message it was, it shall fail alone.
        return [self._alone(question) for question in questions]

    def _alone(self, question: Question) -> Outcome:
        (outcome,) = self._outcomes([question])
        return outcome


def _deliver(taken: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
    for waiting, outcome in zip(taken, outcomes, strict=True):
        if waiting.answer.done():
            continue  # who asked has gone
        if isinstance(outcome, BaseException):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)
