"""Delivering a VM image (10.1) and deleting it from a device (R-094, R-095, reading A-36), as step tables."""

from __future__ import annotations

from collections.abc import Sequence

from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import Status
from virmo_server.procedures.core import (
    Await,
    Decision,
    DmCommand,
    Done,
    Fail,
    Go,
    Outcome,
    Procedure,
    Situation,
    Step,
    add_interior,
    execute,
    failed_outcomes,
    get,
    judge_exec,
    read_after,
    refused,
    replace,
    status_words,
)
from virmo_server.procedures.states import ImageState, image_state_words, parse_state

READ_BACK = ("State", "ImgID", "Name", "MediaType", "DownloadURI", "DownloadedLocation")


def deliver_procedure() -> Procedure:
    """10.1: add the entry, set its parameters, Exec Download, wait for the Image Ready Alert, read back.

    Params: ``node``, ``name``, ``media_type``, ``url``, ``description`` and ``reuse`` (the entry exists already).
    """
    steps = {
        "begin": Step(_begin, _judge_begin),
        "parameters": Step(_parameters, _judge_parameters),
        "exec": Step(_exec, _judge_exec, if_doubtful="resolve"),
        "resolve": Step(_get_state, _judge_resolve),
        "poll": Step(_get_state, _judge_poll),
        "read": Step(_read_back, _judge_read),
    }
    return Procedure(first="begin", steps=steps, on_alert=_on_alert)


def delete_procedure() -> Procedure:
    """Exec Operations/Delete; the sub-tree is gone afterwards (R-095). An entry that is gone already is no failure."""
    steps = {
        "exec": Step(_exec_delete, _judge_delete),
        "poll": Step(_get_state, _judge_still_there),
        "read": Step(_get_state, _judge_gone),
    }
    return Procedure(first="exec", steps=steps, on_alert=_on_alert)


def _image(situation: Situation) -> str:
    return f"{situation.vmimg_root}/{situation.params['node']}"


def _begin(situation: Situation) -> list[DmCommand]:
    if situation.params["reuse"]:
        return _get_state(situation)
    return [add_interior(_image(situation))]


def _judge_begin(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    outcome = outcomes[0]
    if situation.params["reuse"]:
        if not outcome.ok:
            return refused(outcome)
        state = parse_state(outcome.value())
        if state == ImageState.DOWNLOADED:
            return Go("read", {"status": Status.OK}, "the image is there already")
        if state == ImageState.DOWNLOADING:
            return Await("poll", {"status": Status.ACCEPTED}, "the device is downloading it already")
        return Go("parameters", {}, f"using the entry that is there, State {image_state_words(state)}")
    if outcome.ok or (situation.doubtful and outcome.status == Status.ALREADY_EXISTS):
        return Go("parameters", {}, "entry added")
    return refused(outcome)


def _parameters(situation: Situation) -> list[DmCommand]:
    image = _image(situation)
    commands = [
        replace(f"{image}/Name", situation.params["name"]),
        replace(f"{image}/MediaType", situation.params["media_type"]),
        replace(f"{image}/DownloadURI", situation.params["url"]),
    ]
    if situation.params["description"]:  # ZeroOrOne: it has to be added
        commands.append(DmCommand(Command.ADD, f"{image}/Description", situation.params["description"], Format.CHR))
    return commands


def _judge_parameters(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    failure = failed_outcomes([outcome for outcome in outcomes if outcome.status != Status.ALREADY_EXISTS])
    return Go("exec", {}, "parameters set") if failure is None else refused(failure)


def _exec(situation: Situation) -> list[DmCommand]:
    return execute(situation, f"{_image(situation)}/Operations/Download")


def _judge_exec(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    return judge_exec(situation, outcomes[0], _on_alert, read_after("Exec Download"), may_be_running=True)


def _on_alert(_situation: Situation, status: int) -> Decision:
    return Go("read", {"status": status}, f"the device reports the end: {status_words(status)}", status)


def _get_state(situation: Situation) -> list[DmCommand]:
    return [get(f"{_image(situation)}/State")]


def _judge_resolve(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    state = parse_state(outcomes[0].value())
    if state == ImageState.DOWNLOADED:
        return Go("read", {"status": Status.OK}, "the lost session had done it, State says so")
    if state == ImageState.DOWNLOADING:
        return Await("poll", {"status": Status.ACCEPTED}, "the device is still downloading since the lost session")
    return Go("exec", {}, f"State is {_shown(outcomes[0])}: sending the Exec again")


def _judge_poll(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    state = parse_state(outcomes[0].value())
    if state == ImageState.DOWNLOADED:
        return Go("read", {"status": Status.OK}, "State is reached, though no alert came")
    if state == ImageState.DOWNLOAD_FAILED or outcomes[0].status == Status.NOT_FOUND:
        return Fail(f"the download ended without an alert; State is {_shown(outcomes[0])}", outcomes[0].status)
    return Await("poll", {}, f"still waiting, State is {_shown(outcomes[0])}")


def _read_back(situation: Situation) -> list[DmCommand]:
    return [get(f"{_image(situation)}/{leaf}") for leaf in READ_BACK]


def _judge_read(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    status = int(situation.memory["status"])
    reached = parse_state(outcomes[0].value()) == ImageState.DOWNLOADED
    if reached and (status < 300 or situation.doubtful):
        location = outcomes[READ_BACK.index("DownloadedLocation")].value()
        return Done(f"State {_shown(outcomes[0])}, at {location or 'an unnamed place'}", min(status, Status.ACCEPTED))
    if status >= 300:
        return Fail(f"Download failed: {status_words(status)}; State is {_shown(outcomes[0])}", status)
    return Fail(f"the device answered {status_words(status)} to Download, but State is {_shown(outcomes[0])}", status)


def _exec_delete(situation: Situation) -> list[DmCommand]:
    return execute(situation, f"{_image(situation)}/Operations/Delete")


def _judge_delete(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    return judge_exec(situation, outcomes[0], _on_alert, read_after("Exec Delete"))


def _judge_still_there(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].status == Status.NOT_FOUND:
        return Done("the image is gone from the device", Status.OK)
    return Await("poll", {}, f"still waiting, State is {_shown(outcomes[0])}")


def _judge_gone(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    status = int(situation.memory["status"])
    if outcomes[0].status == Status.NOT_FOUND:
        return Done("the image is gone from the device", Status.OK)
    return Fail(f"Delete: {status_words(status)}; State is still {_shown(outcomes[0])}", status)


def _shown(state: Outcome) -> str:
    if state.ok:
        return image_state_words(parse_state(state.value()))
    return f"not readable ({status_words(state.status)})"
