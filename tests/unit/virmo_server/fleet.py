"""Drives orders of one simulated board through the engine, session by session, without SyncML and HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from dom0_agent.omadm import commands as c
from tests.unit.virmo_server.simulated_board import SimulatedBoard
from virmo_server.api.views import device_image_views, vm_views
from virmo_server.credentials import new_serial
from virmo_server.devices.registry import NewDevice, find_device, register
from virmo_server.dm.conversion import read_alert
from virmo_server.images.library import ImageSpec
from virmo_server.model import Device, Image, Order
from virmo_server.orders.engine import Answer, DueCommand
from virmo_server.orders.service import Request
from virmo_server.services import Services

NAME = "board-1"
REQUEST = Request(actor="tester")


class Fleet:
    """One registered device, and the board that it is."""

    def __init__(self, services: Services, board: SimulatedBoard | None = None) -> None:
        self.services = services
        self.board = board or SimulatedBoard()
        with services.database.write() as session:
            new = NewDevice(name=NAME, dev_id="urn:uuid:1")
            register(session, new, server_id=services.config.server_id, vault=services.vault, clock=services.clock)

    def device(self, session: Session) -> Device:
        return find_device(session, NAME)

    # ---- what operators do

    def upload(self, content: bytes = b"image", name: str = "web") -> Image:
        spec = ImageSpec(name=name, file_name=f"{name}.tar.gz", media_type="application/gzip")
        with self.services.library.begin(spec) as upload:
            upload.write(content)
            return upload.finish()

    def deliver(self, name: str = "web", image: Image | None = None) -> int:
        image = image or self.upload(name=name)
        with self.services.database.write() as session:
            orders = self.services.orders
            return orders.deliver_image(session, self.device(session), REQUEST, name=name, image=image).id

    def create(
        self,
        name: str = "www",
        image: str = "web",
        *,
        running: bool = True,
        devices: Sequence[str] = (),
        bootstrap: str | None = None,
    ) -> int:
        with self.services.database.write() as session:
            orders = self.services.orders
            device = self.device(session)
            return orders.create_vm(
                session,
                device,
                REQUEST,
                name=name,
                image=image,
                running=running,
                devices=devices,
                bootstrap=bootstrap,
            ).id

    def operate(self, kind: str, name: str = "www", deadline: timedelta | None = None) -> int:
        with self.services.database.write() as session:
            request = Request(actor="tester", deadline=deadline)
            orders = self.services.orders
            return orders.vm_operation(session, self.device(session), request, kind=kind, name=name).id

    def apply(self, **configs: dict[str, int]) -> int:
        with self.services.database.write() as session:
            return self.services.orders.apply_resources(session, self.device(session), REQUEST, configs).id

    def peripheral(self, kind: str, peripheral: str | None = None, name: str = "www") -> int:
        with self.services.database.write() as session:
            device, orders = self.device(session), self.services.orders
            return orders.peripheral(session, device, REQUEST, kind=kind, name=name, peripheral=peripheral).id

    def refresh(self) -> int:
        with self.services.database.write() as session:
            return self.services.orders.refresh(session, self.device(session), REQUEST).id

    def cancel(self, order_id: int) -> None:
        with self.services.database.write() as session:
            order = session.get(Order, order_id)
            assert order is not None
            self.services.orders.cancel(session, order, "tester")

    def order(self, order_id: int) -> Order:
        with self.services.database.read() as session:
            order = session.get(Order, order_id)
            assert order is not None
            return order

    # ---- what the device does

    def session(self, *, lose_answers_of: str | None = None) -> list[str]:
        """A whole DM session; the commands that were sent. It breaks off when a command's text has the given part:
        the board executes that message, but its answer never arrives."""
        serial = self.begin()
        sent: list[str] = []
        for _ in range(100):
            due = self.due(serial)
            if not due:
                return sent
            sent += [item.command.describe() for item in due]
            answers = [self.execute(item) for item in due]
            if lose_answers_of is not None and any(lose_answers_of in text for text in sent):
                return sent
            self.send_alerts(serial)
            self.settle(serial, answers)
        raise AssertionError(f"the session does not end: {sent}")

    def begin(self) -> str:
        """A new session with the alerts that wait."""
        serial = new_serial()
        with self.services.database.write() as session:
            self.services.engine.begin_session(session, self.device(session), serial)
        self.send_alerts(serial)
        return serial

    def due(self, serial: str) -> list[DueCommand]:
        with self.services.database.write() as session:
            return self.services.engine.due(session, self.device(session), serial)

    def execute(self, item: DueCommand) -> Answer:
        status, nodes = self.board.run(item.command)
        return Answer(item.ref, status, nodes)

    def settle(self, serial: str, answers: list[Answer]) -> None:
        with self.services.database.write() as session:
            for answer in answers:
                self.services.engine.settle(session, self.device(session), answer, serial)

    def send_alerts(self, serial: str) -> None:
        with self.services.database.write() as session:
            for pending in self.board.alerts:
                alert: c.Alert = pending.alert
                for item in alert.items:
                    self.services.engine.alert(session, self.device(session), serial, read_alert(alert, item))
        self.board.alerts.clear()

    # ---- what the server knows

    def vms(self) -> list[dict[str, Any]]:
        with self.services.database.read() as session:
            return [view.model_dump() for view in vm_views(session, self.device(session))]

    def images(self) -> list[dict[str, Any]]:
        with self.services.database.read() as session:
            return [view.model_dump() for view in device_image_views(session, self.device(session))]
