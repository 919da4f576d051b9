"""Parsing what xl prints; the samples are from Xen 4.17."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.hypervisor.interface import DomainState, HypervisorError
from dom0_agent.hypervisor.xl_output import offers, parse_domains, parse_info

MIB = 1 << 20
HEADING = (
    "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID"
    "                            Reason-Code\tSecurity Label\n"
)


def line(
    name: str, domid: int, state: str, reason: str = "-", uuid: str = "11111111-2222-4333-8444-555555555555"
) -> str:
    """A line as xl prints it."""
    return f"{name:40} {domid:5} {256:5} {2:5}     {state}  {12.5:8.1f} {uuid} {reason:>8} {'-':>16}\n"


@pytest.mark.parametrize(
    ("letters", "reason", "state", "told"),
    [
        ("r-----", "-", DomainState.RUNNING, None),
        ("-b----", "-", DomainState.RUNNING, None),
        ("------", "-", DomainState.RUNNING, None),
        ("--p---", "-", DomainState.PAUSED, None),
        ("---s--", "0", DomainState.SHUTDOWN, "poweroff"),
        ("---sr-", "1", DomainState.SHUTDOWN, "reboot"),
        ("---ss-", "2", DomainState.SHUTDOWN, "suspend"),
        ("---sc-", "3", DomainState.CRASHED, "crash"),
        ("---sw-", "4", DomainState.CRASHED, "crash"),
        ("--psc-", "3", DomainState.CRASHED, "crash"),
        ("---s?-", "ff", DomainState.CRASHED, "crash"),
        ("--ps-d", "0", DomainState.DYING, None),
        ("-----d", "-", DomainState.DYING, None),
    ],
)
def test_states_and_reasons(letters: str, reason: str, state: DomainState, told: str | None) -> None:
    (domain,) = parse_domains(HEADING + line("virmo-x", 3, letters, reason))
    assert (domain.state, domain.shutdown_reason) == (state, told)


def test_a_domain_with_all_its_numbers() -> None:
    (domain,) = parse_domains(HEADING + line("virmo-x", 31, "-b----"))
    assert domain.uuid == UUID("11111111-2222-4333-8444-555555555555")
    assert (domain.domid, domain.name, domain.memory, domain.vcpus, domain.cpu_seconds) == (
        31,
        "virmo-x",
        256 * MIB,
        2,
        12.5,
    )


@pytest.mark.parametrize("name", ["(null)", "a name with blanks", "a   7   9 2  -b----  1.0 name", "x" * 60])
def test_strange_names_of_other_peoples_domains_do_not_confuse(name: str) -> None:
    (domain,) = parse_domains(HEADING + line(name, 31, "-b----"))
    assert (domain.domid, domain.name) == (31, name)


def test_a_line_that_cannot_be_understood_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    domains = parse_domains(HEADING + "what is this\n" + line("virmo-x", 3, "-b----"))
    assert [domain.domid for domain in domains] == [3]
    assert "what is this" in caplog.text


@given(st.text(max_size=500))
def test_no_output_makes_the_parser_fail(text: str) -> None:
    parse_domains(text)


INFO = """host                   : dom0
release                : 6.1.0
machine                : x86_64
nr_cpus                : 2
virt_caps              : pv hvm hap
total_memory           : 4095
free_memory            : 2944
outstanding_claims     : 100
xen_major              : 4
xen_minor              : 17
xen_version            : 4.17.7
xen_scheduler          : credit2
cc_compile_by          : a : b
"""


def test_the_hosts_facts() -> None:
    host = parse_info(INFO, can_save=True)
    assert (host.version, host.scheduler, host.cpus, host.can_save) == ("4.17.7", "credit2", 2, True)
    assert (host.total_memory, host.free_memory) == (4095 * MIB, 2944 * MIB)


@pytest.mark.parametrize("missing", ["nr_cpus", "free_memory", "xen_scheduler"])
def test_a_missing_fact_is_named(missing: str) -> None:
    text = "".join(part for part in INFO.splitlines(keepends=True) if not part.startswith(missing))
    with pytest.raises(HypervisorError, match=missing):
        parse_info(text, can_save=True)


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(HypervisorError, match=r"nr_cpus.*many"):
        parse_info(INFO.replace(": 2\n", ": many\n"), can_save=True)


def test_whether_xl_can_save_is_read_from_its_help() -> None:
    text = "xl full list of subcommands:\n\n create              Create a domain\n save                Save a domain\n"
    assert offers(text, "save")
    assert not offers(text, "restore")
    assert not offers(text, "sav")
