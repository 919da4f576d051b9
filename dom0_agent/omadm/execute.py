"""Executes a server's commands on the management tree and answers each with Status and Results (digest sections 4, 6).

Order of answers: a container's Status before its members', Results right after the Status of their Get. The tree does
the checks; this module knows which status a failure gives the commands around it. It knows no message and no session.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import USER_INTERACTION
from dom0_agent.omadm.interaction import UserInterface, answer_items, question_from
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.outbox import carried_size
from dom0_agent.omadm.status import CommitFailed, DMError, Status
from dom0_agent.omadm.tnds import is_tnds
from dom0_agent.omadm.tree_access import AtomicAccess, ItemValue, NodeResult, TreeAccess

#: outcomes of a user interaction that stop the whole message (digest 3.1)
_STOPPING = frozenset({Status.CANCELLED, Status.TIMEOUT})
#: and those that end a Sequence or fail an Atomic
_ENDING = _STOPPING | {Status.NOT_MODIFIED}

_FORMATS = {format_.value: format_ for format_ in Format}


class _Reply:
    """What one command is answered with; ``codes`` has one entry per Item, or one for the whole command."""

    __slots__ = ("codes", "command", "items", "members", "results")

    def __init__(
        self,
        command: c.BodyElement,
        codes: list[int],
        *,
        results: Sequence[c.Item] = (),
        items: tuple[c.Item, ...] = (),
        members: Sequence[_Reply] = (),
    ) -> None:
        self.command = command
        self.codes = codes
        self.results = results
        self.items = items
        self.members = members


class Executor:
    """Runs the commands of one server's messages.

    ``max_object``: the server's MaxObjSize (octets), if it named one; ``max_received``: ours. What is larger is 413.
    """

    def __init__(
        self,
        tree: TreeAccess,
        server_id: str,
        carry: Callable[[c.Item], c.Item],
        ui: UserInterface | None = None,
        *,
        max_object: int | None = None,
        max_received: int = sys.maxsize,
    ) -> None:
        self._tree = tree
        self._server_id = server_id
        self._carry = carry
        self._ui = ui
        self.max_object = max_object
        self._max_received = max_received
        self._stopped = False

    def begin_message(self) -> None:
        """A new message: an abort by the user stops only the message that asked him."""
        self._stopped = False

    def execute(self, command: c.BodyElement, msg_ref: int) -> list[c.BodyElement]:
        """The answers to ``command`` of message ``msg_ref``, not numbered yet."""
        reply = self._skip(command) if self._stopped else self._run(command)
        answers: list[c.BodyElement] = []
        _answer(reply, msg_ref, answers)
        return answers

    def _run(self, command: c.BodyElement) -> _Reply:
        if not command.cmd_id:
            return _Reply(command, [Status.BAD_REQUEST])
        return _RUN[type(command)](self, command)

    def _skip(self, command: c.BodyElement) -> _Reply:
        members = [self._skip(m) for m in command.commands] if isinstance(command, (c.Atomic, c.Sequence)) else []
        return _Reply(command, [Status.NOT_EXECUTED], members=members)

    # ---- commands with Items

    def _get(self, command: c.Get) -> _Reply:
        results: list[c.Item] = []
        codes: list[int] = [self._get_item(item, results) for item in command.items]
        return _Reply(command, codes or [Status.INCOMPLETE], results=results)

    def _get_item(self, item: c.Item, results: list[c.Item]) -> int:
        try:
            found = self._tree.get(self._server_id, _target(item))
        except DMError as error:
            return error.status
        items = [self._result(node) for node in found]
        if self.max_object is not None and any(_exceeds(found.data or "", self.max_object) for found in items):
            return Status.TOO_LARGE
        results += items
        return Status.OK

    def _result(self, node: NodeResult) -> c.Item:
        value = node.value
        item = c.Item(None, node.uri, _meta(value.format, value.type), value.data if node.has_data else None)
        return self._carry(item) if isinstance(value.data, bytes) else item

    def _each_item(self, command: c.ItemCommand, run: Callable[[Executor, c.ItemCommand, c.Item], int]) -> _Reply:
        codes: list[int] = []
        for item in command.items:
            try:
                if item.data is not None and _exceeds(item.data, self._max_received):
                    codes.append(Status.TOO_LARGE)
                else:
                    codes.append(run(self, command, item))
            except DMError as error:
                codes.append(error.status)
        return _Reply(command, codes or [Status.INCOMPLETE])

    def _add(self, command: c.Add) -> _Reply:
        return self._each_item(command, Executor._add_item)

    def _add_item(self, command: c.ItemCommand, item: c.Item) -> int:
        self._tree.add(self._server_id, _target(item), item_value(command.meta, item))
        return Status.OK

    def _replace(self, command: c.Replace) -> _Reply:
        return self._each_item(command, Executor._replace_item)

    def _replace_item(self, command: c.ItemCommand, item: c.Item) -> int:
        self._tree.replace(self._server_id, _target(item), item_value(command.meta, item))
        return Status.OK

    def _delete(self, command: c.Delete) -> _Reply:
        return self._each_item(command, Executor._delete_item)

    def _delete_item(self, _command: c.ItemCommand, item: c.Item) -> int:
        self._tree.delete(self._server_id, _target(item))
        return Status.OK

    def _copy(self, command: c.Copy) -> _Reply:
        return self._each_item(command, Executor._copy_item)

    def _copy_item(self, _command: c.ItemCommand, item: c.Item) -> int:
        if not item.source:
            raise DMError(Status.INCOMPLETE, "Copy without Source")
        self._tree.copy(self._server_id, item.source, _target(item))
        return Status.OK

    def _exec(self, command: c.Exec) -> _Reply:
        return self._each_item(command, Executor._exec_item)

    def _exec_item(self, command: c.ItemCommand, item: c.Item) -> int:
        correlator = command.correlator if isinstance(command, c.Exec) else None
        data = item_value(command.meta, item).data
        return self._tree.execute(self._server_id, _target(item), data, correlator)

    # ---- alerts

    def _alert(self, command: c.Alert) -> _Reply:
        if command.code not in USER_INTERACTION:
            status = Status.INCOMPLETE if command.code is None else Status.NOT_SUPPORTED
            return _Reply(command, [status])
        if self._ui is None:
            return _Reply(command, [Status.NOT_SUPPORTED])
        try:
            question = question_from(command)
        except DMError as error:
            return _Reply(command, [error.status])
        answer = self._ui.ask(question)
        code = answer.outcome.value
        self._stopped = self._stopped or code in _STOPPING
        return _Reply(command, [code], items=answer_items(question, answer))

    def _unknown(self, command: c.UnknownCommand) -> _Reply:
        return _Reply(command, [Status.NOT_IMPLEMENTED])

    def _misplaced(self, command: c.BodyElement) -> _Reply:
        return _Reply(command, [Status.BAD_REQUEST])

    # ---- containers

    def _sequence(self, command: c.Sequence) -> _Reply:
        """200 as soon as it begins; only the user ends it early (digest 6)."""
        members: list[_Reply] = []
        ended = False
        for member in command.commands:
            if ended or self._stopped:
                members.append(self._skip(member))
                continue
            done = self._run(member)
            members.append(done)
            ended = isinstance(member, c.Alert) and done.codes[0] in _ENDING
        return _Reply(command, [Status.OK], members=members)

    def _atomic(self, command: c.Atomic) -> _Reply:
        """All members or none, after a look at whether they may be members at all (digest 6.1)."""
        illegal = [not isinstance(member, _ATOMIC_MEMBERS) for member in command.commands]
        if any(illegal):
            members = [self._skip(member) for member in command.commands]
            for skipped, bad in zip(members, illegal, strict=True):
                if bad:
                    skipped.codes = [Status.COMMAND_FAILED]
            return _Reply(command, [Status.ATOMIC_FAILED], members=members)
        with self._tree.atomic() as transaction:
            return self._run_atomic(command, transaction)

    def _run_atomic(self, command: c.Atomic, transaction: AtomicAccess) -> _Reply:
        members: list[_Reply] = []
        failed = False
        for member in command.commands:
            done = self._skip(member) if failed else self._run_member(member)
            members.append(done)
            failed = failed or not _succeeded(member, done)
        if failed:
            _mark_rolled_back(members, transaction.rollback())
        else:
            try:
                transaction.commit()
            except CommitFailed as error:
                failed = True
                _mark_rolled_back(members, error.undone)
        return _Reply(command, [Status.ATOMIC_FAILED if failed else Status.OK], members=members)

    def _run_member(self, member: c.BodyElement) -> _Reply:
        """Like :meth:`_run`, but the Items after one that failed are not tried any more."""
        if isinstance(member, c.Alert) or not member.cmd_id:
            return self._run(member)
        codes: list[int] = []
        items: tuple[c.Item, ...] = getattr(member, "items", ())
        for index, item in enumerate(items):
            codes += self._run(_single(member, item)).codes
            if codes[-1] != Status.OK:
                codes += [Status.NOT_EXECUTED] * (len(items) - index - 1)
                break
        return _Reply(member, codes or [Status.INCOMPLETE])


_ATOMIC_MEMBERS = (c.Add, c.Alert, c.Copy, c.Delete, c.Replace)

_RUN: dict[type, Callable[..., _Reply]] = {
    c.Add: Executor._add,
    c.Replace: Executor._replace,
    c.Delete: Executor._delete,
    c.Copy: Executor._copy,
    c.Get: Executor._get,
    c.Exec: Executor._exec,
    c.Alert: Executor._alert,
    c.Atomic: Executor._atomic,
    c.Sequence: Executor._sequence,
    c.UnknownCommand: Executor._unknown,
    c.Status: Executor._misplaced,
    c.Results: Executor._misplaced,
}


def item_value(command_meta: c.Meta | None, item: c.Item) -> ItemValue:
    """A value for the tree from an Item and the Meta around it; raises :class:`DMError` 415 for an unknown Format."""
    meta = item.meta if command_meta is None else c.effective_meta(command_meta, item.meta)
    data = item.data if item.data is not None else ""
    format_ = type_ = None
    if meta is not None:
        type_ = meta.type
        if meta.format is not None:
            format_ = _FORMATS.get(meta.format)
            if format_ is None:
                raise DMError(Status.UNSUPPORTED_FORMAT, f"Format {meta.format[:40]!r} does not exist")
    if isinstance(data, bytes):
        if format_ is not Format.BIN and not is_tnds(type_):
            data = _as_text(data)  # OPAQUE is also a way to write text (wbxml digest 6)
    elif format_ is Format.BIN:
        data = data.encode()
    return ItemValue(data, format_, type_)


def _as_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DMError(
            Status.UNSUPPORTED_FORMAT, "the value's octets are not UTF-8 and its Format is not bin"
        ) from error


def refusal(body: tuple[c.BodyElement, ...], msg_ref: int, code: int) -> list[c.BodyElement]:
    """One Status ``code`` for every command of a message that is not executed (401, 407; digest 5.2)."""
    return [
        c.Status(msg_ref=msg_ref, cmd_ref=command.cmd_id, cmd=command.NAME, code=code)
        for command in c.walk(body)
        if not isinstance(command, (c.Status, c.Results))
    ]


def not_written(answer: c.BodyElement, code: int) -> c.BodyElement:
    """The answer to a write that had succeeded and was then lost, because the store failed; others as they are."""
    if isinstance(answer, c.Status) and answer.cmd in _WRITES and answer.code == Status.OK:
        return replace(answer, code=code)
    return answer


_WRITES = frozenset({"Add", "Copy", "Delete", "Replace"})


def _exceeds(data: c.Data, most: int) -> bool:
    """Whether an object has more than ``most`` octets; text has up to four for each character."""
    return len(data) * 4 > most and carried_size(data) > most


def _target(item: c.Item) -> str:
    if not item.target:
        raise DMError(Status.INCOMPLETE, "an Item without Target")
    return item.target


def _single(command: c.BodyElement, item: c.Item) -> c.BodyElement:
    assert isinstance(command, (c.Add, c.Replace, c.Copy, c.Delete))  # what _ATOMIC_MEMBERS leaves
    return type(command)(command.cmd_id, (item,), command.meta)


def _succeeded(member: c.BodyElement, done: _Reply) -> bool:
    if isinstance(member, c.Alert):
        return done.codes[0] < 300 and done.codes[0] not in _ENDING
    return all(code == Status.OK for code in done.codes)


def _mark_rolled_back(members: Sequence[_Reply], undone: Sequence[bool]) -> None:
    """Turn the 200 of each executed write into 216, or 516 when its undo failed; ``undone`` is in execution order."""
    worked = iter(undone)
    for member in members:
        if isinstance(member.command, c.Alert):
            continue
        for index, code in enumerate(member.codes):
            if code == Status.OK:
                member.codes[index] = Status.ROLLED_BACK if next(worked, False) else Status.ROLL_BACK_FAILED


@lru_cache(maxsize=256)
def _meta(format_: Format | None, type_: str | None) -> c.Meta | None:
    """Meta of a result; the defaults of MetaInf are left out (digest 1.2)."""
    if format_ in (None, Format.CHR) and type_ in (None, "text/plain"):
        return None
    return c.Meta(None if format_ is None else format_.value, type_)


def _answer(reply: _Reply, msg_ref: int, out: list[c.BodyElement]) -> None:
    """Status (one for all Items when they agree, else one per Item), then Results, then the members' answers."""
    command, codes = reply.command, reply.codes
    items = command.items if isinstance(command, _WITH_TARGETS) else ()
    cmd_id, name = command.cmd_id, command.NAME
    if len(items) == 1:
        target, source = items[0].target, items[0].source
        refs = () if target is None else (target,)
        out.append(c.Status("", msg_ref, cmd_id, name, codes[0], refs, () if source is None else (source,)))
    elif len(set(codes)) == 1:
        targets = tuple([item.target for item in items if item.target is not None])
        sources = tuple([item.source for item in items if item.source is not None])
        out.append(c.Status("", msg_ref, cmd_id, name, codes[0], targets, sources, None, None, reply.items))
    else:
        for item, code in zip(items, codes, strict=True):
            out.append(c.Status("", msg_ref, cmd_id, name, code, _given(item.target), _given(item.source)))
    if reply.results:
        out.append(c.Results("", msg_ref, cmd_id, tuple(reply.results)))
    for member in reply.members:
        _answer(member, msg_ref, out)


def _given(uri: str | None) -> tuple[str, ...]:
    return () if uri is None else (uri,)


_WITH_TARGETS = (c.Get, c.Replace, c.Add, c.Delete, c.Exec, c.Copy)
