"""Turns templates and values into HTML. Everything is escaped unless a template of ours is the one that says it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from virmo_server.console import links, words
from virmo_server.model import OrderState
from virmo_server.version import VERSION

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"


def make_environment() -> Environment:
    """The templates with their filters. An undefined name is an error: a page with a hole in it helps nobody."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "url": links.url,
        "asset": _assets(),
        "version": VERSION,
        "vm_actions": words.vm_actions,
        "role_words": words.ROLE_WORDS,
    }
    environment.filters |= {
        "size": words.size,
        "allocation": words.allocation,
        "state_words": words.state_words,
        "order_words": lambda order: words.order_words(order.kind, order.name),
        "kind_words": words.order_words,
        "vm_tone": lambda state: words.VM_TONES.get(state, "idle"),
        "image_tone": lambda state: words.IMAGE_TONES.get(state, "idle"),
        "order_tone": lambda state: words.ORDER_TONES[OrderState(state)],
        "clock": _clock,
        "spoken": words.spoken,
        "alert_words": words.alert_words,
    }
    return environment


def render(environment: Environment, template: str, now: datetime, values: Mapping[str, Any]) -> str:
    """The page at the time ``now``, which its "5 min ago" are counted from."""

    def when(then: datetime | None) -> Markup:
        if then is None:
            return Markup("never")
        exact = then.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Markup('<time datetime="{}" title="{}">{}</time>').format(then.isoformat(), exact, words.ago(then, now))

    return environment.get_template(template).render(values, when=when, now=now)


def _clock(then: datetime) -> Markup:
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        then.isoformat(), then.strftime("%Y-%m-%d %H:%M:%S UTC"), then.strftime("%H:%M:%S")
    )


def _assets() -> dict[str, str]:
    """URLs of the static files by name; each changes with its content, so that browsers may keep it for ever."""
    files = sorted(path for path in STATIC.glob("*.*") if path.is_file())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files}
    return {name: f"{links.PREFIX}/static/{name}?v={digest}" for name, digest in digests.items()}
