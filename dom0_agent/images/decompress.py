"""Compressed files as plain streams, with bounded memory: gzip and xz in process, zstd through its program.

Streams end with their bytes verified (CRC of the format) or with an error of our own. They do not limit how much comes
out: the reader knows what it expects and stops there. Knows no archives.
"""

from __future__ import annotations

import select
import subprocess
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from dom0_agent.images.errors import Corrupt, ImageError, Truncated, Unsupported
from dom0_agent.images.mediatypes import Compression

_INPUT = 256 * 1024
#: dictionaries larger than this would eat a small dom0's memory: xz -9 needs 65 MiB, zstd -19 8 MiB, zstd -21 64 MiB
MAX_MEMORY = 72 * 1024 * 1024
#: seconds in which zstd must deliver something, reading from a local file
ZSTD_STALL = 60.0

_TOO_MUCH_MEMORY = (
    f"the image is packed so that unpacking it takes more than {MAX_MEMORY} bytes of memory; "
    "pack it at a lower level, without a long window"
)

_MAGICS = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)


def identify(head: bytes) -> Compression:
    """How a file with these first bytes is packed."""
    return next((kind for magic, kind in _MAGICS if head.startswith(magic)), Compression.NONE)


class Stream(Protocol):
    """Plain bytes, read from front to back."""

    def read(self, size: int) -> bytes:
        """1 to ``size`` bytes, or none at the verified end. :raises Corrupt: the packed bytes are damaged"""

    def close(self) -> None:
        """Free what the stream holds."""

    def __enter__(self) -> Stream: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_stream(path: Path, compression: Compression) -> Stream:
    """The plain bytes of the file at ``path``."""
    if compression is Compression.ZSTD:
        return _Zstd(path)
    file = path.open("rb", buffering=0)
    if compression is Compression.NONE:
        return _Plain(file)
    return _Unpacked(file, compression)


class _Base:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Stream:
        return self  # type: ignore[return-value]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Plain(_Base):
    def read(self, size: int) -> bytes:
        return self._file.read(size)


class _Decoder(Protocol):
    """One gzip member or xz stream."""

    def decode(self, data: bytes, size: int) -> bytes:
        """At most ``size`` bytes more."""

    @property
    def ended(self) -> bool:
        """Whether it is complete and verified."""

    @property
    def hungry(self) -> bool:
        """Whether it needs more input before it can give more."""

    @property
    def rest(self) -> bytes:
        """Input beyond the end."""


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decode(self, data: bytes, size: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, size)

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Xz:
    def __init__(self) -> None:
        import lzma  # only images in xz need it, and boards' Pythons may lack it

        self._inner = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_MEMORY)
        self._error = lzma.LZMAError

    def decode(self, data: bytes, size: int) -> bytes:
        try:
            return self._inner.decompress(data, size)
        except self._error as error:
            if "memory" in str(error).lower():
                raise Unsupported(_TOO_MUCH_MEMORY) from error
            raise zlib.error(str(error)) from error

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Unpacked(_Base):
    """gzip or xz: any number of members after each other, perhaps followed by zero bytes."""

    def __init__(self, file: BinaryIO, compression: Compression) -> None:
        super().__init__(file)
        self._name = compression.value
        self._make: type[_Gzip] | type[_Xz] = _Gzip if compression is Compression.GZIP else _Xz
        self._decoder: _Decoder | None = self._made()

    def _made(self) -> _Decoder:
        try:
            return self._make()
        except ImportError as error:
            raise ImageError(f"this device's Python cannot unpack {self._name}; use gzip or zstd") from error

    def read(self, size: int) -> bytes:
        while self._decoder is not None:
            try:
                data = self._decode(self._decoder, size)
            except (zlib.error, EOFError) as error:
                raise Corrupt(f"the {self._name} stream is damaged: {error}") from error
            if data:
                return data
        return b""

    def _decode(self, decoder: _Decoder, size: int) -> bytes:
        if decoder.ended:
            rest = self._beyond(decoder.rest)
            if not rest:
                self._decoder = None
                return b""
            self._decoder = decoder = self._made()
            return decoder.decode(rest, size)
        hungry = decoder.hungry
        packed = self._file.read(_INPUT) if hungry else b""
        data = decoder.decode(packed, size)
        if not data and hungry and not packed and not decoder.ended:
            raise Truncated(f"the {self._name} stream ends too early")
        return data

    def _beyond(self, rest: bytes) -> bytes:
        """What follows a member, without padding."""
        while not (rest := rest.lstrip(b"\0")):
            packed = self._file.read(_INPUT)
            if not packed:
                return b""
            rest = packed
        return rest


class _Zstd:
    """The ``zstd`` program, which boards have; Python of our oldest version has none."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                self._process = subprocess.Popen(
                    ["zstd", "-dcq", f"--memory={MAX_MEMORY}"],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    cwd="/",
                )
            except OSError as error:
                raise ImageError(f"the zstd program is needed to unpack this image: {error}") from error

    def read(self, size: int) -> bytes:
        output = self._process.stdout
        if output is None or output.closed:
            return b""
        ready, _, _ = select.select([output], [], [], ZSTD_STALL)
        if not ready:
            self.close()
            raise ImageError(f"zstd delivered nothing for {ZSTD_STALL:g} s and was stopped")
        data = output.read(size)
        if data:
            return data
        return self._ended()

    def _ended(self) -> bytes:
        untrusted_stderr = self._process.stderr.read(2000) if self._process.stderr is not None else b""
        code = self._process.wait(ZSTD_STALL)
        self.close()
        if code != 0:
            reason = " ".join(untrusted_stderr.decode("ascii", "replace").split())[:200]
            if "too much memory" in reason:
                raise Unsupported(_TOO_MUCH_MEMORY)
            kind = Truncated if "premature end" in reason else Corrupt
            raise kind(f"the zstd stream is damaged: {reason or f'exit status {code}'}")
        return b""

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(ZSTD_STALL)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
