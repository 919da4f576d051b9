"""Meta elements to :class:`Meta`: a session has thousands of them and a handful of different ones.

Knows what is inside Meta and nothing around it.
"""

from __future__ import annotations

from functools import lru_cache

from dom0_agent.omadm.commands import Meta
from dom0_agent.omadm.element import NAMES, Element, number_of, text_of
from dom0_agent.omadm.status import ProtocolError

#: characters of any text in Meta; media types, alert types and nonces are far below
MAX_META_TEXT = 1024


def read_meta(element: Element) -> Meta:
    """The Meta below ``element``; :class:`ProtocolError` for a text that is too long or no number where one is due."""
    if len(element) != 2:
        return _any_meta(element)
    first, second = element  # Format and Type: one of the few pairs that a session consists of
    key = (first.tag, first.text, second.tag, second.text)
    known = _PAIRS.get(key)
    if known is not None:
        return known
    meta = _any_meta(element)
    is_usual = {NAMES[first.tag], NAMES[second.tag]} == {"Format", "Type"}
    if is_usual and len(_PAIRS) < _PAIRS_REMEMBERED and sum(len(part or "") for part in key) < MAX_META_TEXT:
        _PAIRS[key] = meta
    return meta


def _any_meta(element: Element) -> Meta:
    format_ = type_ = None
    rest: dict[str, str | int] = {}
    emi: tuple[str, ...] = ()
    names = NAMES
    for child in element:
        name = names[child.tag]
        if name == "Format":
            format_ = text_of(child)
        elif name == "Type":
            type_ = " ".join(text_of(child).split())
        elif name in _META_TEXTS:
            rest[_META_TEXTS[name]] = text_of(child)
        elif name in _META_NUMBERS:
            rest[_META_NUMBERS[name]] = number_of(child)
        elif name == "EMI" and not emi:
            emi = tuple(text_of(other) for other in element if names[other.tag] == "EMI")
        elif name == "MetInf":
            return read_meta(child)
    _refuse_long(format_, type_, *emi, *(text for text in rest.values() if isinstance(text, str)))
    if rest or emi:
        return Meta(format_, type_, emi=emi, **rest)  # type: ignore[arg-type]
    return _common_meta(format_, type_)


def _refuse_long(*texts: str | None) -> None:
    """Metas are remembered, here and by the writers: without a limit 256 of them could be as long as 256 messages."""
    for text in texts:
        if text is not None and len(text) > MAX_META_TEXT:
            raise ProtocolError(f"a text in Meta has {len(text)} characters; {MAX_META_TEXT} are allowed")


#: Metas of Format and Type by the tags and texts of these two elements
_PAIRS: dict[tuple[str, str | bytes | None, str, str | bytes | None], Meta] = {}
_PAIRS_REMEMBERED = 256
_META_TEXTS = {"Mark": "mark", "NextNonce": "next_nonce"}
_META_NUMBERS = {"Size": "size", "MaxMsgSize": "max_msg_size", "MaxObjSize": "max_obj_size"}


@lru_cache(maxsize=256)
def _common_meta(format_: str | None, type_: str | None) -> Meta:
    """Nearly all Metas of a session are the same few."""
    return Meta(format_, type_)
