"""Domains' names, which are for people only: the toolstack keeps them in XenStore, and Xen knows none.

Each is read once in a domain's life. Looks at the domains are many, and one that read all names grew with every VM.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainInfo
from dom0_agent.hypervisor.xenstore import XenStoreError

logger = logging.getLogger(__name__)

#: As ``xl list`` shows a domain that has none (yet, or any more), and what we say when XenStore does not answer.
NONE, UNKNOWN = "(null)", "(unknown)"


class Store(Protocol):
    """What is used of XenStore."""

    def read(self, path: str) -> bytes | None:
        """A node's value."""


class DomainNames:
    """Those that were read. Thread-safe: each look makes a table of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[int, UUID], str] = {}

    def add(self, domains: Sequence[DomainInfo]) -> tuple[DomainInfo, ...]:
        """The same domains, with their names; these are all that there are."""
        before = self._known
        names = {(d.domid, d.uuid): before.get((d.domid, d.uuid)) or self._read(d.domid) for d in domains}
        self._known = {key: name for key, name in names.items() if name not in (NONE, UNKNOWN)}
        return tuple(replace(domain, name=names[domain.domid, domain.uuid]) for domain in domains)

    def _read(self, domid: int) -> str:
        try:
            untrusted_name = self._store.read(f"/local/domain/{domid}/name")
        except XenStoreError as error:
            logger.warning("domain_name_unreadable domid=%d error=%s", domid, error)
            return UNKNOWN
        return NONE if untrusted_name is None else untrusted_name.decode("utf-8", "replace")
