"""Our client against our server: opening, authentication both ways, commands, alerts (digest sections 2, 5, 14)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.client import PendingAlert
from dom0_agent.omadm.server_auth import DeviceCredentials
from dom0_agent.omadm.session import EndReason
from tests.unit.omadm.dm_pair import (
    ACCOUNT,
    CLIENT_MD5,
    DEVICE,
    SERVER_MD5,
    Application,
    LeafTree,
    Pair,
    statuses,
)


def item(target: str, data: str | None = None) -> c.Item:
    return c.Item(target=target, data=data)


DOWNLOAD = "./VMImgMO/a/Operations/Download"


def test_reference_exchange_of_the_digest() -> None:
    """Digest 14: challenges both ways, Exec answered 202, session ends silently."""
    tree = LeafTree()
    tree.exec_status = 202
    pair = Pair(tree)
    application = Application([c.Exec(items=(item(DOWNLOAD),), correlator="abc")])

    client = pair.run(application)

    assert client.outcome is not None and client.outcome.ok
    assert [message.header.msg_id for message in pair.sent] == [1, 2, 3]
    assert [message.header.msg_id for message in pair.answers] == [1, 2, 3]
    assert all(message.final for message in pair.sent + pair.answers)
    assert pair.sent[0].header.cred is None
    assert statuses(pair.answers[0]) == [("SyncHdr", 407), ("Alert", 407), ("Replace", 407)]
    assert statuses(pair.sent[1]) == [("SyncHdr", 407)]
    assert [type(command) for command in pair.sent[1].body] == [c.Status, c.Alert, c.Replace]
    assert statuses(pair.answers[1]) == [("SyncHdr", 212), ("Alert", 200), ("Replace", 200)]
    assert statuses(pair.sent[2]) == [("SyncHdr", 212), ("Exec", 202)]
    assert [type(command) for command in pair.answers[2].body] == [c.Status]
    assert tree.calls == [("Exec", DOWNLOAD, "", "abc")]
    assert application.codes == {"r1": 202}
    assert application.info["./DevInfo/DevId"] == DEVICE
    assert [alert.code for alert in application.alerts] == [1201]


def test_the_next_session_uses_the_nonces_of_the_last_one_unasked() -> None:
    pair = Pair()
    pair.run(Application())
    alert = c.Alert(code=1226, correlator="abc", items=(c.Item(source=DOWNLOAD, meta=c.Meta("xml", "urn:x"), data=""),))

    application = Application([c.Get(items=(item("./VMImgMO/a/State"),))])
    client = pair.run(application, [PendingAlert("a1", alert)])

    assert statuses(pair.answers[0])[0] == ("SyncHdr", 212)
    assert statuses(pair.sent[1])[0] == ("SyncHdr", 212)
    assert client.acknowledged == ["a1"]
    assert [heard.code for heard in application.alerts] == [1201, 1226]
    assert application.alerts[1].correlator == "abc"
    assert application.codes == {"r1": 404}


@pytest.mark.parametrize("scheme", list(AuthScheme))
def test_every_scheme_works_both_ways_twice(scheme: AuthScheme) -> None:
    client, server = Credentials(scheme, "Bruce2", "OhBehave"), Credentials(scheme, "virmo-server", "srvpwd")
    pair = Pair(
        LeafTree({"./X": "1"}),
        account=Account("virmo-server", "https://s", client, server),
        known=DeviceCredentials(client, server),
    )
    for _ in range(2):
        application = Application([c.Get(items=(item("./X"),))], [c.Replace(items=(item("./X", "2"),))])
        session = pair.run(application)
        assert session.outcome is not None and session.outcome.ok, session.outcome
        assert application.codes == {"r1": 200, "r2": 200}


def test_a_wrong_client_secret_ends_after_one_try_and_executes_nothing() -> None:
    pair = Pair(account=replace(ACCOUNT, client=Credentials(AuthScheme.MD5, "Bruce2", "wrong")))
    application = Application([c.Get(items=(item("./X"),))])

    client = pair.run(application)

    assert client.outcome is not None and client.outcome.reason is EndReason.AUTHENTICATION
    assert "Bruce2" in client.outcome.sentence
    assert len(pair.sent) == 2
    assert not application.info and not application.alerts and not application.outcomes


def test_a_server_with_the_wrong_secret_gets_nothing_executed() -> None:
    pair = Pair(LeafTree({"./X": "1"}), known=DeviceCredentials(CLIENT_MD5, replace(SERVER_MD5, secret="wrong")))
    application = Application([c.Replace(items=(item("./X", "2"),))])

    client = pair.run(application)

    assert client.outcome is not None and client.outcome.reason is EndReason.PEER_UNKNOWN
    assert pair.tree.calls == []
    assert pair.client_nonces.get("virmo-server", NonceRole.CLIENT) is None, "a stranger's nonce was kept"


def test_a_lost_nonce_costs_one_round_trip_only() -> None:
    """Digest 5.2: stale-nonce recovery, for both sides at once."""
    pair = Pair(LeafTree({"./X": "1"}))
    pair.run(Application())
    pair.client_nonces.put("virmo-server", NonceRole.CLIENT, b"stale")
    pair.server_nonces.put(DEVICE, NonceRole.SERVER, b"stale")

    application = Application([c.Get(items=(item("./X"),))])
    client = pair.run(application)

    assert client.outcome is not None and client.outcome.ok
    assert application.codes == {"r1": 200}
    assert [statuses(message)[0][1] for message in pair.answers] == [401, 212, 212]


def test_all_commands_come_back_with_status_and_results() -> None:
    pair = Pair(LeafTree({"./A": "a", "./B": "b", "./N": "1"}))
    application = Application(
        [
            c.Get(items=(item("./A"), item("./B"))),
            c.Add(items=(item("./C", "c"),)),
            c.Replace(items=(item("./A", "<&>"),)),
            c.Copy(items=(c.Item(target="./D", source="./A"),)),
            c.Delete(items=(item("./B"), item("./missing"))),
            c.Sequence(commands=(c.Get(items=(item("./A"),)), c.Replace(items=(item("./missing", "x"),)))),
            c.Atomic(commands=(c.Replace(items=(item("./N", "2"),)), c.Add(items=(item("./A", "x"),)))),
        ]
    )

    pair.run(application)

    assert application.codes == {"r1": 200, "r2": 200, "r3": 200, "r4": 200, "r5": 404, "r6": 200, "r7": 507}
    outcomes = application.outcomes
    assert [(found.source, found.data) for found in outcomes["r1"].results] == [("./A", "a"), ("./B", "b")]
    assert [status.code for status in outcomes["r5"].statuses] == [200, 404]
    assert [member.status for member in outcomes["r6"].members] == [200, 404]
    assert outcomes["r6"].members[0].results[0].data == "<&>"
    assert [member.status for member in outcomes["r7"].members] == [216, 418]
    assert pair.tree.leaves["./N"].data == "1", "the Atomic was not rolled back"
    assert pair.tree.leaves["./D"].data == "<&>"
    assert "./B" not in pair.tree.leaves


def test_octets_survive_the_way_through_xml() -> None:
    pair = Pair(LeafTree({"./bin": bytes(range(256))}))
    application = Application([c.Get(items=(item("./bin"),))])

    pair.run(application)

    found = application.outcomes["r1"].results[0]
    assert found.meta is not None and found.meta.format == "b64"
    assert isinstance(found.data, str) and found.data.startswith("AAECAw")
