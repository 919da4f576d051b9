"""Orders over sessions: the procedures of chapter 10, synchronous and asynchronous, and everything that goes wrong."""

from __future__ import annotations

import base64
from datetime import timedelta
from urllib.parse import quote

import pytest
from sqlalchemy import select

from dom0_agent.omadm.tree_access import ItemValue
from tests.unit.virmo_server import simulated_board
from tests.unit.virmo_server.conftest import MovableClock
from tests.unit.virmo_server.fleet import Fleet
from tests.unit.virmo_server.simulated_board import SimulatedBoard
from virmo_server.api.views import order_detail_view
from virmo_server.database import Base
from virmo_server.images.library import find_image
from virmo_server.model import Order, OrderState, ReceivedAlert
from virmo_server.orders.alerts import DeviceAlert
from virmo_server.problem import Problem
from virmo_server.services import Services

DELIVERY_VERBS = ["Add", "Replace", "Replace", "Replace", "Exec"]


@pytest.fixture
def fleet(services: Services) -> Fleet:
    return Fleet(services)


@pytest.fixture
def ready(fleet: Fleet) -> Fleet:
    """The image is delivered, the VM ``www`` runs."""
    fleet.deliver()
    fleet.create()
    fleet.session()
    assert fleet.vms()[0]["state"] == 2
    fleet.board.log.clear()
    return fleet


def test_image_delivery_follows_10_1(fleet: Fleet) -> None:
    """R-100, R-105, R-106, R-083, R-089, R-090: add the sub-tree, set the parameters, then Exec Download."""
    order_id = fleet.deliver()
    sent = fleet.session()
    assert [text.split()[0] for text in sent[:5]] == DELIVERY_VERBS
    assert {text.rpartition("/")[2] for text in sent[1:4]} == {"Name", "MediaType", "DownloadURI"}
    assert sent[4].endswith("/Operations/Download")
    order = fleet.order(order_id)
    assert (order.state, order.dm_status) == (OrderState.DONE, 200)
    image = fleet.images()[0]
    assert (image["state"], image["img_id"], image["media_type"]) == (2, "img-1", "application/gzip")
    assert image["location"].startswith("/store/")
    assert image["download_uri"].startswith("https://virmo.example:8443/images/")


def test_image_ready_alert_ends_an_asynchronous_delivery(fleet: Fleet) -> None:
    """R-093, R-110, R-164, A-29: 202, then the alert in a later session, then State is read."""
    fleet.board.slow.add("Download")
    order_id = fleet.deliver()
    fleet.session()
    assert fleet.order(order_id).state is OrderState.ACCEPTED
    fleet.board.finish_operations()
    fleet.session()
    order = fleet.order(order_id)
    assert (order.state, order.dm_status) == (OrderState.DONE, 200)
    assert fleet.images()[0]["state"] == 2


def test_failed_download_is_told_with_its_code(fleet: Fleet) -> None:
    """A-27: 202, then the vendor alert with the failure code; State 3 is what the server shows."""
    fleet.board.slow.add("Download")
    fleet.board.broken["Download"] = 424
    order_id = fleet.deliver()
    fleet.session()
    fleet.board.finish_operations()
    fleet.session()
    order = fleet.order(order_id)
    assert (order.state, order.dm_status) == (OrderState.FAILED, 424)
    assert "424 size or checksum mismatch" in order.message
    assert "3 Download Failed" in order.message
    assert fleet.images()[0]["state"] == 3


def test_delivery_after_a_failed_one_uses_the_same_entry(fleet: Fleet) -> None:
    """A-34: State 3 may be tried again; no second entry is left on the device."""
    fleet.board.broken["Download"] = 500
    image = fleet.upload()
    first = fleet.deliver(image=image)
    fleet.session()
    assert fleet.order(first).state is OrderState.FAILED
    fleet.board.broken.clear()
    second = fleet.deliver(image=image)
    fleet.session()
    assert fleet.order(second).state is OrderState.DONE
    assert len(fleet.images()) == 1


def test_delivery_of_what_is_there_already_only_looks(ready: Fleet) -> None:
    with ready.services.database.read() as session:
        image_id = ready.images()[0]["image_id"]
        image = find_image(session, image_id)
    order_id = ready.deliver(image=image)
    sent = ready.session()
    assert ready.order(order_id).state is OrderState.DONE
    assert all(text.startswith("Get") for text in sent)


def test_other_content_under_a_delivered_name_is_refused(ready: Fleet) -> None:
    with pytest.raises(Problem, match="another image named 'web'"):
        ready.deliver(image=ready.upload(b"other content"))


def test_vm_creation_follows_10_2(fleet: Fleet) -> None:
    """R-112, R-117, R-118, R-055, R-040 to R-043: CreateParams before Exec Create, with the device's own ImgID."""
    fleet.deliver()
    fleet.session()
    order_id = fleet.create()
    sent = fleet.session()
    assert [text.split()[0] for text in sent[:4]] == ["Add", "Replace", "Replace", "Exec"]
    assert sent[1].endswith("/CreateParams")
    vm = fleet.vms()[0]
    assert fleet.board.nodes[f"{vm['uri']}/CreateParams"] == "ImgID=img-1&Running=true"
    assert (vm["name"], vm["state"], vm["vmid"], vm["image"]) == ("www", 2, "vmid-2", "web")
    assert vm["current_config"].startswith("RAM=134217728")
    assert vm["known_at"] == fleet.services.clock()
    assert fleet.order(order_id).message == "State 2 Running"


def test_a_bootstrap_profile_reaches_the_board_and_is_nowhere_else(fleet: Fleet, services: Services) -> None:
    """11.1.3: it holds passwords. The database has it sealed only, and what operators are shown does not have it."""
    profile = base64.b64encode(b"a profile with a password" * 4).decode()
    fleet.deliver()
    fleet.session()
    order_id = fleet.create(bootstrap=profile)
    fleet.session()
    assert fleet.order(order_id).state == OrderState.DONE
    (vm,) = fleet.vms()
    assert f"Bootstrap={quote(profile, safe='')}" in str(fleet.board.nodes[f"{vm['uri']}/CreateParams"])
    with services.database.read() as session:
        shown = order_detail_view(session, session.get_one(Order, order_id))
        kept = [str(row) for table in Base.metadata.sorted_tables for row in session.execute(table.select())]
    assert any(f"vm:{vm['node']}" in row for row in kept)
    for text in (*kept, shown.model_dump_json()):
        assert profile[:40] not in text


def test_vm_can_be_created_powered_off(fleet: Fleet) -> None:
    """R-042."""
    fleet.deliver()
    order_id = fleet.create(running=False)
    fleet.session()
    assert fleet.order(order_id).state is OrderState.DONE
    assert fleet.vms()[0]["state"] == 1


def test_creation_waits_for_the_delivery_of_its_image(fleet: Fleet) -> None:
    """Both are ordered at once; the creation begins when the image is there, in the session in which it comes."""
    fleet.board.slow.add("Download")
    fleet.deliver()
    creation = fleet.create()
    fleet.session()
    assert fleet.order(creation).state is OrderState.QUEUED
    fleet.board.finish_operations()
    fleet.session()
    assert fleet.order(creation).state is OrderState.DONE


def test_creation_fails_with_the_delivery_of_its_image(fleet: Fleet) -> None:
    fleet.board.broken["Download"] = 500
    fleet.deliver()
    creation = fleet.create()
    fleet.session()
    order = fleet.order(creation)
    assert order.state is OrderState.FAILED
    assert "order 1, which it waited for, ended failed" in order.message
    assert fleet.vms() == []


def test_creation_without_the_image_is_refused_at_once(fleet: Fleet) -> None:
    with pytest.raises(Problem, match="no image on device 'board-1' named 'web'"):
        fleet.create()


def test_failed_creation_leaves_no_entry(fleet: Fleet) -> None:
    """The device says why; the entry in NotCreated is removed (A-07), and the name is free again."""
    fleet.deliver()
    fleet.session()
    fleet.board.broken["Create"] = 420
    order_id = fleet.create()
    sent = fleet.session()
    order = fleet.order(order_id)
    assert (order.state, order.dm_status) == (OrderState.FAILED, 420)
    assert "not enough resources" in order.message
    assert sent[-1].startswith("Delete ./VirMO/www-")
    assert fleet.board.vm_uris() == []
    assert fleet.vms() == []
    fleet.board.broken.clear()
    fleet.create()
    fleet.session()
    assert fleet.vms()[0]["state"] == 2


@pytest.mark.parametrize("mode", ["at once", "later"])
def test_the_primitives(ready: Fleet, mode: str) -> None:
    """R-003, 7.1.4: power off and on, suspend and resume; State is read back after each."""
    names = {
        "power-off": ("PowerOff", 1),
        "power-on": ("PowerOn", 2),
        "suspend": ("Suspend", 3),
        "resume": ("Resume", 2),
    }
    for kind, (node, state) in names.items():
        if mode == "later":
            ready.board.slow.add(node)
        order_id = ready.operate(kind)
        ready.session()
        if mode == "later":
            assert ready.order(order_id).state is OrderState.ACCEPTED
            ready.board.finish_operations()
            ready.session()
        order = ready.order(order_id)
        assert (order.state, order.dm_status) == (OrderState.DONE, 200), order.message
        assert ready.vms()[0]["state"] == state


def test_deleting_a_vm_follows_10_3(ready: Fleet) -> None:
    """R-123, R-125: Exec Delete; the entry is gone from the device and from what the server knows."""
    order_id = ready.operate("delete-vm")
    sent = ready.session()
    assert any(text.endswith("/Operations/Delete") for text in sent)
    order = ready.order(order_id)
    assert (order.state, order.dm_status, order.message) == (OrderState.DONE, 200, "State gone")
    assert ready.board.vm_uris() == []
    assert ready.vms() == []


def test_wrong_state_is_told_in_words(ready: Fleet) -> None:
    """A-08: 405, nothing changes."""
    order_id = ready.operate("resume")
    ready.session()
    order = ready.order(order_id)
    assert (order.state, order.dm_status) == (OrderState.FAILED, 405)
    assert order.message == "Resume failed: 405 not allowed in the present state; State is 2 Running"


def test_operations_on_one_vm_run_one_after_the_other(ready: Fleet) -> None:
    first, second = ready.operate("power-off"), ready.operate("power-on")
    ready.board.slow.add("PowerOff")
    ready.session()
    assert ready.order(first).state is OrderState.ACCEPTED
    assert ready.order(second).state is OrderState.QUEUED
    ready.board.finish_operations()
    ready.session()
    assert ready.order(second).state is OrderState.DONE
    assert ready.vms()[0]["state"] == 2


def test_exec_whose_answer_was_lost_is_not_done_twice(ready: Fleet) -> None:
    """The device vanished after it had received the Exec: State tells that it was done."""
    order_id = ready.operate("suspend")
    ready.session(lose_answers_of="Exec")
    assert ready.order(order_id).state is OrderState.SENT
    ready.session()
    assert ready.order(order_id).state is OrderState.DONE
    assert [line for line in ready.board.log if line.startswith("Exec")] == [
        f"Exec {ready.board.vm_uris()[0]}/Operations/Suspend"
    ]


def test_exec_that_never_arrived_is_sent_again(ready: Fleet) -> None:
    order_id = ready.operate("suspend")
    serial = ready.begin()
    assert ready.due(serial)  # sent, and the connection broke before the device got it
    ready.session()
    assert ready.order(order_id).state is OrderState.DONE
    assert ready.vms()[0]["state"] == 3


def test_slow_exec_whose_202_was_lost_ends_with_its_alert(ready: Fleet) -> None:
    """The operation still runs when the Exec comes again (417): the alert of the first one ends the order."""
    ready.board.slow.add("Suspend")
    order_id = ready.operate("suspend")
    ready.session(lose_answers_of="Exec")
    ready.session()
    assert ready.order(order_id).state is OrderState.ACCEPTED
    ready.board.finish_operations()
    ready.session()
    assert ready.order(order_id).state is OrderState.DONE


@pytest.mark.parametrize("lost", ["Add", "Replace", "Exec", "Get"])
def test_creation_survives_a_lost_session_at_each_step(fleet: Fleet, lost: str) -> None:
    """Complaint 25: whatever answer is lost, the order ends done, with one VM."""
    fleet.deliver()
    fleet.session()
    order_id = fleet.create()
    fleet.session(lose_answers_of=lost)
    fleet.session()
    assert fleet.order(order_id).state is OrderState.DONE
    assert len(fleet.board.vm_uris()) == 1


@pytest.mark.parametrize("told", ["before", "between"])
@pytest.mark.parametrize("ends", [OrderState.DONE, OrderState.FAILED])
def test_the_end_of_a_create_that_a_power_cut_undid_is_not_the_end_of_the_next(
    fleet: Fleet, ends: OrderState, told: str
) -> None:
    """Both Execs carry the order's correlator, and the first one's alert comes before the second one is sent, or while
    it runs: then its entry cannot be removed (417). The order ends as the second one does."""
    fleet.deliver()
    fleet.session()
    fleet.board.slow.add("Create")
    order_id = fleet.create()
    fleet.session(lose_answers_of="Exec")
    undone = fleet.board.running.pop()
    fleet.board.broken["Create"] = 500
    if told == "before":
        undone()
    fleet.session()
    assert [line.rpartition("/")[2] for line in fleet.board.log if line.startswith("Exec")].count("Create") == 2
    if told == "between":
        undone()
    if ends is OrderState.DONE:
        del fleet.board.broken["Create"]
    fleet.session()
    assert fleet.order(order_id).state is OrderState.ACCEPTED
    assert sum(line.startswith("Delete") for line in fleet.board.log) == (told == "between")
    fleet.board.finish_operations()
    fleet.session()
    assert fleet.order(order_id).state is ends
    assert len(fleet.board.vm_uris()) == (ends is OrderState.DONE)


@pytest.mark.parametrize("lost", ["Add", "Replace", "Exec", "Get"])
@pytest.mark.parametrize("slow", [False, True])
def test_delivery_survives_a_lost_session_at_each_step(fleet: Fleet, lost: str, slow: bool) -> None:
    if slow:
        fleet.board.slow.add("Download")
    order_id = fleet.deliver()
    fleet.session(lose_answers_of=lost)
    fleet.session()
    fleet.board.finish_operations()
    fleet.session()
    assert fleet.order(order_id).state is OrderState.DONE
    assert len(fleet.images()) == 1


@pytest.mark.parametrize("lost", ["Get", "Exec"])
def test_deletion_survives_a_lost_session(ready: Fleet, lost: str) -> None:
    order_id = ready.operate("delete-vm")
    ready.session(lose_answers_of=lost)
    ready.session()
    assert ready.order(order_id).state is OrderState.DONE
    assert ready.vms() == []


def test_lost_alert_is_made_up_for_by_reading_state(ready: Fleet) -> None:
    """Level-triggered: the alert never comes, but the next session asks for State."""
    ready.board.slow.add("PowerOff")
    order_id = ready.operate("power-off")
    ready.session()
    ready.board.finish_operations()
    ready.board.alerts.clear()
    ready.session()
    order = ready.order(order_id)
    assert order.state is OrderState.DONE
    assert ready.vms()[0]["state"] == 1


def test_waiting_order_asks_once_in_a_session(ready: Fleet) -> None:
    ready.board.slow.add("PowerOff")
    order_id = ready.operate("power-off")
    ready.session()
    assert ready.session() == [f"Get {ready.board.vm_uris()[0]}/State"]
    assert ready.order(order_id).state is OrderState.ACCEPTED


def test_alert_before_the_status_of_its_exec(ready: Fleet) -> None:
    """Some clients send the alert first (oma-dm 15)."""
    ready.board.slow.add("PowerOff")
    order_id = ready.operate("power-off")
    serial = ready.begin()
    answers = [ready.execute(item) for item in ready.due(serial)]
    ready.board.finish_operations()
    ready.send_alerts(serial)
    assert ready.order(order_id).state is OrderState.SENT
    ready.settle(serial, answers)
    ready.settle(serial, [ready.execute(item) for item in ready.due(serial)])
    assert ready.order(order_id).state is OrderState.DONE


def test_order_that_is_never_answered_is_given_up(ready: Fleet) -> None:
    """A command that makes the agent fall over must not be sent for ever (complaint 25)."""
    order_id = ready.operate("suspend")
    for _ in range(ready.services.config.dm.step_attempts):
        serial = ready.begin()
        assert ready.due(serial)
    ready.begin()
    order = ready.order(order_id)
    assert order.state is OrderState.FAILED
    assert "given up" in order.message


def test_suspicious_order_goes_alone_and_holds_nothing_up(ready: Fleet) -> None:
    """An order whose message was never answered is sent alone afterwards; the others follow in the same session."""
    ready.deliver(name="second", image=ready.upload(b"2"))
    first = ready.operate("suspend")
    serial = ready.begin()
    assert len({item.ref.partition(".")[0] for item in ready.due(serial)}) == 2
    serial = ready.begin()
    alone = ready.due(serial)
    assert len({item.ref.partition(".")[0] for item in alone}) == 1
    ready.session()
    assert ready.order(first).state is OrderState.DONE


def test_deadline_ends_an_order_that_the_device_never_asked_for(ready: Fleet, clock: MovableClock) -> None:
    """Complaint 26."""
    order_id = ready.operate("suspend", deadline=timedelta(minutes=5))
    clock.forward(minutes=6)
    assert ready.session() == []
    order = ready.order(order_id)
    assert order.state is OrderState.EXPIRED
    assert "the device did not ask for work in time" in order.message


def test_answer_after_the_end_changes_nothing(ready: Fleet) -> None:
    order_id = ready.operate("suspend")
    serial = ready.begin()
    answers = [ready.execute(item) for item in ready.due(serial)]
    ready.cancel(order_id)
    ready.settle(serial, answers)
    order = ready.order(order_id)
    assert order.state is OrderState.CANCELLED
    assert "may have done" in order.message


def test_cancelled_creation_frees_its_name(fleet: Fleet) -> None:
    fleet.deliver()
    fleet.session()
    fleet.cancel(fleet.create())
    assert fleet.vms() == []
    fleet.create()


def test_foreign_alert_is_kept_and_changes_no_order(ready: Fleet) -> None:
    ready.board.slow.add("PowerOff")
    order_id = ready.operate("power-off")
    ready.session()
    serial = ready.begin()
    with ready.services.database.write() as session:
        alert = DeviceAlert("Reversed-Domain-Name: org.example/battery", "./Battery", "unknown", "int", "warning", "7")
        ready.services.engine.alert(session, ready.device(session), serial, alert)
    assert ready.order(order_id).state is OrderState.ACCEPTED
    with ready.services.database.read() as session:
        stored = session.scalars(select(ReceivedAlert).where(ReceivedAlert.source == "./Battery")).one()
    assert (stored.data, stored.mark, stored.order_id) == ("7", "warning", None)


def test_alert_type_is_trimmed_and_its_prefix_optional() -> None:
    """A-30."""
    assert DeviceAlert("\n urn:oma:at:oma-virmo:imageready:1.0 \n", "x").end_status() == 200
    assert DeviceAlert("reversed-domain-name:org.virmo/operationcomplete", "x", data=" 500 ").end_status() == 500
    assert DeviceAlert("org.virmo/operationcomplete", "x", data="-1").end_status() is None


def test_refresh_learns_what_others_made(services: Services) -> None:
    """VMs and images that this server did not make are found, with the time of the knowledge."""
    board = SimulatedBoard()
    run = Fleet(services, board)
    for uri in ("./VirMO/theirs", "./VMImgMO/disk"):
        board.add("other", uri, ItemValue())
    order_id = run.refresh()
    run.session()
    assert run.order(order_id).message == "1 VMs, 1 images"
    assert [(vm["name"], vm["state"]) for vm in run.vms()] == [("theirs", 0)]
    assert [(image["name"], image["state"]) for image in run.images()] == [("disk", 0)]
    board.delete("other", "./VirMO/theirs")
    run.refresh()
    run.session()
    assert run.vms() == []


def test_roots_are_found_by_moid(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-030, R-031, R-080, A-26: the MOs may be anywhere."""
    board = SimulatedBoard()
    run = Fleet(services, board)
    moved = {"./Vendor/Virt": "urn:oma:mo:oma-virmo:1.0", "./Vendor/Img": "urn:oma:mo:oma-vmimgmo:1.0"}
    monkeypatch.setattr(simulated_board, "MOIDS", moved)
    board.nodes = {".": None, "./Vendor": None, "./Vendor/Virt": None, "./Vendor/Img": None}
    run.refresh()
    run.session()
    with services.database.read() as session:
        device = run.device(session)
    assert (device.virmo_root, device.vmimg_root) == ("./Vendor/Virt", "./Vendor/Img")


def test_device_without_the_mos_is_told(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Fleet(services)
    monkeypatch.setattr(simulated_board, "MOIDS", {})
    order_id = run.refresh()
    run.session()
    order = run.order(order_id)
    assert order.state is OrderState.FAILED
    assert "no management object urn:oma:mo:oma-virmo:1.0 and urn:oma:mo:oma-vmimgmo:1.0" in order.message
