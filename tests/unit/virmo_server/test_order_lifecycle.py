"""The table of an order's life, and raw node orders."""

from __future__ import annotations

from itertools import product

import pytest

from dom0_agent.omadm.node import Command
from tests.unit.virmo_server.fleet import NAME, REQUEST, Fleet
from virmo_server.model import FINAL_STATES, OrderState
from virmo_server.orders.lifecycle import MOVES, By, IllegalMove, move
from virmo_server.orders.service import NodeCommand, find_order
from virmo_server.procedures.catalogue import PROCEDURES
from virmo_server.procedures.core import UNKNOWABLE, DmCommand, Done, Fail, Outcome, Situation, status_words
from virmo_server.services import Services


@pytest.fixture
def fleet(services: Services) -> Fleet:
    return Fleet(services)


def node_order(fleet: Fleet, kind: str, uri: str, value: str = "") -> int:
    with fleet.services.database.write() as session:
        command = NodeCommand(kind, uri, value)
        return fleet.services.orders.node_command(session, fleet.device(session), REQUEST, command).id


@pytest.mark.parametrize(("before", "after"), list(product(OrderState, OrderState)))
def test_every_move_is_decided_by_the_table(fleet: Fleet, before: OrderState, after: OrderState) -> None:
    order_id = fleet.refresh()
    with fleet.services.database.write() as session:
        order = find_order(session, order_id)
        order.state = before
        if after in MOVES[before]:
            move(session, order, By("tester", fleet.services.clock()), after, "")
            assert order.state is after
        else:
            with pytest.raises(IllegalMove):
                move(session, order, By("tester", fleet.services.clock()), after, "")


def test_nothing_leaves_a_final_state() -> None:
    assert all(not MOVES[state] for state in FINAL_STATES)


def test_every_step_that_is_named_exists() -> None:
    """A procedure's table is closed: beginnings and steps for the doubtful case are steps of it."""
    for kind, procedure in PROCEDURES.items():
        assert procedure.first in procedure.steps, kind
        for name, step in procedure.steps.items():
            assert step.if_doubtful in {None, UNKNOWABLE, *procedure.steps}, (kind, name)


def test_node_get_tells_the_value(fleet: Fleet) -> None:
    order_id = node_order(fleet, "node-get", "./VirMO/DeviceResources")
    fleet.session()
    assert fleet.order(order_id).message == "RAM=1073741824&Storage=8589934592"


def test_node_replace_is_read_back(fleet: Fleet) -> None:
    fleet.board.nodes["./DevInfo/Ext"] = "old"
    order_id = node_order(fleet, "node-replace", "./DevInfo/Ext", "new")
    assert fleet.session() == ["Replace ./DevInfo/Ext", "Get ./DevInfo/Ext"]
    assert fleet.order(order_id).message == "replaced, and read back the same"


def test_node_commands_keep_their_order(fleet: Fleet) -> None:
    fleet.board.nodes["./X"] = "0"
    orders = [node_order(fleet, "node-replace", "./X", str(number)) for number in range(3)]
    fleet.session()
    assert fleet.board.nodes["./X"] == "2"
    assert all(fleet.order(order_id).state is OrderState.DONE for order_id in orders)


def test_missing_node_is_told(fleet: Fleet) -> None:
    order_id = node_order(fleet, "node-delete", "./Nothing")
    fleet.session()
    assert fleet.order(order_id).message == "the device refused Delete ./Nothing: 404 not found on the device"


def test_raw_exec_is_never_sent_twice(fleet: Fleet) -> None:
    """What an unknown Exec would do the second time nobody knows: the order fails and says so."""
    fleet.deliver()
    fleet.create()
    fleet.session()
    order_id = node_order(fleet, "node-exec", f"{fleet.board.vm_uris()[0]}/Operations/PowerOff")
    fleet.session(lose_answers_of="Exec")
    fleet.session()
    order = fleet.order(order_id)
    assert order.state is OrderState.FAILED
    assert "not known whether the device has done it" in order.message
    assert sum(line.endswith("/PowerOff") for line in fleet.board.log) == 1


def test_raw_exec_whose_end_is_told_between_a_poll_and_its_answer(fleet: Fleet) -> None:
    """The alert finds the order busy with its poll; it must not be waited for again (A-27)."""
    fleet.deliver()
    fleet.create()
    fleet.session()
    fleet.board.slow.add("PowerOff")
    order_id = node_order(fleet, "node-exec", f"{fleet.board.vm_uris()[0]}/Operations/PowerOff")
    fleet.session()
    assert fleet.order(order_id).state is OrderState.ACCEPTED
    serial = fleet.begin()
    answers = [fleet.execute(item) for item in fleet.due(serial)]
    fleet.board.finish_operations()
    fleet.send_alerts(serial)
    fleet.settle(serial, answers)
    order = fleet.order(order_id)
    assert (order.state, order.dm_status) == (OrderState.DONE, 200)


@pytest.mark.parametrize(("code", "ends"), [(200, Done), (1200, Done), (1202, Done), (1405, Fail), (410, Fail)])
def test_raw_exec_knows_the_result_codes_of_guests(code: int, ends: type[Done | Fail]) -> None:
    """SCOMO and LAWMO answer an Exec, or end it by an alert, with codes of their own: 1200 is success."""
    procedure = PROCEDURES["node-exec"]
    uri = "./VirMO/a/DMTree/SCOMO/Inventory/Deployed/g/Operations/Activate"
    situation = Situation({"uri": uri}, {}, "c", "./VirMO", "./VMImgMO")
    outcome = Outcome(DmCommand(Command.EXEC, uri), code)
    assert isinstance(procedure.steps["send"].judge(situation, [outcome]), ends)
    assert procedure.on_alert is not None
    assert isinstance(procedure.on_alert(situation, code), ends)


def test_trail_tells_every_step(fleet: Fleet) -> None:
    from virmo_server.api.views import order_detail_view

    order_id = fleet.deliver()
    fleet.session()
    with fleet.services.database.read() as session:
        view = order_detail_view(session, find_order(session, order_id))
    assert view.device == NAME
    assert [event.state for event in view.events][:2] == [OrderState.QUEUED, OrderState.SENT]
    assert view.events[-1].text == view.message
    assert view.dm_status_text == "200 done"


def test_status_in_words() -> None:
    assert status_words(417) == "417 the device is busy with another operation there"
    assert status_words(1200) == "1200 unknown code"
    assert status_words(299) == "299 success"
