"""``virmo-agent bootstrap``: takes a DM profile message from a file or over HTTPS, checks who made it, and opens a
session with the server whose account it brought (OMA-TS-DM-Bootstrap; digest 11).

Runs while the daemon does not: an account is the right to manage the board, so giving it away is root's decision.
"""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dom0_agent.config import AgentConfig
from dom0_agent.daemon import Agent
from dom0_agent.device import grant
from dom0_agent.lockfile import AlreadyRunning
from dom0_agent.logs import set_up
from dom0_agent.mo.dmacc import read_account, read_accounts
from dom0_agent.mo.inbox import BOOTSTRAP, deliver
from dom0_agent.omadm.bootstrap import MAX_PIN_ATTEMPTS, Profile, ProfileCheck, Security, apply_profile, profile_from
from dom0_agent.omadm.codec import MAX_MESSAGE_BYTES, WBXML_MEDIA_TYPE
from dom0_agent.omadm.status import DMError, ProtocolError
from dom0_agent.transport.http import HttpTransport, TransportError
from dom0_agent.transport.tls import TlsConfig


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for. ``source`` is a file or an https address."""

    source: str
    content_type: str = WBXML_MEDIA_TYPE
    network_id_file: Path | None = None
    pin: str | None = None
    trust_file: bool = False
    ca_file: Path | None = None


class Refused(Exception):  # noqa: N818 - it says what happened
    """The profile is not taken; the message says why."""


def bootstrap(config: AgentConfig, request: Request) -> int:
    """Exit status 0 when the account is there and the first session with its server ended well."""
    set_up(config.log)
    try:
        profile = _accepted(_fetch(request, config.dm.tls), request)
        agent = Agent(config)
    except (Refused, AlreadyRunning, TransportError, ProtocolError) as error:
        print(f"virmo-agent: {error}", file=sys.stderr)
        return 1
    try:
        return _apply(agent, profile)
    finally:
        agent.close()


def _fetch(request: Request, tls: TlsConfig) -> Profile:
    if request.source.startswith(("https://", "http://")):
        transport = HttpTransport(tls if request.ca_file is None else replace(tls, ca_file=request.ca_file))
        try:
            answer = transport.get(request.source)
        finally:
            transport.close()
        return profile_from(answer.headers.get("content-type", ""), answer.body)
    try:
        with Path(request.source).open("rb") as stream:
            untrusted_body = stream.read(MAX_MESSAGE_BYTES + 1)
    except OSError as error:
        raise Refused(f"{request.source} cannot be read: {error.strerror}") from error
    return profile_from(request.content_type, untrusted_body)


def _accepted(profile: Profile, request: Request) -> Profile:
    if profile.security is None:
        if request.trust_file and not request.source.startswith("http"):
            return profile
        raise Refused("the profile has no MAC: only a file that you vouch for (--trust-file) is taken without one")
    network_id = b"" if request.network_id_file is None else _key(request.network_id_file)
    if profile.security is not Security.USERPIN and not network_id:
        raise Refused(f"the profile is protected with {profile.security.value}: --network-id-file is needed")
    check = ProfileCheck(profile)
    if profile.security is Security.NETWORKID or request.pin is not None:
        if check.accepts(network_id=network_id, pin=request.pin or ""):
            return profile
    else:
        while not check.locked:
            if check.accepts(network_id=network_id, pin=getpass.getpass("PIN of the bootstrap message: ")):
                return profile
        raise Refused(f"{MAX_PIN_ATTEMPTS} wrong PINs")
    raise Refused("the profile's MAC is wrong: it was not made with this key, or was changed on its way")


def _key(file: Path) -> bytes:
    try:
        return file.read_bytes().strip()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error


def _apply(agent: Agent, profile: Profile) -> int:
    agent.start()
    outcome = apply_profile(profile, agent.tree, BOOTSTRAP)
    for name, target, status in outcome.results:
        print(f"{name} {target}: {status}")
    try:
        accounts = [read_account(agent.tree, delivered.path) for delivered in deliver(agent.tree)]
    except DMError as error:
        print(f"virmo-agent: the profile does not fit this device: {error}", file=sys.stderr)
        return 1
    new = [account for account in accounts if account is not None]
    if not outcome.ok or not new:
        print("virmo-agent: the profile brought no account", file=sys.stderr)
        return 1
    grant(agent.tree, [account.server_id for account in read_accounts(agent.tree)])
    reports = [agent.session(account) for account in new]
    for report in reports:
        print(f"{report.server_id}: {report.sentence}")
    return 0 if all(report.ok for report in reports) else 1
