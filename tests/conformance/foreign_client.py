#!/usr/bin/env python3
"""What our server does with a client that no one here wrote: libdmclient (intel/libdmclient, its ``testdmclient``).

The server's side of one conversation, which ``test_foreign_client`` holds with the messages that libdmclient sent and
which are kept in ``recorded/``. To record them again: build libdmclient with its test objects, give its DMAcc object
the account below and its DevInfo the device id, then ``foreign_client.py PORT DIRECTORY`` and ``testdmclient -s
virmo-server`` (``-w`` for WBXML), answering its questions with y and 2. Nonces are counted, so that the same answers
come out each time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.codec import Codec, codec_for
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.server_auth import DeviceCredentials
from tests.unit.omadm.dm_pair import Application, counting_random

DEVICE = "IMEI:490154203237518"
ADDRESS = "http://127.0.0.1:18080/dm"
CREDENTIALS = DeviceCredentials(
    Credentials(AuthScheme.MD5, "judge", "clientpassword"),
    Credentials(AuthScheme.MD5, "virmo-server", "serverpassword"),
)
BOX = "./Vendor/memory/box"
#: Meta is always given: libdmclient's test object crashes without a Format, and wants Data in an interior node
TEXT = c.Meta("chr", "text/plain")


def _get(uri: str) -> c.Get:
    return c.Get(items=(c.Item(uri),))


def _ask(code: int, *texts: str) -> c.Alert:
    return c.Alert(code=code, items=(c.Item(data="MINDT=1&MAXDT=20"), *(c.Item(data=text) for text in texts)))


#: what the server wants, package by package, and the status with which libdmclient answers each command
PACKAGES: tuple[tuple[tuple[c.ManagementCommand | c.Alert, int], ...], ...] = (
    (
        (_get("./DevInfo/Man"), 200),
        (_get("./DevDetail"), 200),
        (_get("./DevInfo/Nothing"), 404),
        (_get(".?list=Struct"), 406),
    ),
    (
        (c.Add(items=(c.Item(BOX, meta=c.Meta("node"), data=""),)), 200),
        (c.Add(items=(c.Item(f"{BOX}/text", meta=TEXT, data="<a> & ]]> ä"),)), 200),
        (c.Add(items=(c.Item(f"{BOX}/text", meta=TEXT, data="again"),)), 418),
    ),
    (
        (_get(BOX), 200),
        (_get(f"{BOX}/text"), 200),
        (c.Replace(items=(c.Item(f"{BOX}/text", meta=TEXT, data="other"),)), 200),
        (_get(f"{BOX}/text"), 200),
        (_get(f"{BOX}/text?prop=ACL"), 200),
        (_get(f"{BOX}/text?prop=Name"), 200),
    ),
    (
        (_ask(1100, "Look"), 200),
        (_ask(1101, "Really?"), 200),
        (_ask(1103, "Which?", "one", "two"), 200),
        (c.Copy(items=(c.Item(f"{BOX}/copy", f"{BOX}/text"),)), 501),
        (c.Delete(items=(c.Item(f"{BOX}/text"),)), 200),
        (_get(f"{BOX}/text"), 404),
    ),
)


def application() -> Application:
    """The server's application of the conversation."""
    return Application(*([command for command, _ in package] for package in PACKAGES))


def session(
    codec: Codec, saved: Mapping[str, Any] | None = None, *, secret: str = CREDENTIALS.client.secret
) -> ServerSession:
    """The server's session. Its own nonce is one that libdmclient does not know: both sides have to challenge."""
    known = replace(CREDENTIALS, client=replace(CREDENTIALS.client, secret=secret))
    nonces = MemoryNonceStore()
    nonces.put(DEVICE, NonceRole.SERVER, b"out of step, 16.")
    return ServerSession(
        session_id="1",
        device_id=DEVICE,
        user_name=None,
        uri=ADDRESS,
        codec=codec,
        lookup=lambda _device, _user: known,
        nonces=nonces,
        random_bytes=counting_random(),
        resp_uri=ADDRESS,
        saved=saved,
    )


def record(port: int, folder: Path) -> None:
    """Serve one conversation and keep what the client sent."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = application()
    sessions: list[ServerSession] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            codec = codec_for(self.headers["Content-Type"])
            if not sessions:
                sessions.append(session(codec))
            number = len(list(folder.iterdir())) + 1
            (folder / f"{number:02}.{codec.media_type.rpartition('+')[2]}").write_bytes(body)
            answer = sessions[0].receive(body, wanted)
            self.send_response(200)
            self.send_header("Content-Type", codec.media_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        while not sessions or not sessions[0].is_over:
            server.handle_request()
    print(sessions[0].ended, wanted.codes)
    for ref, outcome in wanted.outcomes.items():
        print(ref, [item.data for item in outcome.results], [status.items for status in outcome.statuses])


if __name__ == "__main__":
    record(int(sys.argv[1]), Path(sys.argv[2]))
