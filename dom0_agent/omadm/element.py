"""The neutral form of an element that both codecs bring and ``reader`` reads; names, texts, numbers, nested markup.

Knows XML names and no message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tokens import METINF, METINF_NAMESPACE, SYNCML, SYNCML_NAMESPACE

#: elements below a ``Data`` that holds markup instead of text (TNDS nests twice per tree level)
MAX_MARKUP_DEPTH = 128
#: the digits of any number in a message; Python parses long ones slowly
MAX_DIGITS = 10


class Element(Protocol):
    """What a codec's parser must offer: ElementTree's elements do, and the WBXML decoder's nodes.

    ``tag`` may carry a namespace as ``{namespace}name``. ``text`` is ``bytes`` only for OPAQUE content.
    """

    @property
    def tag(self) -> str: ...
    @property
    def text(self) -> str | bytes | None: ...
    @property
    def tail(self) -> str | None: ...
    @property
    def attrib(self) -> Mapping[str, str]: ...
    def __iter__(self) -> Iterator[Element]: ...
    def __len__(self) -> int: ...


class _LocalNames(dict[str, str]):
    """Tag to local name, whatever the namespace (digest 1.1: be namespace-tolerant on input)."""

    def __missing__(self, tag: str) -> str:
        return tag.rpartition("}")[2]


NAMES = _LocalNames(
    {name: name for name in (*SYNCML, *METINF)}
    | {f"{{{SYNCML_NAMESPACE}}}{name}": name for name in (*SYNCML, *METINF)}
    | {f"{{{METINF_NAMESPACE}}}{name}": name for name in METINF}
)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    return '"' + _escape(text).replace('"', "&quot;") + '"'


def text_of(element: Element) -> str:
    """Trimmed text content; OPAQUE octets are accepted for text as UTF-8 (wbxml digest 6)."""
    text = element.text
    if text is None:
        return ""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{NAMES[element.tag]} holds octets that are not UTF-8") from error
    return text.strip()


def number_of(element: Element) -> int:
    text = element.text
    if not isinstance(text, str) or not text.isdigit():  # nearly never: blanks around it, octets, nothing, no number
        text = text_of(element)
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ProtocolError(f"{NAMES[element.tag]} is {text[:40]!r}, expected a number")
    return int(text)


def lenient_number_of(element: Element) -> int | None:
    text = text_of(element)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def markup(parent: Element) -> str:
    """The content of ``parent`` as XML text, its namespaces declared where they begin; refuses absurd nesting."""
    out: list[str] = []
    text = parent.text
    if isinstance(text, str) and text.strip():
        out.append(_escape(text))
    for child in parent:
        _write_markup(child, "", out, 0)
    return "".join(out)


def _write_markup(element: Element, namespace: str, out: list[str], depth: int) -> None:
    if depth > MAX_MARKUP_DEPTH:
        raise ProtocolError(f"markup in Data is nested deeper than {MAX_MARKUP_DEPTH} elements")
    own, _, name = element.tag.rpartition("}")
    own = own[1:]
    if own.upper().startswith("SYNCML:SYNCML"):
        own = ""  # inherited from the message by a document that declared none of its own
    out.append(f"<{name}")
    if own != namespace:
        out.append(f" xmlns={_quoted(own)}")
    for key, value in element.attrib.items():
        out.append(f" {key.rpartition('}')[2]}={_quoted(value)}")
    text = element.text
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if len(element) or text:
        out.append(">")
        out.append(_escape(text or ""))
        for child in element:
            _write_markup(child, own, out, depth + 1)
        out.append(f"</{name}>")
    else:
        out.append("/>")
    if element.tail:
        out.append(_escape(element.tail))
