"""A link over vchan, Xen's shared-memory channel, through libxenvchan and ctypes. The same class on both sides.

dom0 is the server: its pages are shared, so that a dead guest leaves nothing behind in dom0, and its kernel tells the
guest when the agent dies. Every call here is one that does not block: libxenvchan's blocking mode is switched off (the
library leaves it to chance), and so is its descriptor's, so that its wait takes an event when there is one and comes
back when there is none. Its ring pointers lie in memory that the other side can write: libxenvchan bounds every one of
them before use, and what it then reads is only bytes for the protocol.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import os

from guest_shim.link import LinkClosed
from guest_shim.protocol import PAYLOAD_CAP

#: The library has no stable interface: its name has Xen's version.
LIBRARIES = (
    "libxenvchan.so.4.17",
    "libxenvchan.so.4.19",
    "libxenvchan.so.4.21",
    "libxenvchan.so.4.20",
    "libxenvchan.so",
)
#: Bytes of each ring: 16 pages. More costs dom0 grants (1024 in all), less costs wake-ups.
RING = 65536
#: More than there ever is: asked for more than it has, the library has the other side tell us when more comes.
_RECEIVE = RING + 1
_POINTER = ctypes.c_void_p
#: In ``struct libxenvchan``, behind three pointers and the event channel's number.
_FLAGS_OFFSET = 3 * ctypes.sizeof(ctypes.c_void_p) + 4
_IS_SERVER, _PERSISTS, _BLOCKING = 1, 2, 4


class VchanError(Exception):
    """There is no vchan here, or it could not be set up."""


class Library:
    """libxenvchan's functions. :class:`VchanError` when it is not installed."""

    def __init__(self) -> None:
        name = _installed()
        slow = ctypes.CDLL(name, use_errno=True)  # these talk to XenStore and the kernel: other threads go on
        self.server_init = slow.libxenvchan_server_init
        self.server_init.restype = _POINTER
        self.server_init.argtypes = [_POINTER, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t]
        self.client_init = slow.libxenvchan_client_init
        self.client_init.restype = _POINTER
        self.client_init.argtypes = [_POINTER, ctypes.c_int, ctypes.c_char_p]
        self.close = slow.libxenvchan_close
        self.close.restype = None
        self.close.argtypes = [_POINTER]
        # These are shorter than letting go of Python's lock and taking it again.
        fast = ctypes.PyDLL(name, use_errno=True)
        self.write, self.read = fast.libxenvchan_write, fast.libxenvchan_read
        for call in (self.write, self.read):
            call.restype = ctypes.c_int
            call.argtypes = [_POINTER, ctypes.c_void_p, ctypes.c_size_t]
        self.wait, self.is_open = fast.libxenvchan_wait, fast.libxenvchan_is_open
        self.descriptor = fast.libxenvchan_fd_for_select
        for call in (self.wait, self.is_open, self.descriptor):
            call.restype = ctypes.c_int
            call.argtypes = [_POINTER]


def _installed() -> str:
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    raise VchanError("libxenvchan is not installed")


def available() -> bool:
    """Whether this machine has the library and Linux's devices for it."""
    if not all(os.path.exists(f"/dev/xen/{name}") for name in ("evtchn", "gntdev")):  # noqa: PTH110 - no pathlib here
        return False
    try:
        Library()
    except VchanError:
        return False
    return True


def _never_block(handle: int, *, server: bool) -> None:
    """Clear the flags ``blocking`` and ``server_persist``: the library leaves in them what was in its memory before.

    :class:`VchanError` when the structure does not look as it does in the releases that we know.
    """
    flags = ctypes.c_uint32.from_address(handle + _FLAGS_OFFSET)
    if bool(flags.value & _IS_SERVER) is not server:
        raise VchanError("this libxenvchan is laid out in a way that is not known here")
    flags.value &= ~(_BLOCKING | _PERSISTS)


class VchanLink:
    """A :class:`~guest_shim.link.Link`. Made by :meth:`serve` in dom0 and :meth:`connect` in a guest."""

    name = "vchan"
    piece = PAYLOAD_CAP
    polls_writing = False

    def __init__(self, library: Library, handle: int, *, server: bool) -> None:
        self._library = library
        self._handle = handle
        try:
            _never_block(handle, server=server)
        except VchanError:
            library.close(handle)
            raise
        self._descriptor = int(library.descriptor(handle))
        os.set_blocking(self._descriptor, False)
        self._buffer = ctypes.create_string_buffer(_RECEIVE)
        self._received = memoryview(self._buffer).cast("B")
        self._waits = server  # for the guest to come
        self.drained = True
        self.full = False

    @classmethod
    def serve(cls, domid: int, path: str) -> VchanLink:
        """Share rings with ``domid`` and write where they are below ``path``. :class:`VchanError`."""
        library = Library()
        handle = library.server_init(None, domid, path.encode("ascii"), RING, RING)
        if not handle:
            raise VchanError(f"vchan for domain {domid}: {os.strerror(ctypes.get_errno()) or 'refused'}")
        return cls(library, handle, server=True)

    @classmethod
    def connect(cls, path: str) -> VchanLink:
        """Use the rings that dom0 wrote down below ``path``. :class:`VchanError`."""
        library = Library()
        handle = library.client_init(None, 0, path.encode("ascii"))
        if not handle:
            raise VchanError(f"vchan at {path}: {os.strerror(ctypes.get_errno()) or 'refused'}")
        return cls(library, handle, server=False)

    def fileno(self) -> int:
        """The event channel's."""
        return self._descriptor

    def receive(self) -> bytes | memoryview:
        """Acknowledge an event, if there is one, and read what is in the ring."""
        self._open()
        if self._library.wait(self._handle) < 0 and ctypes.get_errno() != errno.EAGAIN:
            raise LinkClosed(f"vchan: its event channel is broken: {os.strerror(ctypes.get_errno())}")
        size = self._library.read(self._handle, self._buffer, _RECEIVE)
        if size > 0:
            return self._received[:size]
        if self._waits:
            self._waits = self._client_comes()
        elif size < 0:  # what was sent before it closed was read above
            raise LinkClosed("the other side closed the vchan")
        return b""

    def send(self, data: bytes | memoryview) -> int:
        """Write what fits into the ring."""
        self._open()
        self.full = self._waits and self._client_comes()
        if self.full:
            return 0
        # A view's address, without a type of ctypes for each length.
        raw = data if isinstance(data, bytes) else ctypes.addressof(ctypes.c_char.from_buffer(data))
        size = int(self._library.write(self._handle, raw, len(data)))
        if size < 0:
            raise LinkClosed("the other side closed the vchan")
        self.full = size < len(data)  # the library has the other side tell us when it has read
        return size

    def close(self) -> None:
        """Unmap the rings and tell the other side."""
        if self._handle:
            handle, self._handle = self._handle, 0
            self._library.close(handle)

    def _client_comes(self) -> bool:
        """Whether the client is not there yet."""
        state = self._library.is_open(self._handle)
        if state == 0:
            raise LinkClosed("the other side closed the vchan")
        return bool(state != 1)

    def _open(self) -> None:
        if not self._handle:
            raise LinkClosed("the vchan is closed")
