"""The client session's state machine, as a table (OMA-TS-DM Protocol 8; digest sections 2 and 5).

Everything that decides where a client session goes next is here. What the events mean is decided by
``client.ClientSession._classify``; what the actions do is in the methods of the same names there.
"""

from __future__ import annotations

from enum import StrEnum

from dom0_agent.omadm.session import Row, table_of


class ClientState(StrEnum):
    """Where a client session is."""

    NEW = "New"
    OPENING = "Opening"  #: package 1 is out
    RETRYING = "Retrying"  #: package 1 is out again, with the credentials the server asked for
    DOUBTING = "Doubting"  #: the server was asked to prove who it is
    RETRYING_DOUBTING = "RetryingDoubting"  #: both
    MANAGING = "Managing"  #: each side trusts the other; commands are answered
    OVER = "Over"


class ClientEvent(StrEnum):
    """What happened, as far as the machine cares."""

    START = "start"
    CHALLENGED = "challenged"  #: 401/407 with a usable challenge, from a server that we know
    CHALLENGED_BY_STRANGER = "challenged by stranger"  #: the same, but it has not proved who it is yet
    STRANGER = "stranger"  #: accepts us and wants something, without (valid) credentials of its own
    SILENT_STRANGER = "silent stranger"  #: accepts us, wants nothing, without credentials of its own
    WORK = "work"  #: there is something to execute or to send
    NOTHING = "nothing"  #: the answer would be no more than Status of SyncHdr
    NOT_BELIEVED = "not believed"  #: our credentials were refused with nothing left to try
    REFUSED = "refused"  #: the server refused our header for another reason
    ABORTED = "aborted"  #: Alert 1223
    UNUSABLE = "unusable"  #: not a message of this session
    GIVE_UP = "give up"  #: we abort


_S, _E = ClientState, ClientEvent
_WAITING = (_S.OPENING, _S.RETRYING, _S.DOUBTING, _S.RETRYING_DOUBTING, _S.MANAGING)

ROWS: tuple[Row[ClientState, ClientEvent], ...] = (
    Row((_S.NEW,), _E.START, _S.OPENING, "send_package_1"),
    # they do not know us yet: one try with the nonce they gave
    Row((_S.OPENING,), _E.CHALLENGED, _S.RETRYING, "resend_package_1"),
    Row((_S.OPENING,), _E.CHALLENGED_BY_STRANGER, _S.RETRYING_DOUBTING, "resend_package_1_and_challenge"),
    Row((_S.DOUBTING,), _E.CHALLENGED, _S.RETRYING_DOUBTING, "resend_package_1"),
    Row((_S.DOUBTING,), _E.CHALLENGED_BY_STRANGER, _S.OVER, "give_up_on_server"),
    Row((_S.RETRYING, _S.RETRYING_DOUBTING, _S.MANAGING), _E.CHALLENGED, _S.OVER, "fail_authentication"),
    Row((_S.RETRYING, _S.RETRYING_DOUBTING, _S.MANAGING), _E.CHALLENGED_BY_STRANGER, _S.OVER, "fail_authentication"),
    # we do not know them yet: one challenge
    Row((_S.OPENING,), _E.STRANGER, _S.DOUBTING, "challenge"),
    Row((_S.RETRYING,), _E.STRANGER, _S.RETRYING_DOUBTING, "challenge"),
    Row((_S.DOUBTING, _S.RETRYING_DOUBTING, _S.MANAGING), _E.STRANGER, _S.OVER, "give_up_on_server"),
    Row(_WAITING, _E.SILENT_STRANGER, _S.OVER, "end_unproved"),
    # the session proper
    Row(_WAITING, _E.WORK, _S.MANAGING, "work"),
    Row(_WAITING, _E.NOTHING, _S.OVER, "end_well"),
    # the ways out
    Row(_WAITING, _E.NOT_BELIEVED, _S.OVER, "fail_authentication"),
    Row(_WAITING, _E.REFUSED, _S.OVER, "end_refused"),
    Row(_WAITING, _E.ABORTED, _S.OVER, "end_aborted"),
    Row(_WAITING, _E.UNUSABLE, _S.OVER, "end_unusable"),
    Row(_WAITING, _E.GIVE_UP, _S.OVER, "send_abort"),
)

CLIENT_TABLE = table_of(ROWS)
