"""Whether a queued order may begin: its predecessor's end, its group's rate, and what only the present can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from virmo_server.devices import knowledge
from virmo_server.model import Device, Order, OrderGroup, OrderState
from virmo_server.procedures.catalogue import CREATE_VM
from virmo_server.procedures.states import ImageState, image_state_words, parse_state


@dataclass(frozen=True, slots=True)
class Ready:
    """It may begin; ``memory`` is what was found out for it."""

    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocked:
    """Not yet."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """It can never begin, for this reason."""

    message: str


def check(session: Session, order: Order) -> Ready | Blocked | Unfit:
    """Look at the order as things are now."""
    if order.after_id is not None:
        before = session.get(Order, order.after_id)
        if before is not None and not before.state.is_final:
            return Blocked()
        if before is not None and before.state is not OrderState.DONE:
            return Unfit(f"order {before.id}, which it waited for, ended {before.state}: {before.message}")
    if order.group_id is not None and not _rate_allows(session, order.group_id):
        return Blocked()
    if order.kind == CREATE_VM:
        return _resolve_image(session, order.device, str(order.params["image_node"]))
    return Ready()


def _rate_allows(session: Session, group_id: int) -> bool:
    rate = session.scalars(select(OrderGroup.rate).where(OrderGroup.id == group_id)).one()
    if rate is None:
        return True
    # Counting and beginning must not be done by two at once.
    session.execute(select(OrderGroup.id).where(OrderGroup.id == group_id).with_for_update(key_share=True))
    query = select(func.count()).select_from(Order).where(Order.group_id == group_id)
    running = session.scalar(query.where(Order.state.in_([OrderState.SENT, OrderState.ACCEPTED])))
    return (running or 0) < rate


def _resolve_image(session: Session, device: Device, node: str) -> Ready | Unfit:
    """CreateParams names the image by the ImgID that the device gave it (R-040), and it must be Downloaded (A-21)."""
    uri = f"{knowledge.vmimg_root(device)}/{node}"
    leaves = {known.uri.rpartition("/")[2]: known.value for known in knowledge.nodes_below(session, device, uri)}
    state = parse_state(leaves.get("State"))
    if state != ImageState.DOWNLOADED:
        return Unfit(f"its image is not on the device: {uri}/State is {image_state_words(state)}")
    img_id = leaves.get("ImgID")
    if not img_id:
        return Unfit(f"the device has given its image no ImgID: {uri}/ImgID is empty")
    return Ready({"img_id": img_id})
