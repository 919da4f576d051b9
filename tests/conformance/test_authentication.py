"""Security: basic, MD5 and HMAC, challenges, nonces, both ways (OMA-TS-DM-Security 5)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

import pytest

from dom0_agent.omadm import auth
from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.client import PendingAlert
from dom0_agent.omadm.retry import BackoffLockOut
from dom0_agent.omadm.server_auth import DeviceCredentials
from dom0_agent.omadm.session import EndReason
from dom0_agent.omadm.status import ProtocolError
from tests.conformance.dm_bytes import (
    PACKAGE_1,
    Board,
    Desk,
    chal,
    codes,
    command,
    cred,
    header_status,
    message,
    texts,
    to_octets,
)
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import CLIENT_MD5, DEVICE, SERVER_MD5, SERVER_URI, Application, LeafTree

BRUCE = Credentials(AuthScheme.MD5, "Bruce2", "OhBehave")
BASIC = Credentials(AuthScheme.BASIC, "Bruce2", "OhBehave")
BASIC_SERVER = Credentials(AuthScheme.BASIC, "virmo-server", "srvpwd")
HMAC = Credentials(AuthScheme.HMAC, "Bruce2", "OhBehave")
HMAC_SERVER = Credentials(AuthScheme.HMAC, "virmo-server", "srvpwd")
KNOWN = DeviceCredentials(CLIENT_MD5, SERVER_MD5)
GET = command("Get", "5", "./X")


def md5_of(credentials: Credentials, nonce: bytes) -> str:
    made = auth.make_cred(credentials, nonce)
    assert made is not None
    return made.data


# ---- values ------------------------------------------------------------------------------------------------------


@rule("Security: MD5", "the specification's example: Bruce2, OhBehave, Nonce")
def test_md5_example_of_the_specification() -> None:
    assert auth.user_digest("Bruce2", "OhBehave") == b"PtEdr8lBQ45IbT1bZIkrOQ=="
    assert md5_of(BRUCE, b"Nonce") == "Zz6EivR3yeaaENcRN6lpAQ=="


@rule("Security: basic", "the value is base64 of user:password")
def test_basic_example() -> None:
    assert md5_of(BASIC, b"") == "QnJ1Y2UyOk9oQmVoYXZl"


@rule("Security: HMAC", "mac = B64(MD5(B64(MD5(user:password)):nonce:B64(MD5(body))))")
def test_hmac_vector() -> None:
    assert auth.make_hmac_header(HMAC, b"Nonce", b"<SyncML/>") == (
        'algorithm=MD5, username="Bruce2", mac=urdCeS3JUmjFgi8SX3webw=='
    )


@cases(
    "Security: HMAC header",
    "header",
    [
        ("fields in any order", 'mac=urdCeS3JUmjFgi8SX3webw==, username="Bruce2", algorithm=MD5'),
        ("algorithm may be missing", 'username="Bruce2", mac=urdCeS3JUmjFgi8SX3webw=='),
        ("a quoted mac is accepted", 'algorithm="MD5",username="Bruce2",mac="urdCeS3JUmjFgi8SX3webw=="'),
        ("names in any case", 'Algorithm=md5, USERNAME="Bruce2", MAC=urdCeS3JUmjFgi8SX3webw=='),
        (
            "hexadecimal digits inside the base64, as in the specification's example, are tolerated",
            'username="Bruce2", mac=' + b64encode(b64decode("urdCeS3JUmjFgi8SX3webw==").hex().encode()).decode(),
        ),
    ],
)
def test_hmac_header_forms(header: str) -> None:
    assert auth.check_hmac(HMAC, header, b"Nonce", b"<SyncML/>")


@cases(
    "Security: HMAC header",
    "header",
    [
        ("another user name proves nothing", 'username="Bruce3", mac=urdCeS3JUmjFgi8SX3webw=='),
        ("another algorithm proves nothing", 'algorithm=SHA1, username="Bruce2", mac=urdCeS3JUmjFgi8SX3webw=='),
        ("a wrong mac proves nothing", 'username="Bruce2", mac=AAAAAAAAAAAAAAAAAAAAAA=='),
        ("a missing mac proves nothing", 'username="Bruce2"'),
        ("a malformed header proves nothing", "!!!"),
        ("a missing header proves nothing", None),
    ],
)
def test_hmac_header_failures(header: str | None) -> None:
    assert not auth.check_hmac(HMAC, header, b"Nonce", b"<SyncML/>")


@rule("Security: HMAC header", "a user name with quotes survives")
def test_quotes_in_user_name() -> None:
    quoted = Credentials(AuthScheme.HMAC, 'Robert "Bob" \\Jordan', "x")
    header = auth.make_hmac_header(quoted, b"n", b"body")
    assert auth.parse_hmac_header(header).username == quoted.name
    assert auth.check_hmac(quoted, header, b"n", b"body")


@rule("Security: HMAC header", "one changed octet of the body is noticed")
def test_changed_body() -> None:
    header = auth.make_hmac_header(HMAC, b"Nonce", b"<SyncML/>")
    assert not auth.check_hmac(HMAC, header, b"Nonce", b"<SyncML />")


@rule("Security: HMAC header", "an endless header is refused")
def test_endless_header() -> None:
    with pytest.raises(ProtocolError):
        auth.parse_hmac_header("mac=" + "A" * 10_000)


@cases(
    "Security: nonces",
    "text,nonce",
    [
        ("are base64 of octets", "Tm9uY2U=", b"Nonce"),
        ("may contain white space as written", "Tm9u\n Y2U=", b"Nonce"),
        ("an empty one is none", "", None),
        ("what is no base64 is none", "%%%", None),
        ("one beyond 256 octets is none", b64encode(bytes(257)).decode(), None),
    ],
)
def test_nonces(text: str, nonce: bytes | None) -> None:
    assert auth.decode_nonce(text) == nonce


@rule("Security: nonces", "new ones have 16 octets, all from the random source, none of them zero")
def test_new_nonce() -> None:
    nonce = auth.new_nonce(lambda size: bytes(range(size)))
    assert len(nonce) == 16
    assert 0 not in nonce
    assert nonce[1:] == bytes(range(16))[1:]


# ---- the client proves itself ------------------------------------------------------------------------------------


@rule("Security: credentials of the client", "without a nonce, package 1 has no MD5 Cred")
def test_no_cred_without_nonce(syntax: str) -> None:
    assert Board(syntax, client=BRUCE).start().find("SyncHdr/Cred") is None


@rule("Security: credentials of the client", "with the stored nonce, package 1 has an MD5 Cred unasked")
def test_cred_unasked(syntax: str) -> None:
    root = Board(syntax, client=BRUCE, client_nonce=b"Nonce").start()
    assert texts(root, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]
    assert texts(root, "SyncHdr/Cred/Meta/Type") == ["syncml:auth-md5"]
    assert texts(root, "SyncHdr/Cred/Meta/Format") == ["b64"]


@rule("Security: credentials of the client", "the user name is LocName of Source")
def test_loc_name(syntax: str) -> None:
    assert texts(Board(syntax, client=BRUCE).start(), "SyncHdr/Source/LocName") == ["Bruce2"]


@rule("Security: credentials of the client", "basic credentials are in package 1 unasked")
def test_basic_unasked(syntax: str) -> None:
    root = Board(syntax, client=BASIC).start()
    assert texts(root, "SyncHdr/Cred/Data") == ["QnJ1Y2UyOk9oQmVoYXZl"]
    assert texts(root, "SyncHdr/Cred/Meta/Type") == ["syncml:auth-basic"]


@rule("Security: challenge", "after 407, package 1 is sent again as a whole, with Cred of the nonce given")
def test_package_1_again(syntax: str) -> None:
    alert = PendingAlert("a", c.Alert(code=1226, items=(c.Item(source="./x", data=""),)))
    board = Board(syntax, client=BRUCE, alerts=[alert])
    board.start()
    answer = board.say(header_status(1, 407, chal()), accept=False)
    assert answer is not None
    assert texts(answer, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]
    assert texts(answer, "SyncHdr/MsgID") == ["2"]
    assert texts(answer, "SyncHdr/SessionID") == ["1F"]
    assert texts(answer, "SyncBody/Alert/Data") == ["1201", "1226"]
    assert answer.find("SyncBody/Replace") is not None
    assert codes(answer) == [("SyncHdr", "200")]
    assert answer.find("SyncBody/Final") is not None


@rule("Security: challenge", "package 1 is sent again to RespURI where one was given")
def test_package_1_again_to_resp_uri(syntax: str) -> None:
    board = Board(syntax, client=BRUCE)
    board.start()
    board.say(header_status(1, 407, chal()), accept=False, header="<RespURI>https://r/</RespURI>")
    assert board.session.target_uri == "https://r/"


@rule("Security: challenge", "after 401 for a stale nonce, one retry with the new nonce")
def test_stale_nonce(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"stale")
    board.start()
    answer = board.say(header_status(1, 401, chal()), accept=False)
    assert answer is not None
    assert texts(answer, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]


@rule("Security: challenge", "a second 401 ends the session: the secret is wrong")
def test_second_401(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"stale")
    board.start()
    board.say(header_status(1, 401, chal()), accept=False)
    assert board.say(header_status(2, 401, chal(nonce="QUFB")), accept=False) is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.AUTHENTICATION


@rule("Security: challenge", "401 without a challenge ends the session")
def test_401_without_chal(syntax: str) -> None:
    board = Board(syntax, client=BRUCE)
    board.start()
    assert board.say(header_status(1, 401), accept=False) is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.AUTHENTICATION


@cases(
    "Security: challenge",
    "scheme,nonce",
    [
        ("an unknown scheme ends the session", "syncml:auth-X509", "Tm9uY2U="),
        ("MD5 without a nonce ends the session", "syncml:auth-md5", ""),
        ("a weaker scheme than the account's is refused: it could come from anyone", "syncml:auth-basic", ""),
    ],
)
def test_challenges_that_are_not_met(scheme: str, nonce: str, syntax: str) -> None:
    board = Board(syntax, client=BRUCE)
    board.start()
    assert board.say(header_status(1, 407, chal(scheme, nonce)), accept=False) is None
    assert b"OhBehave" not in board.last
    assert b64encode(b"Bruce2:OhBehave") not in board.last


@rule("Security: challenge", "a stronger scheme than the account's is met")
def test_stronger_scheme(syntax: str) -> None:
    board = Board(syntax, client=BASIC)
    board.start()
    answer = board.say(header_status(1, 401, chal()), accept=False)
    assert answer is not None
    assert texts(answer, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]


@rule("Security: 212", "after it no Cred is sent any more")
def test_no_cred_after_212(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"Nonce")
    board.start()
    answer = board.say(header_status(1, 212) + GET, accept=False)
    assert answer is not None
    assert answer.find("SyncHdr/Cred") is None


@rule("Security: 212", "its NextNonce is kept for the next session")
def test_next_nonce_of_212(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"Nonce")
    board.start()
    board.say(header_status(1, 212, chal(nonce="TmV4dA==")) + GET, accept=False)
    assert board.nonces.get("virmo-server", NonceRole.CLIENT) == b"Next"


@rule("Security: 212", "a challenge in it does not keep the session alive")
def test_212_with_chal_ends(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"Nonce")
    board.start()
    assert board.say(header_status(1, 212, chal(nonce="TmV4dA==")), accept=False) is None
    assert board.session.outcome is not None
    assert board.session.outcome.ok
    assert board.nonces.get("virmo-server", NonceRole.CLIENT) == b"Next"


@rule("Security: 200", "Cred is repeated in every message, with the nonce of the last challenge")
def test_cred_after_200(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"x")
    board.start()
    answer = board.say(header_status(1, 200, chal()) + GET, accept=False)
    assert answer is not None
    assert texts(answer, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]


@rule("Security: nonces", "one from a server that never proves itself is used for the retry but not stored")
def test_nonce_of_a_stranger(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, client_nonce=b"old", server=SERVER_MD5, server_nonce=b"s")
    board.start()
    answer = board.say(header_status(1, 401, chal()), accept=False)
    assert answer is not None
    assert texts(answer, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]
    assert board.nonces.get("virmo-server", NonceRole.CLIENT) == b"old"


@rule("Security: nonces", "one from a server that proves itself later is stored then")
def test_nonce_of_a_server_proved_later(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, server=SERVER_MD5, server_nonce=b"s")
    board.start()
    board.say(header_status(1, 407, chal()), accept=False)
    issued = b64decode(_chal_nonce(board))
    board.say(header_status(2, 212) + GET, accept=False, header=cred(md5_of(SERVER_MD5, issued)))
    assert board.nonces.get("virmo-server", NonceRole.CLIENT) == b"Nonce"


def _chal_nonce(board: Board) -> str:
    from tests.conformance.dm_bytes import to_element

    return texts(to_element(board.last, board.syntax), "SyncBody/Status/Chal/Meta/NextNonce")[0]


# ---- the client asks who the server is ---------------------------------------------------------------------------


@rule("Security: credentials of the server", "a server without Cred is challenged 407, and nothing is executed")
def test_server_without_cred(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree, server=SERVER_MD5)
    board.start()
    answer = board.say(command("Delete", "5", "./X"))
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "407"), ("Delete", "407")]
    assert texts(answer, "SyncBody/Status/Chal/Meta/Type") == ["syncml:auth-md5"]
    assert texts(answer, "SyncBody/Status/Chal/Meta/Format") == ["b64"]
    assert len(b64decode(_chal_nonce(board))) == 16
    assert tree.calls == []


@rule("Security: credentials of the server", "wrong Cred is challenged 401, and nothing is executed")
def test_server_with_wrong_cred(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree, server=SERVER_MD5, server_nonce=b"s")
    board.start()
    atomic = f"<Atomic><CmdID>5</CmdID>{command('Delete', '6', './X')}</Atomic>"
    answer = board.say(atomic, header=cred(md5_of(SERVER_MD5, b"stale")))
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "401"), ("Atomic", "401"), ("Delete", "401")]
    assert tree.calls == []


@rule("Security: credentials of the server", "right Cred is answered 212 with the next nonce, which is stored")
def test_server_with_right_cred(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}), server=SERVER_MD5, server_nonce=b"s")
    board.start()
    answer = board.say(GET, header=cred(md5_of(SERVER_MD5, b"s")))
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "212"), ("Get", "200")]
    assert board.nonces.get("virmo-server", NonceRole.SERVER) == b64decode(_chal_nonce(board))


@rule("Security: credentials of the server", "after 212 the server need not repeat them")
def test_server_known_for_session(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}), server=SERVER_MD5, server_nonce=b"s")
    board.start()
    board.say(GET, header=cred(md5_of(SERVER_MD5, b"s")))
    answer = board.say(GET)
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "212"), ("Get", "200")]


@rule("Security: credentials of the server", "wrong Cred after 212 ends the session")
def test_server_wrong_after_212(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree, server=SERVER_MD5, server_nonce=b"s")
    board.start()
    board.say(GET, header=cred(md5_of(SERVER_MD5, b"s")))
    assert board.say(command("Delete", "5", "./X"), header=cred(md5_of(SERVER_MD5, b"no"))) is None
    assert "./X" in tree.leaves


@rule("Security: credentials of the server", "a server that fails the challenge gets no second one")
def test_server_fails_twice(syntax: str) -> None:
    board = Board(syntax, server=SERVER_MD5, server_nonce=b"s")
    board.start()
    board.say(GET)
    assert board.say(GET, header=cred(md5_of(SERVER_MD5, b"s"))) is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.PEER_UNKNOWN


@rule("Security: credentials of the server", "a reply in another scheme than challenged proves nothing")
def test_server_changes_scheme(syntax: str) -> None:
    board = Board(syntax, server=SERVER_MD5, server_nonce=b"s")
    board.start()
    board.say(GET)
    basic = cred(md5_of(BASIC_SERVER, b""), "syncml:auth-basic")
    assert board.say(GET, header=basic) is None


@rule(
    "Security: credentials of the server",
    "without Cred, Chal and commands the server is not challenged: the session ends",
)
def test_silent_stranger(syntax: str) -> None:
    board = Board(syntax, server=SERVER_MD5)
    board.start()
    assert board.say("") is None
    assert board.session.outcome is not None
    assert board.session.outcome.ok


@rule(
    "Security: credentials of the server",
    "wrong Cred without commands: not challenged, but the session did not end well",
)
def test_silent_liar(syntax: str) -> None:
    board = Board(syntax, server=SERVER_MD5, server_nonce=b"s")
    board.start()
    assert board.say("", header=cred(md5_of(SERVER_MD5, b"no"))) is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.PEER_UNKNOWN


@rule("Security: credentials of the server", "what a stranger says about alerts does not count")
def test_stranger_acknowledges(syntax: str) -> None:
    alert = PendingAlert("a", c.Alert(code=1226, items=(c.Item(source="./x", data=""),)))
    board = Board(syntax, server=SERVER_MD5, alerts=[alert])
    board.start()
    status = "<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>2</CmdRef><Cmd>Alert</Cmd><Data>200</Data></Status>"
    board.say(status + GET)
    assert board.session.acknowledged == []


@rule("Security: credentials of the server", "what it said before counts once it has proved itself")
def test_stranger_proves_itself(syntax: str) -> None:
    alert = PendingAlert("a", c.Alert(code=1226, items=(c.Item(source="./x", data=""),)))
    board = Board(syntax, server=SERVER_MD5, alerts=[alert])
    board.start()
    status = "<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>2</CmdRef><Cmd>Alert</Cmd><Data>200</Data></Status>"
    board.say(status + GET)
    board.say(GET, header=cred(md5_of(SERVER_MD5, b64decode(_chal_nonce(board)))))
    assert board.session.acknowledged == ["a"]


@rule("Security: credentials of the server", "both sides may challenge in the same message")
def test_both_challenge(syntax: str) -> None:
    board = Board(syntax, client=BRUCE, server=SERVER_MD5)
    board.start()
    answer = board.say(header_status(1, 407, chal()), accept=False)
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "407")]
    assert texts(answer, "SyncBody/Status/Chal/Meta/Type") == ["syncml:auth-md5"]
    assert texts(answer, "SyncHdr/Cred/Data") == ["Zz6EivR3yeaaENcRN6lpAQ=="]


@rule("Security: basic", "a server with basic credentials is believed")
def test_basic_server(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}), server=BASIC_SERVER)
    board.start()
    answer = board.say(GET, header=cred(md5_of(BASIC_SERVER, b""), "syncml:auth-basic"))
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "212"), ("Get", "200")]
    assert answer.find("SyncBody/Status/Chal") is None


# ---- the server asks who the client is ---------------------------------------------------------------------------


@rule(
    "Security: server challenges", "package 1 without Cred: 407 for SyncHdr and each command, a challenge, no commands"
)
def test_server_407(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./X"),))]), known=KNOWN)
    answer = desk.open()
    assert codes(answer) == [("SyncHdr", "407"), ("Alert", "407"), ("Replace", "407")]
    assert texts(answer, "SyncBody/Status/Chal/Meta/Type") == ["syncml:auth-md5"]
    assert answer.find("SyncBody/Get") is None
    assert desk.application.info == {}


@rule("Security: server challenges", "package 1 with wrong Cred: 401 and a challenge with a fresh nonce")
def test_server_401(syntax: str) -> None:
    desk = Desk(syntax, known=KNOWN, client_nonce=b"stored")
    answer = desk.open(header=cred(md5_of(BRUCE, b"stale")))
    assert codes(answer) == [("SyncHdr", "401"), ("Alert", "401"), ("Replace", "401")]
    assert texts(answer, "SyncBody/Status/Chal/Meta/NextNonce") != [b64encode(b"stored").decode()]


@rule("Security: server challenges", "right Cred: 212 with the next nonce, which is stored")
def test_server_212(syntax: str) -> None:
    desk = Desk(syntax, known=KNOWN, client_nonce=b"stored")
    answer = desk.open(header=cred(md5_of(BRUCE, b"stored")))
    assert codes(answer)[0] == ("SyncHdr", "212")
    nonce = texts(answer, "SyncBody/Status/Chal/Meta/NextNonce")[0]
    assert desk.nonces.get(DEVICE, NonceRole.CLIENT) == b64decode(nonce)


@rule("Security: server challenges", "a failed try does not replace the stored nonce")
def test_stored_nonce_stays(syntax: str) -> None:
    desk = Desk(syntax, known=KNOWN, client_nonce=b"stored")
    desk.open(header=cred(md5_of(BRUCE, b"stale")))
    assert desk.nonces.get(DEVICE, NonceRole.CLIENT) == b"stored"


@rule("Security: server challenges", "after 212 the device need not repeat Cred")
def test_device_known_for_session(syntax: str) -> None:
    application = Application([c.Get(items=(c.Item("./X"),))], [c.Get(items=(c.Item("./Y"),))])
    desk = Desk(syntax, application, known=replace(KNOWN, server=Credentials()), client_nonce=b"n")
    answer = desk.open(header=cred(md5_of(BRUCE, b"n")))
    get_id = texts(answer, "SyncBody/Get/CmdID")[0]
    status = (
        f"<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>{get_id}</CmdRef><Cmd>Get</Cmd><Data>404</Data></Status>"
    )
    answer = desk.say(header_status(1) + status)
    assert codes(answer)[0] == ("SyncHdr", "212")
    assert texts(answer, "SyncBody/Get/Item/Target/LocURI") == ["./Y"]


@rule("Security: server challenges", "a device that repeats a 401 for ever is turned away")
def test_tries_are_limited(syntax: str) -> None:
    desk = Desk(syntax, known=KNOWN, client_nonce=b"n")
    for _ in range(3):
        assert not desk.session.is_over
        desk.open(header=cred(md5_of(BRUCE, b"wrong")))
    assert desk.session.is_over
    assert desk.session.ended is not None
    assert desk.session.ended.reason is EndReason.PEER_UNKNOWN


@rule("Security: server challenges", "an unknown device is answered like one with a wrong secret")
def test_unknown_device(syntax: str) -> None:
    answers = [
        Desk(syntax, known=KNOWN, unknown_device=unknown).open(header=cred(md5_of(BRUCE, b"n")))
        for unknown in (True, False)
    ]
    assert codes(answers[0]) == codes(answers[1]) == [("SyncHdr", "401"), ("Alert", "401"), ("Replace", "401")]


@rule("Security: lock-out", "after repeated failure right credentials are not looked at for a while, then they are")
def test_lock_out(syntax: str) -> None:
    now = [0.0]
    lock_out = BackoffLockOut(lambda: now[0], free=2)
    for _ in range(3):
        Desk(syntax, known=KNOWN, client_nonce=b"n", lock_out=lock_out).open(header=cred(md5_of(BRUCE, b"wrong")))
    right = cred(md5_of(BRUCE, b"n"))
    locked = Desk(syntax, known=KNOWN, client_nonce=b"n", lock_out=lock_out)
    assert codes(locked.open(header=right))[0] == ("SyncHdr", "401")
    assert locked.session.is_over
    now[0] = 31.0
    assert codes(Desk(syntax, known=KNOWN, client_nonce=b"n", lock_out=lock_out).open(header=right))[0][1] == "212"


@rule("Security: lock-out", "each further failure locks out for longer, up to a cap; success forgets all")
def test_lock_out_grows() -> None:
    now = [0.0]
    lock_out = BackoffLockOut(lambda: now[0], free=1)
    waits = []
    for _ in range(12):
        lock_out.failed("d")
        began = now[0]
        while lock_out.is_locked("d"):
            now[0] += 1.0
        waits.append(now[0] - began)
    assert waits[:5] == [0.0, 30.0, 60.0, 120.0, 240.0]
    assert waits[-1] == 3600.0
    lock_out.succeeded("d")
    lock_out.failed("d")
    assert not lock_out.is_locked("d")


@rule("Security: credentials of the server", "the server proves itself with the stored nonce unasked")
def test_server_proves_itself(syntax: str) -> None:
    desk = Desk(syntax, known=KNOWN, client_nonce=b"n", server_nonce=b"s")
    answer = desk.open(header=cred(md5_of(BRUCE, b"n")))
    assert texts(answer, "SyncHdr/Cred/Data") == [md5_of(SERVER_MD5, b"s")]
    assert texts(answer, "SyncHdr/Source/LocName") == ["virmo-server"]


@rule("Security: credentials of the server", "the server does not prove itself to a device that has not")
def test_server_is_discreet(syntax: str) -> None:
    desk = Desk(syntax, known=KNOWN, client_nonce=b"n", server_nonce=b"s")
    assert desk.open().find("SyncHdr/Cred") is None


@rule("Security: challenge", "challenged by the device, the server sends package 2 again with Cred")
def test_package_2_again(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./X"),))]), known=KNOWN, client_nonce=b"n")
    first = desk.open(header=cred(md5_of(BRUCE, b"n")))
    get_id = texts(first, "SyncBody/Get/CmdID")[0]
    refused = (
        f"<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>{get_id}</CmdRef><Cmd>Get</Cmd><Data>407</Data></Status>"
    )
    again = desk.say(header_status(1, 407, chal()) + refused)
    assert texts(again, "SyncHdr/Cred/Data") == [md5_of(SERVER_MD5, b"Nonce")]
    assert texts(again, "SyncBody/Get/Item/Target/LocURI") == ["./X"]
    assert ("Alert", "200") in codes(again)
    assert desk.application.outcomes == {}


@rule(
    "Security: challenge", "a server that fails the challenge ends the session and reports its commands as unanswered"
)
def test_server_gives_up(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./X"),))]), known=KNOWN, client_nonce=b"n")
    desk.open(header=cred(md5_of(BRUCE, b"n")))
    desk.say(header_status(1, 407, chal()))
    answer = desk.say(header_status(2, 401, chal(nonce="QUFB")))
    assert desk.session.is_over
    assert answer.find("SyncBody/Get") is None
    assert desk.application.codes == {"r1": None}


# ---- HMAC in sessions --------------------------------------------------------------------------------------------


@rule("Security: HMAC", "the challenge asks for syncml:auth-MAC, credentials travel in the header only")
def test_hmac_in_header_only(syntax: str) -> None:
    board = Board(syntax, client=HMAC)
    root = board.start()
    assert root.find("SyncHdr/Cred") is None
    assert board.session.outgoing_hmac is None
    answer = board.say(header_status(1, 407, chal("syncml:auth-MAC")), accept=False)
    assert answer is not None
    assert answer.find("SyncHdr/Cred") is None
    assert auth.check_hmac(HMAC, board.session.outgoing_hmac, b"Nonce", board.last)


@rule("Security: HMAC", "every message carries the header once it is used")
def test_hmac_in_every_message(syntax: str) -> None:
    board = Board(syntax, client=HMAC, client_nonce=b"Nonce")
    board.start()
    assert auth.check_hmac(HMAC, board.session.outgoing_hmac, b"Nonce", board.last)
    board.say(header_status(1, 200, chal("syncml:auth-MAC", "TmV4dA==")) + GET, accept=False)
    assert auth.check_hmac(HMAC, board.session.outgoing_hmac, b"Next", board.last)


@cases(
    "Security: HMAC",
    "status",
    [
        ("212 instead of 200 ends the session", header_status(1, 212, chal("syncml:auth-MAC", "TmV4dA=="))),
        ("200 without the next nonce ends the session", header_status(1, 200)),
    ],
)
def test_hmac_violations(status: str, syntax: str) -> None:
    board = Board(syntax, client=HMAC, client_nonce=b"Nonce")
    board.start()
    assert board.say(status + GET, accept=False) is None
    assert board.session.outcome is not None
    assert not board.session.outcome.ok


@rule("Security: HMAC", "a server without the header is challenged, and nothing is executed")
def test_hmac_of_server_missing(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree, server=HMAC_SERVER, server_nonce=b"s")
    board.start()
    answer = board.say(GET)
    assert answer is not None
    assert codes(answer) == [("SyncHdr", "407"), ("Get", "407")]
    assert tree.calls == []


@rule("Security: HMAC", "a right header is answered 200 with the next nonce in every message, and checked in each")
def test_hmac_of_server(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}), server=HMAC_SERVER, server_nonce=b"s")
    board.start()
    nonce = b"s"
    for msg_id in (1, 2):
        octets = to_octets(message(header_status(msg_id) + GET, msg_id=msg_id), syntax)
        answer = board.receive(octets, auth.make_hmac_header(HMAC_SERVER, nonce, octets))
        assert answer is not None
        assert codes(answer) == [("SyncHdr", "200"), ("Get", "200")]
        nonce = b64decode(_chal_nonce(board))
    octets = to_octets(message(header_status(3) + GET, msg_id=3), syntax)
    assert board.receive(octets, auth.make_hmac_header(HMAC_SERVER, b"stale", octets)) is None


@rule("Security: HMAC", "the server answers 200 with the next nonce in every message, and proves its own answers")
def test_hmac_at_the_server(syntax: str) -> None:
    known = DeviceCredentials(HMAC, HMAC_SERVER)
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./X"),))]), known=known, client_nonce=b"n", server_nonce=b"s")
    octets = to_octets(message(PACKAGE_1, target=SERVER_URI, source=DEVICE), syntax)
    answer = desk.receive(octets, auth.make_hmac_header(HMAC, b"n", octets))
    assert codes(answer)[0] == ("SyncHdr", "200")
    assert texts(answer, "SyncBody/Status/Chal/Meta/Type") == ["syncml:auth-MAC"]
    assert auth.check_hmac(HMAC_SERVER, desk.session.outgoing_hmac, b"s", desk.last)
    assert answer.find("SyncHdr/Cred") is None


@rule(
    "Security: HMAC",
    "a message that the transport repeats gets the same answer with the same header, also after storage",
)
def test_repeated_hmac_message(syntax: str) -> None:
    known = DeviceCredentials(HMAC, HMAC_SERVER)
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./X"),))]), known=known, client_nonce=b"n", server_nonce=b"s")
    octets = to_octets(message(PACKAGE_1, target=SERVER_URI, source=DEVICE), syntax)
    header = auth.make_hmac_header(HMAC, b"n", octets)
    desk.receive(octets, header)
    first = desk.last, desk.session.outgoing_hmac
    desk.take_up_again()
    desk.receive(octets, header)
    assert (desk.last, desk.session.outgoing_hmac) == first


# ---- discretion --------------------------------------------------------------------------------------------------


@rule("Security: secrets", "do not appear in what is printed of credentials")
def test_no_secret_in_repr() -> None:
    assert "OhBehave" not in repr(BRUCE) + repr(KNOWN)


@rule("Security: comparison", "MD5 without any nonce proves nothing")
def test_no_nonce_no_proof() -> None:
    assert not auth.check_cred(BRUCE, c.Cred(c.Meta("b64", "syncml:auth-md5"), md5_of(BRUCE, b"")), None)


@rule("Security: comparison", "white space inside a received digest does not matter")
def test_white_space_in_cred() -> None:
    data = " Zz6EivR3yeaaENcR\n N6lpAQ== "
    assert auth.check_cred(BRUCE, c.Cred(c.Meta("b64", "syncml:auth-md5"), data), b"Nonce")
