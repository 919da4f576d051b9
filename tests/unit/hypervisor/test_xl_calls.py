"""How xl is called, and what becomes of its complaints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainInfo,
    DomainState,
    DomainType,
    HypervisorError,
    NotCapable,
    OutOfMemory,
)
from dom0_agent.hypervisor.readback import ReadBackHypervisor
from dom0_agent.hypervisor.tool import ToolResult
from dom0_agent.hypervisor.xenstore import XenStore
from dom0_agent.hypervisor.xl import Xl
from tests.unit.hypervisor.test_xl_output import HEADING, INFO, line

MIB = 1 << 20
UUID_1 = UUID("11111111-2222-4333-8444-555555555555")
CONFIG = DomainConfig(UUID_1, f"virmo-{UUID_1}", DomainType.PV, 128 * MIB, 128 * MIB, 1, 1)
DOMAIN = DomainInfo(UUID_1, 7, CONFIG.name, DomainState.RUNNING, 128 * MIB, 1, 0.0)


class FakeXl:
    """Stands for the program: notes how it was called, and answers by subcommand."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.files: list[str] = []
        self.answers: dict[str, tuple[int, str, str]] = {
            "info": (0, INFO, ""),
            "help": (0, " create   x\n save   x\n", ""),
            "list": (0, HEADING, ""),
        }

    def __call__(self, argv: Sequence[str], deadline: float) -> ToolResult:
        """A :data:`ToolRunner`."""
        assert deadline > 0
        self.calls.append(list(argv))
        self.files += [Path(word).read_text() for word in argv if word.endswith(".xlcfg")]
        code, out, err = self.answers.get(argv[1], (0, "", ""))
        return ToolResult(tuple(argv), code, out, err)


class FakeStore(XenStore):
    """A XenStore of a few nodes."""

    def __init__(self, nodes: dict[str, bytes]) -> None:
        super().__init__()
        self.nodes = nodes

    def read(self, path: str) -> bytes | None:
        return self.nodes.get(path)

    def list(self, path: str) -> tuple[str, ...]:
        return tuple(node[len(path) + 1 :] for node in self.nodes if node.startswith(f"{path}/"))

    def write(self, path: str, value: bytes) -> None:
        self.nodes[path] = value


@pytest.fixture
def fake() -> FakeXl:
    return FakeXl()


@pytest.fixture
def xl(fake: FakeXl, tmp_path: Path) -> Xl:
    return Xl(tmp_path / "run", fake, XenStore())


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda xl: xl.unpause(DOMAIN), ["xl", "unpause", "7"]),
        (lambda xl: xl.pause(DOMAIN), ["xl", "pause", "7"]),
        (lambda xl: xl.destroy(DOMAIN), ["xl", "destroy", "7"]),
        (lambda xl: xl.save(DOMAIN, Path("/s/saved")), ["xl", "save", "7", "/s/saved"]),
    ],
)
def test_domains_are_named_by_domid_in_argument_lists(
    call: Callable[[Xl], None], expected: list[str], xl: Xl, fake: FakeXl
) -> None:
    call(xl)
    assert fake.calls == [expected]


def test_a_guest_that_obeys_xenstore_is_asked_there_without_waiting_for_it(fake: FakeXl, tmp_path: Path) -> None:
    store = FakeStore({"/local/domain/7/control/feature-poweroff": b"1"})
    Xl(tmp_path / "run", fake, store).request_shutdown(DOMAIN)
    assert store.nodes["/local/domain/7/control/shutdown"] == b"poweroff"
    assert fake.calls == []


def test_another_guest_has_its_button_pressed(fake: FakeXl, tmp_path: Path) -> None:
    store = FakeStore({})
    Xl(tmp_path / "run", fake, store).request_shutdown(DOMAIN)
    assert fake.calls == [["xl", "shutdown", "-F", "7"]]
    assert store.nodes == {}


BOOT_ID = {"/local/domain/7/data/virmo/boot-id": b"5f0c9d2e-8a55-4e0b-9b57-0d6f2c2f7a10"}
OBEYS_SUSPEND = {"/local/domain/7/control/feature-suspend": b"1"}
TOO_EARLY = (1, "", "xc: error: Bad mfn 0 for p2m frame list list: Internal error")
RUNS = (0, HEADING + line(CONFIG.name, 7, "r-----"), "")


class BootingXl(FakeXl):
    """The guest boots while somebody looks at the domains, and cannot be saved before; ``seen`` is in XenStore then."""

    def __init__(self, seen: dict[str, bytes]) -> None:
        super().__init__()
        self.store = FakeStore({})
        self.answers |= {"save": TOO_EARLY, "list": RUNS}
        self._seen = seen

    def __call__(self, argv: Sequence[str], deadline: float) -> ToolResult:
        if argv[1] == "list":
            self.store.nodes |= self._seen
            self.answers["save"] = (0, "", "")
        return super().__call__(argv, deadline)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest's boot takes no time, and neither does giving up on it."""
    for name, seconds in (("UP", 0.3), ("SETTLED", 0.05), ("_LOOK", 0.01)):
        monkeypatch.setattr(f"dom0_agent.hypervisor.xl.{name}", seconds)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("seen", [pytest.param(BOOT_ID, id="shim"), pytest.param(OBEYS_SUSPEND, id="kernel")])
def test_a_guest_that_has_only_just_begun_to_boot_is_waited_for(seen: dict[str, bytes], tmp_path: Path) -> None:
    """R-016: Suspend right after PowerOn. ``xl save`` fails while a kernel is not up yet."""
    booting = BootingXl(seen)
    Xl(tmp_path / "run", booting, booting.store).save(DOMAIN, Path("/s/saved"))
    calls = [call[1] for call in booting.calls]
    assert calls == ["save", *["list"] * (len(calls) - 2), "save"]


def test_what_cannot_be_saved_though_it_is_up_is_not_tried_again(fake: FakeXl, tmp_path: Path) -> None:
    fake.answers["save"] = (1, "", "No space left on device")
    with pytest.raises(HypervisorError, match="No space left"):
        Xl(tmp_path / "run", fake, FakeStore(dict(BOOT_ID))).save(DOMAIN, Path("/s/saved"))
    assert [call[1] for call in fake.calls] == ["save"]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("listed", [pytest.param("---sc-", id="ends"), pytest.param("r-----", id="stays mute")])
def test_a_guest_that_does_not_come_up_is_not_waited_for_for_ever(listed: str, fake: FakeXl, tmp_path: Path) -> None:
    """The first complaint is what is told."""
    fake.answers |= {"save": TOO_EARLY, "list": (0, HEADING + line(CONFIG.name, 7, listed), "")}
    with pytest.raises(HypervisorError, match="Bad mfn"):
        Xl(tmp_path / "run", fake, FakeStore({})).save(DOMAIN, Path("/s/saved"))
    assert [call[1] for call in fake.calls].count("save") == 1


def test_create_leaves_no_daemon_and_no_file(xl: Xl, fake: FakeXl, tmp_path: Path) -> None:
    xl.create(CONFIG)
    (call,) = fake.calls
    assert call[:5] == ["xl", "create", "-q", "-e", "-p"]
    assert 'type = "pv"' in fake.files[0]
    assert list((tmp_path / "run").iterdir()) == []
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_restore_uses_our_configuration_not_the_saved_one(xl: Xl, fake: FakeXl) -> None:
    xl.restore(Path("/s/saved"), CONFIG)
    (call,) = fake.calls
    assert call[:4] == ["xl", "restore", "-e", "-p"]
    assert call[5] == "/s/saved"
    assert str(UUID_1) in fake.files[0]


def test_configuration_files_of_a_killed_agent_are_removed(fake: FakeXl, tmp_path: Path) -> None:
    left = tmp_path / "run" / f"{UUID_1}.xlcfg"
    left.parent.mkdir()
    left.write_text("x")
    Xl(tmp_path / "run", fake, XenStore())
    assert not left.exists()


def test_a_failure_tells_call_domain_status_and_what_xl_said(xl: Xl, fake: FakeXl) -> None:
    fake.answers["create"] = (1, "", "libxl: error: disk not found\nmore")
    with pytest.raises(HypervisorError) as error:
        xl.create(CONFIG)
    assert not isinstance(error.value, OutOfMemory)
    for part in ("create", str(UUID_1), "exit status 1", "disk not found; more"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "complaint", ["xc: error: panic: Cannot allocate memory", "failed to free memory for the domain"]
)
def test_missing_memory_is_told_apart(xl: Xl, fake: FakeXl, complaint: str) -> None:
    fake.answers["create"] = (3, "", complaint)
    with pytest.raises(OutOfMemory):
        xl.create(CONFIG)


def test_on_arm_save_is_not_capable_and_xl_is_not_asked(xl: Xl, fake: FakeXl, tmp_path: Path) -> None:
    """Where Xen has no save, Suspend can only pause, and must say so."""
    fake.answers["help"] = (0, " create   x\n", "")
    fake.answers["list"] = (0, HEADING + line(CONFIG.name, 7, "-b----"), "")
    hypervisor = ReadBackHypervisor(xl)
    assert hypervisor.host().can_save is False
    with pytest.raises(NotCapable):
        hypervisor.save(UUID_1, tmp_path / "saved")
    with pytest.raises(NotCapable):
        hypervisor.restore(tmp_path / "saved", CONFIG)
    assert [call[1] for call in fake.calls].count("save") == 0


def test_dying_zombies_are_not_found(xl: Xl, fake: FakeXl) -> None:
    fake.answers["list"] = (0, HEADING + line("(null)", 7, "-----d"), "")
    hypervisor = ReadBackHypervisor(xl)
    assert hypervisor.find(UUID_1) is None
    assert hypervisor.domains() == ()
