"""Messages that wait together are worked on together; one that fails, fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import XML_MEDIA_TYPE, codec_for
from dom0_agent.omadm.status import ProtocolError
from virmo_server.dm import message_queue
from virmo_server.dm.conversation import Alone, Answer, Busy, Question
from virmo_server.dm.message_queue import MAX_TOGETHER, MessageQueue, Outcome


def question(source: str, text: str = "") -> Question:
    header = c.SyncHdr(session_id="1", msg_id=1, target="server", source=source)
    return Question(codec_for(XML_MEDIA_TYPE), text.encode(), None, "192.0.2.1", c.Message(header, (), final=True))


class Work:
    """Answers each message with its own octets; ``hold`` keeps the first call waiting until :meth:`go`."""

    def __init__(self, *, hold: bool = False) -> None:
        self.batches: list[list[str]] = []
        self._go = threading.Event()
        if not hold:
            self._go.set()

    def go(self) -> None:
        self._go.set()

    def __call__(self, questions: Sequence[Question]) -> Sequence[Outcome]:
        self.batches.append([question.message.header.source for question in questions])
        assert self._go.wait(10)
        if any(question.untrusted_body == b"bad" for question in questions):
            raise ValueError("bad")
        together = len(questions) > 1
        return [answer_to(question.untrusted_body, together=together) for question in questions]


def answer_to(body: bytes, *, together: bool) -> Outcome:
    if body == b"refused":
        return ProtocolError("refused")
    return Alone() if together and body == b"alone" else Answer(body, None)


def run(work: Work, *questions: Question, threads: int = 1) -> list[Answer | BaseException]:
    """Ask the first, and all others while it is worked on."""

    async def ask_all() -> list[Answer | BaseException]:
        queue = MessageQueue(work, threads)
        queue.start()
        tasks = [asyncio.create_task(queue.ask(questions[0]))]
        while not work.batches:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(queue.ask(asked)) for asked in questions[1:]]
        await asyncio.sleep(0.05)
        work.go()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(queue.close)
        with pytest.raises(Busy):
            await queue.ask(question("late"))
        return answers

    return asyncio.run(ask_all())


def texts(answers: Sequence[Answer | BaseException]) -> list[str]:
    return [answer.body.decode() if isinstance(answer, Answer) else repr(answer) for answer in answers]


def test_what_waits_is_worked_on_together() -> None:
    work = Work(hold=True)
    asked = [question(f"board-{number}", f"text {number}") for number in range(MAX_TOGETHER + 4)]
    assert texts(run(work, *asked)) == [f"text {number}" for number in range(MAX_TOGETHER + 4)]
    sizes = [len(batch) for batch in work.batches]
    assert sizes == [1, MAX_TOGETHER, 3]


def test_messages_of_one_device_are_never_together_and_keep_their_order() -> None:
    work = Work(hold=True)
    asked = [question("first"), *(question(source, f"{n}") for n in range(3) for source in ("a", "b"))]
    assert texts(run(work, *asked)) == ["", "0", "0", "1", "1", "2", "2"]
    assert work.batches == [["first"], ["a", "b"], ["a", "b"], ["a", "b"]]


def test_a_message_that_fails_fails_alone() -> None:
    work = Work(hold=True)
    asked = [question("first"), question("a", "good"), question("b", "bad"), question("c", "refused")]
    answers = run(work, *asked)
    assert texts(answers) == ["", "good", "ValueError('bad')", "ProtocolError('refused')"]
    assert work.batches == [["first"], ["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_a_message_whose_device_is_busy_is_worked_on_alone() -> None:
    work = Work(hold=True)
    asked = [question("first"), question("a", "1"), question("b", "alone"), question("c", "2")]
    assert texts(run(work, *asked)) == ["", "1", "alone", "2"]
    assert work.batches == [["first"], ["a", "b", "c"], ["b"]]


def test_messages_gather_while_one_thread_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads would share them, and each share costs a transaction."""
    monkeypatch.setattr(message_queue, "HELD_UP", 60.0)
    work = Work(hold=True)
    assert len(run(work, *(question(f"board-{number}") for number in range(9)), threads=4)) == 9
    assert [len(batch) for batch in work.batches] == [1, 8]


def test_another_thread_goes_on_when_one_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who has locked a device: the others need not wait for that."""
    monkeypatch.setattr(message_queue, "HELD_UP", 0.02)
    work = Work(hold=True)

    async def ask_in_turn() -> list[Answer]:
        queue = MessageQueue(work, 4)
        queue.start()
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(queue.ask(question(f"board-{number}"))))
            while len(work.batches) <= number:
                await asyncio.sleep(0.005)
        work.go()
        answers = await asyncio.gather(*tasks)
        await asyncio.to_thread(queue.close)
        return answers

    assert len(asyncio.run(ask_in_turn())) == 4
    assert work.batches == [[f"board-{number}"] for number in range(4)]


def test_who_has_gone_is_not_answered() -> None:
    work = Work(hold=True)

    async def leave() -> Answer:
        queue = MessageQueue(work, 1)
        queue.start()
        gone = asyncio.create_task(queue.ask(question("gone")))
        stays = asyncio.create_task(queue.ask(question("stays", "here")))
        await asyncio.sleep(0.05)
        gone.cancel()
        work.go()
        answer = await stays
        await asyncio.to_thread(queue.close)
        return answer

    assert asyncio.run(leave()) == Answer(b"here", None)
