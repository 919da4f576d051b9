"""What a session needs of a syntax: bytes to :class:`Message` and back, and messages built from measured pieces.

``fragment`` and ``frame`` exist because MaxMsgSize counts encoded octets: a session encodes one command after the
other and stops before the limit, without encoding anything twice. Knows media types, no transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dom0_agent.omadm.commands import BodyElement, Item, Message, SyncHdr
from dom0_agent.omadm.status import ProtocolError

#: Largest message accepted, far above any MaxMsgSize announced here; what is larger is refused unread.
MAX_MESSAGE_BYTES = 2 * 1024 * 1024

XML_MEDIA_TYPE = "application/vnd.syncml.dm+xml"
WBXML_MEDIA_TYPE = "application/vnd.syncml.dm+wbxml"

#: libdmclient's sample client leaves ``.dm`` out (digest 1.4)
_TOLERATED = {"application/vnd.syncml+xml": XML_MEDIA_TYPE, "application/vnd.syncml+wbxml": WBXML_MEDIA_TYPE}


class Codec(Protocol):
    """One syntax of DM messages."""

    @property
    def media_type(self) -> str:
        """Value of ``Content-Type`` without parameters."""

    def decode(self, untrusted_body: bytes) -> Message:
        """Parse a message; raises :class:`ProtocolError` and nothing else, whatever the bytes are."""

    def encode(self, message: Message) -> bytes:
        """A whole document; ``cmd_id`` of each command as it stands."""

    def fragment(self, command: BodyElement, cmd_id: str) -> bytes:
        """One element of SyncBody; members of a container keep their own ``cmd_id``."""

    def frame(self, header: SyncHdr, fragments: Sequence[bytes], final: bool) -> bytes:
        """The document that consists of a header and these fragments."""

    def carry(self, item: Item) -> Item:
        """The item as this syntax carries it; ``Size`` and chunks of large objects count its ``data``."""


def refuse_oversized(untrusted_body: bytes) -> None:
    """Raise :class:`ProtocolError` for a message beyond :data:`MAX_MESSAGE_BYTES`."""
    if len(untrusted_body) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {len(untrusted_body)} octets, at most {MAX_MESSAGE_BYTES} are accepted")


def normal_media_type(untrusted_content_type: str) -> str:
    """``Content-Type`` without parameters, lower case, known misspellings corrected."""
    plain = untrusted_content_type.partition(";")[0].strip().lower()
    return _TOLERATED.get(plain, plain)


def codec_for(untrusted_content_type: str) -> Codec:
    """The codec for a ``Content-Type`` header; raises :class:`ProtocolError` for a foreign media type (HTTP 415)."""
    media_type = normal_media_type(untrusted_content_type)
    if media_type == XML_MEDIA_TYPE:
        from dom0_agent.omadm.xml import XmlCodec

        return XmlCodec()
    if media_type == WBXML_MEDIA_TYPE:
        from dom0_agent.omadm.wbxml import WbxmlCodec

        return WbxmlCodec()
    raise ProtocolError(f"media type {media_type[:80]!r}, expected {XML_MEDIA_TYPE} or {WBXML_MEDIA_TYPE}")
