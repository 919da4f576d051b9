"""Ties the sharing out of the machine to the management tree and to the server: what the daemon starts and settles.

An ApplyChanges ends in a thread of its own; the alert is durable before the tree hears of it, and the journal forgets
it when the tree has followed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from dom0_agent.config import AgentConfig
from dom0_agent.control_client import ControlError
from dom0_agent.hypervisor.interface import Hypervisor, HypervisorError
from dom0_agent.mo.apply_changes import Tree, collect, settle
from dom0_agent.mo.dmtree.work import TreeTasks
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.apply import Applied
from dom0_agent.resources.plan import describe
from dom0_agent.resources.service import ResourceService
from dom0_agent.resources.sharing import Sharing
from dom0_agent.store.database import Database
from dom0_agent.vm.engine import VmEngine

#: Seconds that virmoctl waits for the tree.
PLAN_WAIT = 25.0


class ResourceManagement:
    """``start`` before the engine, ``settle`` in the tree's thread when woken, ``stop`` before the engine."""

    def __init__(
        self,
        config: AgentConfig,
        database: Database,
        hypervisor: Hypervisor,
        vms: VmEngine,
        sharing: Sharing,
        *,
        tree: Tree,
        report: Callable[[Applied], None],
        wake: Callable[[], None],
    ) -> None:
        """``report`` makes the alert that an end calls for; ``wake`` (any thread) has :meth:`settle` called soon."""
        self._tree = tree
        self._report = report
        self._tasks = TreeTasks(wake)
        self.service = ResourceService(database, hypervisor, vms, sharing, listener=self._ended, config=config)

    def start(self) -> None:
        """See :meth:`ResourceService.start`."""
        self.service.start()

    def settle(self) -> None:
        """Let the tree follow what has ended."""
        self._tasks.settle()

    def stop(self) -> None:
        """See :meth:`ResourceService.stop`."""
        self.service.stop()

    def calls(self, nodes: Callable[[], Mapping[str, str]]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """What the control socket answers; ``nodes`` maps VMIDs to their sub-trees."""
        return {"resources": lambda _: self._usage(nodes()), "resources.plan": lambda _: self._plan()}

    def _usage(self, nodes: Mapping[str, str]) -> dict[str, Any]:
        try:
            rows = [{"node": nodes.get(row["vmid"]), **row} for row in self.service.usage.vms()]
            device = self.service.usage.device()
        except HypervisorError as error:
            raise ControlError(f"the hypervisor does not answer: {error}") from error
        return {"device": device, "running_step": self.service.apply.running_step, "vms": rows}

    def _plan(self) -> dict[str, Any]:
        """In a control thread: the tree's own thread reads the NewConfigs."""
        answer: dict[str, Any] = {}
        done = threading.Event()

        def look() -> None:
            try:
                targets, steps = self.service.apply.plan(collect(self._tree))
                answer.update(refused=None, status=200, steps=describe(targets, steps))
            except (DMError, OperationRefused) as refusal:
                answer.update(refused=str(refusal), status=refusal.status, steps=[])
            except HypervisorError as error:
                answer.update(refused=str(error), status=int(Status.COMMAND_FAILED), steps=[])
            finally:
                done.set()

        self._tasks.post(look)
        if not done.wait(PLAN_WAIT):
            raise ControlError(f"a session is running: the plan was not made within {PLAN_WAIT:.0f} s")
        return answer

    def _ended(self, applied: Applied) -> None:
        self._report(applied)
        self._tasks.post(lambda: self._follow(applied))

    def _follow(self, applied: Applied) -> None:
        settle(self._tree, applied)
        self.service.apply.reported(applied)
