"""``virmo-agent session``: sessions in the foreground, by the running daemon if there is one, else by this process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dom0_agent.config import AgentConfig
from dom0_agent.console import console_of_process
from dom0_agent.control_client import ControlError, call
from dom0_agent.daemon import SESSION_WAIT, Agent
from dom0_agent.dm_session import Trace
from dom0_agent.lockfile import AlreadyRunning
from dom0_agent.logs import set_up
from dom0_agent.traces import play, terminal_trace

POLL = 0.5  #: seconds between looks at running operations
OPERATIONS_DEADLINE = 3600.0  #: seconds that operations may go on after the session, before this process leaves them


def session(config: AgentConfig, server_id: str | None, *, trace: bool, trace_dir: Path | None) -> int:
    """One session with each account (or only ``server_id``); 0 if all ended well."""
    set_up(config.log)
    try:
        tracer = terminal_trace(config.dm.encoding, show=trace, folder=trace_dir)
    except OSError as error:
        print(f"virmo-agent: {trace_dir} cannot be made: {error.strerror}", file=sys.stderr)
        return 1
    try:
        agent = Agent(config, console_of_process())
    except AlreadyRunning:
        return _by_daemon(config, server_id, tracer)
    try:
        agent.start()
        return _by_this_process(agent, server_id, tracer)
    finally:
        agent.close()


def _by_this_process(agent: Agent, server_id: str | None, tracer: Trace | None) -> int:
    accounts = [account for account in agent.accounts() if server_id in (None, account.server_id)]
    if not accounts:
        wanted = "" if server_id is None else f" for {server_id!r}"
        print(f"virmo-agent: there is no server account{wanted} (dm.accounts in the configuration)", file=sys.stderr)
        return 1
    reports = [agent.session(account, trace=tracer) for account in accounts]
    for report in reports:
        print(f"{report.server_id}: {report.sentence}")
    _await_operations(agent)
    return 0 if all(report.ok for report in reports) else 1


def _await_operations(agent: Agent) -> None:
    """What the session began goes on in this process: see it to its end; its alerts wait for the next session."""
    deadline = time.monotonic() + OPERATIONS_DEADLINE
    shown: list[str] = []
    while (busy := agent.busy()) and time.monotonic() < deadline:
        if busy != shown:
            print("waiting for " + "; ".join(busy), flush=True)
            shown = busy
        time.sleep(POLL)


def _by_daemon(config: AgentConfig, server_id: str | None, tracer: Trace | None) -> int:
    try:
        result = call(config.control.socket, "session", SESSION_WAIT, server=server_id, trace=tracer is not None)
    except ControlError as error:
        print(f"virmo-agent: {error}", file=sys.stderr)
        return 1
    if tracer is not None:
        play(result["messages"], tracer)
        if result["left_out"]:
            print(f"({result['left_out']} more messages were too many to be recorded)")
    for report in result["sessions"]:
        print(f"{report['server_id']}: {report['outcome']}")
    return 0 if result["ok"] else 1
