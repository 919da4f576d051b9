"""``virmo-agent``: the daemon, one session in the foreground, and the doctor.

Only parses arguments and prints; what takes time to import is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dom0_agent.config import DEFAULT_FILE, AgentConfig
from dom0_agent.config_schema import ConfigError, load

EXIT_FAILED = 1
EXIT_USAGE = 2  #: also a configuration that cannot be used; systemd must not restart because of it


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0 when the command did what it says."""
    arguments = _parser().parse_args(argv)
    try:
        config = load(AgentConfig, arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    status: int = arguments.command(config, arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virmo-agent",
        description="OMA DM and VirMO client of a Xen board; runs in dom0.",
        epilog="Look at a running agent with virmoctl.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help="configuration file (%(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run as daemon, in the foreground, until SIGTERM")
    run.set_defaults(command=_run)
    session = commands.add_parser(
        "session",
        help="open one client-initiated DM session now; exit status 0 if it ended well",
        description="Opens one DM session. When the daemon runs, it is asked to do so; otherwise this process does, "
        "and waits for the operations that the session began.",
    )
    session.add_argument("--server", metavar="SERVER_ID", help="only with this server (default: all accounts)")
    session.add_argument("--trace", action="store_true", help="show each message: command, node, status")
    session.add_argument(
        "--trace-dir", type=Path, metavar="DIR", help="keep the raw bytes of each message there (with secrets)"
    )
    session.set_defaults(command=_session)
    ddf = commands.add_parser("ddf", help="print the DDF of a management object that this agent has")
    ddf.add_argument("object", nargs="?", help="its name; without one, the names are listed")
    ddf.set_defaults(command=_ddf)
    bootstrap = commands.add_parser(
        "bootstrap",
        help="take a server account from a bootstrap message (DM profile)",
        description="Takes a WBXML bootstrap message from a file or an https address, checks its MAC, puts the account "
        "that it brings into the tree, and opens a session with that server. The daemon must be stopped.",
    )
    bootstrap.add_argument("source", metavar="FILE|URL")
    bootstrap.add_argument("--content-type", help="of a FILE, with its SEC and MAC parameters")
    bootstrap.add_argument("--network-id-file", type=Path, metavar="KEY", help="file with the NETWORKID secret")
    bootstrap.add_argument("--pin", help="USERPIN; without it you are asked")
    bootstrap.add_argument(
        "--trust-file", action="store_true", help="take a FILE without MAC: you know where it is from"
    )
    bootstrap.add_argument(
        "--ca-file", type=Path, help="CA of the web server of a URL (default: that of dm.tls, else the system's)"
    )
    bootstrap.set_defaults(command=_bootstrap)
    doctor = commands.add_parser("doctor", help="check the board and say what to do about each failure")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(command=_doctor)
    return parser


def _run(config: AgentConfig, _arguments: argparse.Namespace) -> int:
    from dom0_agent.daemon import run
    from guest_shim.memory import keep_freed_memory

    keep_freed_memory()
    return run(config)


def _session(config: AgentConfig, arguments: argparse.Namespace) -> int:
    from dom0_agent.foreground import session

    return session(config, arguments.server, trace=arguments.trace, trace_dir=arguments.trace_dir)


def _ddf(config: AgentConfig, arguments: argparse.Namespace) -> int:
    from dom0_agent.mo.catalogue import CATALOGUE
    from dom0_agent.omadm.ddf import ddf_document

    if arguments.object is None:
        print("\n".join(CATALOGUE))
        return 0
    if arguments.object not in CATALOGUE:
        print(f"virmo-agent: no object {arguments.object!r}; there are {', '.join(CATALOGUE)}", file=sys.stderr)
        return EXIT_USAGE
    device = config.device
    print(ddf_document([CATALOGUE[arguments.object]()], man=device.manufacturer, mod=device.model))
    return 0


def _bootstrap(config: AgentConfig, arguments: argparse.Namespace) -> int:
    from dom0_agent.bootstrapping import Request, bootstrap
    from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE

    request = Request(
        arguments.source,
        arguments.content_type or WBXML_MEDIA_TYPE,
        arguments.network_id_file,
        arguments.pin,
        arguments.trust_file,
        arguments.ca_file,
    )
    return bootstrap(config, request)


def _doctor(config: AgentConfig, arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from dom0_agent.doctor import Level, examine
    from dom0_agent.terminal import styled

    findings = []
    for name, finding in examine(config, arguments.config):
        findings.append((name, finding))
        if not arguments.json:
            print(f"{styled(finding.level.value.upper().ljust(4), finding.level.value)}  {name}: {finding.seen}")
            if finding.remedy:
                print(f"      → {finding.remedy}")
    if arguments.json:
        rows = [{"check": name, **asdict(finding), "level": finding.level.value} for name, finding in findings]
        print(json.dumps(rows))
    return EXIT_FAILED if any(finding.level is Level.FAIL for _, finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
