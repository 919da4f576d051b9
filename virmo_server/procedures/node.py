"""Raw access to a device's tree: one command, its answer, for operators who know what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import Status
from virmo_server.procedures.core import (
    UNKNOWABLE,
    Await,
    Decision,
    DmCommand,
    Done,
    Go,
    Outcome,
    Procedure,
    Situation,
    Step,
    get,
    refused,
    status_words,
)
from virmo_server.procedures.guest_codes import code_words, is_success

#: Kind of order → command.
NODE_COMMANDS = {
    "node-get": Command.GET,
    "node-add": Command.ADD,
    "node-replace": Command.REPLACE,
    "node-delete": Command.DELETE,
    "node-exec": Command.EXEC,
}
#: Codes that mean "done" when an earlier sending may have done it already.
_DONE_BEFORE = {Command.ADD: Status.ALREADY_EXISTS, Command.DELETE: Status.NOT_FOUND}
#: Values shown in the order's result; all of them are in the known tree.
_SHOWN_NODES = 20


def node_procedure(verb: Command) -> Procedure:
    """Params: ``uri``, ``value``, ``format``, ``type``. A Replace is read back; an Exec whose answer was lost is not
    sent again, because nobody can know what it would do the second time."""
    steps = {
        "send": Step(_commands(verb), _judge(verb), if_doubtful=UNKNOWABLE if verb is Command.EXEC else None),
        "read": Step(lambda s: [get(str(s.params["uri"]))], _judge_read_back),
        "poll": Step(lambda s: [get(str(s.params["uri"]))], _judge_poll),
    }
    return Procedure(first="send", steps=steps, on_alert=_on_alert)


def _commands(verb: Command) -> Callable[[Situation], Sequence[DmCommand]]:
    def commands(situation: Situation) -> list[DmCommand]:
        params = situation.params
        uri = str(params["uri"])
        if verb in {Command.GET, Command.DELETE}:
            return [DmCommand(verb, uri)]
        data_format = None if params["format"] is None else Format(params["format"])
        correlator = situation.correlator if verb is Command.EXEC else None
        return [DmCommand(verb, uri, str(params["value"]), data_format, params["type"], correlator)]

    return commands


def _judge(verb: Command) -> Callable[[Situation, Sequence[Outcome]], Decision]:
    def judge(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        outcome = outcomes[0]
        if situation.doubtful and outcome.status == _DONE_BEFORE.get(verb):
            return Done("done in a session that was lost", Status.OK)
        if not is_success(outcome.status):  # also 1200 to 1299: what SCOMO and LAWMO answer an Exec with
            return refused(outcome)
        return _AFTER_SUCCESS.get(verb, _finish)(situation, outcome)

    return judge


def _finish(_situation: Situation, outcome: Outcome) -> Decision:
    return Done(code_words(outcome.status), outcome.status)


def _after_get(_situation: Situation, outcome: Outcome) -> Decision:
    return Done(_shown(outcome), outcome.status)


def _after_replace(situation: Situation, outcome: Outcome) -> Decision:
    if "?" in outcome.command.uri:
        return _finish(situation, outcome)
    return Go("read", {}, status_words(outcome.status), outcome.status)


def _after_exec(situation: Situation, outcome: Outcome) -> Decision:
    if outcome.status != Status.ACCEPTED:
        return _finish(situation, outcome)
    return Await("poll", {}, "accepted: the device will report the end", outcome.status)


_AFTER_SUCCESS: Mapping[Command, Callable[[Situation, Outcome], Decision]] = {
    Command.GET: _after_get,
    Command.REPLACE: _after_replace,
    Command.EXEC: _after_exec,
}


def _judge_read_back(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].value() == situation.params["value"]:
        return Done("replaced, and read back the same", Status.OK)
    if outcomes[0].ok:
        return Done(f"replaced; the node now reads {outcomes[0].value()!r}", Status.OK)
    return Done(f"replaced; it cannot be read back: {status_words(outcomes[0].status)}", Status.OK)


def _judge_poll(_situation: Situation, _outcomes: Sequence[Outcome]) -> Decision:
    return Await("poll", {}, "still waiting for the device's report")


def _on_alert(situation: Situation, status: int) -> Decision:
    if is_success(status):
        return Done(f"the device reports the end: {code_words(status)}", status)
    return refused(Outcome(DmCommand(Command.EXEC, str(situation.params["uri"])), status))


def _shown(outcome: Outcome) -> str:
    if len(outcome.nodes) == 1 and outcome.nodes[0].value is not None:
        return outcome.nodes[0].value
    lines = [node.uri if not node.value else f"{node.uri} = {node.value}" for node in outcome.nodes[:_SHOWN_NODES]]
    more = len(outcome.nodes) - _SHOWN_NODES
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)
