"""Ties the sharing out of the machine to the management tree and to the server: what the daemon starts and settles.

An ApplyChanges ends in a thread of its own; the alert is durable before the tree hears of it, and the journal forgets
it when the tree has followed.
"""

from __future__ import annotations

from collections.abc import Callable

from dom0_agent.config import AgentConfig
from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.mo.apply_changes import Tree, settle
from dom0_agent.mo.dmtree.work import TreeTasks
from dom0_agent.resources.apply import Applied
from dom0_agent.resources.service import ResourceService
from dom0_agent.resources.sharing import Sharing
from dom0_agent.store.database import Database
from dom0_agent.vm.engine import VmEngine


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

    def _ended(self, applied: Applied) -> None:
        self._report(applied)
        self._tasks.post(lambda: self._follow(applied))

    def _follow(self, applied: Applied) -> None:
        settle(self._tree, applied)
        self.service.apply.reported(applied)
