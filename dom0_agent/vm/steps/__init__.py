"""The steps that operations are made of. Each can be done, and undone from whatever state a crash left it in.

A step knows one thing to do with one VM; the order is ``plans``', the journal and failures are ``runner``'s. ``undo``
must work after ``do`` was done, half done or not done at all, in this process or in one before it; it finds what there
is by the VMID alone. A module for each concern: a new kind of step gets its own beside these.
"""

from __future__ import annotations

from dom0_agent.vm.steps.base import Cancelled, Services, Step, Work
from dom0_agent.vm.steps.end import AskToShutDown, Destroy
from dom0_agent.vm.steps.files import EmptyTrash, Hide, MakeFiles, initial_allocation
from dom0_agent.vm.steps.rebuild import AwaitShim, EndOldSystem, MakeSystem
from dom0_agent.vm.steps.shares import GiveShares, GiveSharesAgain, TakeShares
from dom0_agent.vm.steps.start import LetGoOn, LetRun, StartAgain, StartPaused
from dom0_agent.vm.steps.suspend import DropSavedState, Pause, RestorePaused, Save

__all__ = [
    "AskToShutDown",
    "AwaitShim",
    "Cancelled",
    "Destroy",
    "DropSavedState",
    "EmptyTrash",
    "EndOldSystem",
    "GiveShares",
    "GiveSharesAgain",
    "Hide",
    "LetGoOn",
    "LetRun",
    "MakeFiles",
    "MakeSystem",
    "Pause",
    "RestorePaused",
    "Save",
    "Services",
    "StartAgain",
    "StartPaused",
    "Step",
    "TakeShares",
    "Work",
    "initial_allocation",
]
