"""Matches Status and Results of a device to the commands that a server sent (digest 2.1, 2.2).

A command is known by the caller's ``ref``; members of Atomic and Sequence by their position in it. One Status may cover
all Items of a command or each Item may have its own. Knows no message order beyond (MsgRef, CmdRef).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.outbox import Numbered


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A command to be sent; ``ref`` is the application's own name for it, unique in the session."""

    ref: str
    command: c.ManagementCommand | c.Alert


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What became of a command: every Status and every result Item that the device sent for it."""

    ref: str
    statuses: tuple[c.Status, ...] = ()
    results: tuple[c.Item, ...] = ()
    members: tuple[CommandOutcome, ...] = ()

    @property
    def status(self) -> int | None:
        """One code for the command: the first that is an error, else the last; ``None``: the device said nothing."""
        codes = [status.code for status in self.statuses]
        return next((code for code in codes if code >= 300), codes[-1] if codes else None)

    @property
    def ok(self) -> bool:
        """Whether it was done (2xx). 202 means that a Generic Alert will follow."""
        return self.status is not None and 200 <= self.status < 300 and self.status != 215


@dataclass(slots=True)
class _Node:
    """Answers collected for one command, and for its members."""

    statuses: list[c.Status] = field(default_factory=list)
    results: list[c.Item] = field(default_factory=list)
    members: list[_Node] = field(default_factory=list)

    def outcome(self, ref: str) -> CommandOutcome:
        members = tuple(node.outcome(f"{ref}/{index}") for index, node in enumerate(self.members))
        return CommandOutcome(ref, tuple(self.statuses), tuple(self.results), members)


class Outcomes:
    """Commands that wait for their answers."""

    def __init__(self) -> None:
        self._requests: dict[str, c.BodyElement] = {}
        self._nodes: dict[str, _Node] = {}
        self._sent: dict[tuple[int, str], tuple[str, tuple[int, ...]]] = {}

    @property
    def any_open(self) -> bool:
        """Whether a command has been taken over and not been reported."""
        return bool(self._requests)

    @property
    def requests(self) -> Mapping[str, c.BodyElement]:
        """Open commands by ref, in the order in which they were given."""
        return self._requests

    def open(self, request: CommandRequest) -> None:
        """A command was taken over from the application."""
        if request.ref in self._requests:
            raise ValueError(f"two commands with the ref {request.ref!r}")
        self._requests[request.ref] = request.command

    def sent(self, msg_id: int, numbered: Numbered) -> None:
        """A command went out in message ``msg_id``; the last chunk of a large object counts, too."""
        self._nodes[numbered.ref] = self._expect(msg_id, numbered.cmd_id, numbered.element, numbered.ref, ())

    def _expect(self, msg_id: int, cmd_id: str, element: c.BodyElement, ref: str, path: tuple[int, ...]) -> _Node:
        self._sent[msg_id, cmd_id] = (ref, path)
        node = _Node()
        if isinstance(element, c.Container):
            for index, member in enumerate(element.commands):
                node.members.append(self._expect(msg_id, member.cmd_id, member, ref, (*path, index)))
        return node

    def take(self, answer: c.Status | c.Results, last_msg_id: int) -> str | None:
        """File an answer; the ref it belongs to, ``None`` when it answers nothing that was sent."""
        msg_ref = answer.msg_ref if answer.msg_ref is not None else last_msg_id
        found = self._sent.get((msg_ref, answer.cmd_ref))
        if found is None:
            return None
        ref, path = found
        node = self._nodes[ref]
        for index in path:
            node = node.members[index]
        if isinstance(answer, c.Status):
            node.statuses.append(answer)
        else:
            node.results.extend(answer.items)
        return ref

    def refuse(self, ref: str, code: int) -> None:
        """Answer a command in the device's place, because it must not be sent at all (413: above its MaxObjSize)."""
        self._nodes[ref] = _Node([c.Status(cmd=self._requests[ref].NAME, code=code)])

    def unanswered(self) -> list[tuple[str, c.BodyElement]]:
        """Commands to be sent once more, because the device did not know who we were; their answers are forgotten."""
        self._sent.clear()
        self._nodes.clear()
        return list(self._requests.items())

    def complete(self) -> list[CommandOutcome]:
        """Report all commands that went out: the device's package is complete, nothing more will come for them."""
        done = [node.outcome(ref) for ref, node in self._nodes.items()]
        for outcome in done:
            del self._requests[outcome.ref]
        self._nodes.clear()
        self._sent.clear()
        return done

    def abandon(self) -> list[CommandOutcome]:
        """Report everything, also what was never sent: the session is over."""
        done = [self._nodes.get(ref, _Node()).outcome(ref) for ref in self._requests]
        self.__init__()  # type: ignore[misc]
        return done

    # ---- persistence

    def to_dict(self, codec: Codec) -> dict[str, Any]:
        """A JSON value."""
        return {
            "requests": [[ref, pack_elements(codec, [command])] for ref, command in self._requests.items()],
            "sent": [[msg_id, cmd_id, ref, list(path)] for (msg_id, cmd_id), (ref, path) in self._sent.items()],
            "nodes": {ref: _node_to_dict(codec, node) for ref, node in self._nodes.items()},
        }

    @classmethod
    def from_dict(cls, codec: Codec, saved: Mapping[str, Any]) -> Outcomes:
        """What :meth:`to_dict` gave."""
        outcomes = cls()
        outcomes._requests = {ref: unpack_elements(codec, packed)[0] for ref, packed in saved["requests"]}
        outcomes._sent = {(msg_id, cmd_id): (ref, tuple(path)) for msg_id, cmd_id, ref, path in saved["sent"]}
        outcomes._nodes = {ref: _node_from_dict(codec, node) for ref, node in saved["nodes"].items()}
        return outcomes


_STORAGE_HEADER = c.SyncHdr("1", 1, "", "")


def pack_elements(codec: Codec, elements: Sequence[c.BodyElement]) -> str:
    """Commands as text for storage: a message in the session's own syntax, one Latin-1 character per octet; or none."""
    if not elements:
        return ""
    return codec.encode(c.Message(_STORAGE_HEADER, tuple(elements))).decode("latin-1")


def unpack_elements(codec: Codec, packed: str) -> tuple[c.BodyElement, ...]:
    """What :func:`pack_elements` made."""
    return codec.decode(packed.encode("latin-1")).body if packed else ()


def _node_to_dict(codec: Codec, node: _Node) -> dict[str, Any]:
    answers: list[c.BodyElement] = [*node.statuses]
    if node.results:
        answers.append(c.Results(items=tuple(node.results)))
    return {"answers": pack_elements(codec, answers), "members": [_node_to_dict(codec, m) for m in node.members]}


def _node_from_dict(codec: Codec, saved: Mapping[str, Any]) -> _Node:
    node = _Node(members=[_node_from_dict(codec, member) for member in saved["members"]])
    for answer in unpack_elements(codec, saved["answers"]):
        if isinstance(answer, c.Status):
            node.statuses.append(answer)
        elif isinstance(answer, c.Results):
            node.results.extend(answer.items)
    return node
