"""The contract and story tests of ``tests/contract``, unchanged, on real Xen: they run inside a nested dom0.

    this machine ── ssh ──▶ QEMU: Xen
                                 dom0: pytest tests/contract (VIRMO_BACKEND=xl) ── xl ──▶ sample guest with the shim

dom0 gets today's code, the tests, and the pure-Python packages of the pytest that runs this very test.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.guest import build_guest
from image.qemu import Dom0, open_dom0
from tests.bench.bench_resources import empty_table, fill
from tests.figures import RESOURCES, write
from tests.nested.bundles import unpack_guest

pytestmark = pytest.mark.nested

REPOSITORY = Path(__file__).parent.parent.parent
PLACE = "/root/contract"
#: What pytest needs; all of it pure Python.
PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "pytest_timeout")
#: pyxs leaves a file open when it is imported in a dom0; everything else that is left open fails a test.
PYXS_LEAVES_OPEN = "ignore:unclosed file <_io.BufferedReader name='/proc/xen/capabilities'>:ResourceWarning"
#: Seconds for one run of tests in dom0, boots of many guests under emulation (some eighty for the kill points); and for
#: one test in it.
DEADLINE = 3300.0
TEST_TIMEOUT = 900.0


@pytest.fixture(scope="module", params=["credit2"])
def dom0(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dom0]:
    """A dom0 with the tests and the guest in it; no agent runs."""
    with open_dom0("x86_64", scheduler=request.param) as opened:
        prepare(opened, tmp_path_factory.mktemp("contract"))
        yield opened


def prepare(dom0: Dom0, folder: Path) -> None:
    """Put the tests and the guest into a dom0; `folder` is for what is on its way."""
    lay_out(folder, dom0.image.arch.name)
    dom0.run(["sh", "-c", "systemctl stop virmo-agent 2>/dev/null; true"])
    dom0.put(folder, PLACE)
    dom0.run(["truncate", "-s", "8M", f"{PLACE}/guest/disk"])


def lay_out(folder: Path, arch: str) -> None:
    """Collect what goes into dom0."""
    ignore = shutil.ignore_patterns("__pycache__")
    folders = ("dom0_agent", "guest_shim", "tests/contract", "tests/requirements", "tests/bench")
    for name in (*folders, "tests/integration/resources"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for name in ("tests/conftest.py", "tests/figures.py", "setup.cfg"):
        shutil.copy(REPOSITORY / name, folder / name)
    for name in PYTEST:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, folder / "lib" / name, ignore=ignore)
        else:
            (folder / "lib").mkdir(exist_ok=True)
            shutil.copy(source, folder / "lib")
    unpack_guest(build_guest(arch), folder / "guest")


@pytest.mark.long
@pytest.mark.timeout(DEADLINE + 300)
@pytest.mark.parametrize("guest_type", ["pv", "pvh"])
@pytest.mark.parametrize(
    "file",
    [
        "test_hypervisor_contract.py",
        "test_resources_contract.py",
        "test_vm_story.py",
        "test_kill_points.py",
        "test_apply_changes.py",
    ],
)
def test_contract_on_real_xen(file: str, guest_type: str, dom0: Dom0) -> None:
    """R-010 to R-025, R-042, R-056 to R-058, R-119 to R-125, A-08, A-09, A-20, A-55, A-56 on Xen: the same tests as on
    the simulator."""
    run_in(dom0, file, guest_type)


def run_in(dom0: Dom0, file: str, guest_type: str, *options: str) -> None:
    """One file of the contract, in dom0, on guests of one type; `options` are pytest's."""
    environment = {
        "VIRMO_BACKEND": "xl",
        "VIRMO_GUEST_DIR": f"{PLACE}/guest",
        "VIRMO_GUEST_TYPE": guest_type,
        "PYTHONPATH": f"{PLACE}:{PLACE}/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assignments = [f"{name}={value}" for name, value in environment.items()]
    usual = [
        "-p",
        "pytest_timeout",
        f"--timeout={TEST_TIMEOUT}",
        "-p",
        "no:cacheprovider",
        "-q",
        "--durations=10",
        "--rootdir",
        PLACE,
        "-W",
        PYXS_LEAVES_OPEN,
    ]
    command = ["env", "-C", PLACE, *assignments, "python3", "-m", "pytest", *usual, *options, f"tests/contract/{file}"]
    result = dom0.run(command, timeout=DEADLINE, check=False)
    print(result.stdout)
    assert result.rc == 0, f"{file} on Xen:\n{result.stdout}\n{result.stderr}"


def test_xen_is_looked_at_directly(dom0: Dom0) -> None:
    """libxenctrl agrees with xl on this Xen, so that a look at the domains costs no process."""
    script = (
        "from pathlib import Path; from dom0_agent.hypervisor.xl import open_xl; "
        "hypervisor = open_xl(Path('/run/contract')); "
        "assert hypervisor._toolstack._libxc is not None; hypervisor.close()"
    )
    dom0.run(["env", f"PYTHONPATH={PLACE}", "python3", "-c", script])


@pytest.mark.long
def test_apply_changes_costs_little_more_than_the_bare_commands(dom0: Dom0) -> None:
    """R-060: over 1, 4 and 16 VMs at most 1.2 times what ``xl`` and ``tc`` alone take; written into the figures."""
    bench = ["python3", "tests/bench/bench_resources.py", "--xen", f"{PLACE}/guest", "--report"]
    result = dom0.run(["env", "-C", PLACE, f"PYTHONPATH={PLACE}:{PLACE}/lib", *bench], timeout=DEADLINE)
    print(result.stdout)
    told = json.loads(result.stdout.splitlines()[-1])
    write(RESOURCES, [fill(empty_table(told["figures"]["rounds"], on_xen=True), told["figures"]["vms"])])
    assert told["ok"], told
