"""The state machine of 7.1.4, all of it: every primitive from every state."""

from __future__ import annotations

from uuid import UUID

import pytest

from dom0_agent.vm.model import Primitive, VmState
from dom0_agent.vm.states import TRANSITIONS, IllegalTransition, require

VMID = UUID("11111111-2222-4333-8444-555555555555")

#: The textual table of 7.1.4, written down a second time on purpose.
LEGAL = {
    (Primitive.CREATE, VmState.NOT_CREATED): VmState.RUNNING,
    (Primitive.CREATE_AND_POWER_OFF, VmState.NOT_CREATED): VmState.POWERED_OFF,
    (Primitive.SUSPEND, VmState.RUNNING): VmState.SUSPENDED,
    (Primitive.RESUME, VmState.SUSPENDED): VmState.RUNNING,
    (Primitive.POWER_ON, VmState.POWERED_OFF): VmState.RUNNING,
    (Primitive.POWER_OFF, VmState.RUNNING): VmState.POWERED_OFF,
    (Primitive.DELETE, VmState.POWERED_OFF): VmState.DELETED,
    (Primitive.DELETE, VmState.RUNNING): VmState.DELETED,
    (Primitive.DELETE, VmState.SUSPENDED): VmState.DELETED,
}


@pytest.mark.parametrize("primitive", list(Primitive), ids=lambda primitive: primitive.value)
@pytest.mark.parametrize("state", list(VmState), ids=lambda state: state.name)
def test_every_primitive_from_every_state(primitive: Primitive, state: VmState) -> None:
    """R-013 to R-025, R-057, A-08: 405 for what is not in the table."""
    expected = LEGAL.get((primitive, state))
    if expected is None:
        with pytest.raises(IllegalTransition) as refused:
            require(VMID, primitive, state)
        assert refused.value.status == 405
        assert primitive.value in str(refused.value)
        assert str(VMID) in str(refused.value)
    else:
        assert require(VMID, primitive, state) is expected


def test_only_power_off_and_delete_preempt() -> None:
    assert {primitive for primitive, transition in TRANSITIONS.items() if transition.preempts} == {
        Primitive.POWER_OFF,
        Primitive.DELETE,
    }


def test_values_are_the_specifications() -> None:
    """R-035, A-52."""
    assert [(state.name, state.value) for state in VmState] == [
        ("NOT_CREATED", 0),
        ("POWERED_OFF", 1),
        ("RUNNING", 2),
        ("SUSPENDED", 3),
        ("DELETED", 4),
    ]
