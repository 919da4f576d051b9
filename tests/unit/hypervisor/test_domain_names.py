"""A domain's name is read once, and a domid that comes again is another domain."""

from __future__ import annotations

from uuid import UUID

from dom0_agent.hypervisor.domain_names import DomainNames
from dom0_agent.hypervisor.interface import DomainInfo, DomainState
from dom0_agent.hypervisor.xenstore import XenStoreError


class Store:
    """Nodes, and which were read."""

    def __init__(self, **names: bytes) -> None:
        self.nodes = {f"/local/domain/{key[1:]}/name": value for key, value in names.items()}
        self.asked: list[str] = []
        self.dead = False

    def read(self, path: str) -> bytes | None:
        self.asked.append(path)
        if self.dead:
            raise XenStoreError("xenstored does not answer")
        return self.nodes.get(path)


def domain(domid: int, uuid: int) -> DomainInfo:
    return DomainInfo(UUID(int=uuid), domid, "", DomainState.RUNNING, 1 << 20, 1, 0.0)


def test_each_name_is_read_once() -> None:
    store = Store(d0=b"Domain-0", d7=b"virmo-7")
    names = DomainNames(store)
    for _ in range(3):
        assert [d.name for d in names.add([domain(0, 0), domain(7, 1)])] == ["Domain-0", "virmo-7"]
    assert len(store.asked) == 2


def test_what_is_not_known_is_asked_for_again() -> None:
    """A domain has no name for a moment; nor when XenStore is dead."""
    store = Store()
    names = DomainNames(store)
    assert names.add([domain(7, 1)])[0].name == "(null)"
    store.dead = True
    assert names.add([domain(7, 1)])[0].name == "(unknown)"
    store.dead = False
    store.nodes["/local/domain/7/name"] = b"\xffodd"
    assert names.add([domain(7, 1)])[0].name == "\ufffdodd"


def test_another_domain_has_another_name() -> None:
    """With the same domid, as after a reboot of dom0; and a domain that is gone is forgotten."""
    store = Store(d7=b"one")
    names = DomainNames(store)
    assert names.add([domain(7, 1)])[0].name == "one"
    store.nodes["/local/domain/7/name"] = b"two"
    assert names.add([domain(7, 2)])[0].name == "two"
    assert names.add([domain(7, 1)])[0].name == "two"
