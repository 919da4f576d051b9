"""Getting one URL into one file, whatever the network does: retries, resumption, redirects, limits.

The rules: a 4xx is final but for 408, 425 and 429; a broken download goes on with ``Range`` and ``If-Range`` and a
strong ETag, and only when the answer is exactly the part that was asked for; the pause between tries doubles up to a
cap; tries that bring nothing new are counted, tries that do are not. Knows neither image formats nor the image store.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.errors import Cancelled, Corrupt, ImageError, LoaderError, NetworkLost, SizeMismatch, TooLarge
from dom0_agent.images.http import Limits, Network, Response, send
from dom0_agent.images.partial import Partial
from dom0_agent.images.ranges import parse_content_range, refuse_part, repr_digest, strong_etag
from dom0_agent.images.urls import Url, parse_url, redirect

logger = logging.getLogger(__name__)

CHUNK = 256 * 1024
#: 4xx that a later try may not meet again (RFC 9110 15.5.9, RFC 8470, RFC 6585)
_TRANSIENT = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Watcher(Protocol):
    """Who is told how a download goes, and may end it by raising an :class:`ImageError`."""

    def begins(self, content_type: str, missing: int | None) -> None:
        """A response with a body begins; ``missing`` bytes are still to come, ``None`` when it is not known."""

    def received(self, size: int, total: int | None, fresh: int) -> None:
        """``size`` bytes are there now, ``fresh`` of them new."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to get."""

    uri: str
    max_size: int
    expected_size: int | None = None  #: from a download descriptor
    via: str = ""  #: the URI of that descriptor
    resume: bool = True  #: False: everything in one response, or nothing


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A complete download, in its :class:`Partial`'s file."""

    url: Url  #: after redirects
    content_type: str  #: empty when an earlier run had received everything
    size: int
    sha256: str
    spliced: bool  #: put together from several responses
    delimited: bool  #: the server said where it ends; else its end may be a broken connection


class RateLimiter:
    """Shares ``rate`` bytes a second between all threads that call :meth:`delay`; 0 is no limit."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    @property
    def chunk(self) -> int:
        """How much to read at once, so that the limit is kept within a quarter of a second."""
        return max(1024, min(CHUNK, self._rate // 4)) if self._rate else CHUNK

    def delay(self, size: int) -> float:
        """How many seconds to wait after ``size`` bytes."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now) + size / self._rate
            return self._next - now


def _wait(cancel: threading.Event, seconds: float) -> bool:
    return cancel.wait(seconds)


class Downloader:
    """Makes downloads, one a call; may be used by several threads at once. Clock, waiting and chance are passed in."""

    def __init__(
        self,
        config: ImagesConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = _wait,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.clock = clock
        self.wait = wait
        self.chance = chance
        self.limiter = RateLimiter(config.bandwidth_limit, clock)
        share = config.bandwidth_limit // (2 * config.parallel_downloads)
        self.network = Network(
            limits=Limits(
                connect=config.connect_timeout,
                header=config.header_timeout,
                read=config.read_timeout,
                # our own limit must not look like a slow server
                min_speed=min(config.min_speed, share) if config.bandwidth_limit else config.min_speed,
                speed_window=config.speed_window,
            ),
            ca_file=config.ca_file,
            proxy=config.proxy,
            no_proxy=config.no_proxy,
        )

    def fetch(self, order: Order, partial: Partial, watcher: Watcher, cancel: threading.Event) -> Downloaded:
        """Get ``order.uri`` into ``partial``, going on from what is there.

        :raises ImageError: the kinds of :mod:`dom0_agent.images.errors`; ``partial`` is closed and checkpointed
        :raises OSError: the file cannot be written

        A complete download is closed without a checkpoint, which waits for the disk: that is the caller's, who may have
        something else to do meanwhile.
        """
        url = parse_url(order.uri)
        partial.open(order.uri, cancel, order.via)
        try:
            if not order.resume:
                partial.begin(None, None)
            return _Transfer(self, order, url, partial, watcher, cancel).run()
        except (ImageError, OSError):
            partial.checkpoint()
            raise
        finally:
            partial.close()


class _Transfer:
    """One call of :meth:`Downloader.fetch`: what its tries have in common."""

    def __init__(  # noqa: PLR0917 - private, called once
        self,
        downloader: Downloader,
        order: Order,
        url: Url,
        partial: Partial,
        watcher: Watcher,
        cancel: threading.Event,
    ) -> None:
        self._downloader = downloader
        self._config = downloader.config
        self._order = order
        self._url = url
        self._partial = partial
        self._watcher = watcher
        self._cancel = cancel
        self._best = partial.size  # the most bytes there ever were
        self._idle = 0  # tries in a row that brought nothing beyond that
        self._ranges = order.resume  # the server's partial answers have been right so far
        self._content_type = ""
        self._delimited = True
        self._digest: str | None = None  # what the server says the whole has
        self._final_url = url
        self._end = downloader.clock() + downloader.config.deadline

    def run(self) -> Downloaded:
        """Try until it is there, or hopeless."""
        while True:
            try:
                self._attempt()
                return self._complete()
            except NetworkLost as error:
                failure = error
            size = self._partial.size
            self._idle = 0 if size > self._best else self._idle + 1
            self._best = max(self._best, size)
            if self._late():
                raise NetworkLost(
                    f"{self._url}: given up after {self._config.deadline:g} s (images.deadline), at {size} bytes"
                ) from failure
            if self._idle > self._config.retries:
                raise NetworkLost(
                    f"{self._url}: given up after {self._idle} tries without progress, at {size} bytes: {failure}"
                ) from failure
            self._partial.checkpoint()
            pause = max(failure.seconds if isinstance(failure, _RetryLater) else 0.0, self._backoff())
            logger.info("download interrupted url=%s size=%d pause=%.1f reason=%s", self._url, size, pause, failure)
            if self._downloader.wait(self._cancel, pause):
                raise Cancelled("the download was cancelled")

    def _late(self) -> bool:
        return self._downloader.clock() > self._end

    def _backoff(self) -> float:
        """Seconds before the next try: doubling, capped, half of it by chance so that a fleet does not march."""
        doubled = self._config.backoff_first * 2.0 ** min(max(self._idle - 1, 0), 30)
        return min(self._config.backoff_max, doubled) * (0.5 + self._downloader.chance() / 2)

    def _attempt(self) -> None:
        """One request, its redirects followed, its body taken.

        :raises NetworkLost: worth another try; any other :class:`ImageError`: it is not
        """
        partial = self._partial
        offset = partial.size if self._ranges and partial.etag is not None else 0
        if offset and offset == partial.total:
            return  # an earlier run stopped between the last byte and its use
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if offset and partial.etag is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": partial.etag}
        with self._follow(headers) as response:
            self._final_url = response.url
            if offset and response.status in (206, 416):
                self._continue(response, offset)
            elif response.status == 200:
                partial.begin(strong_etag(response.header("ETag")), response.length)
            else:
                raise self._refusal(response)
            self._check_size()
            self._content_type = response.header("Content-Type") or ""
            self._delimited = response.delimited
            self._digest = repr_digest(response.header("Repr-Digest"))
            self._watcher.begins(self._content_type, None if partial.total is None else partial.total - partial.size)
            self._body(response)
        if partial.total is not None and partial.size < partial.total:
            raise NetworkLost(f"{self._url}: the server sent {partial.size} of {partial.total} bytes")

    def _follow(self, headers: dict[str, str]) -> Response:
        """The first response that is no redirect."""
        url = self._url
        for _ in range(self._config.max_redirects + 1):
            response = send(self._downloader.network, url, headers=headers, cancel=self._cancel)
            if response.status not in _REDIRECTS:
                return response
            location = response.header("Location")
            response.close()
            url = redirect(url, location)
        raise LoaderError(f"{self._url}: more than {self._config.max_redirects} redirects (images.max_redirects)")

    def _continue(self, response: Response, offset: int) -> None:
        """Go on with the partial answer if it is to be trusted; else begin again, in one piece."""
        partial = self._partial
        part = parse_content_range(response.header("Content-Range"))
        etag = response.header("ETag")
        wrong: str | None = "the server cannot give the rest"
        if response.status == 206:
            same = etag is None or etag.strip() == partial.etag
            wrong = refuse_part(part, offset=offset, total=partial.total, length=response.length, same_etag=same)
        if wrong is not None:
            self._ranges = False
            partial.begin(None, None)
            raise NetworkLost(f"{response.url}: unusable partial answer (HTTP {response.status}): {wrong}")
        partial.extend(part.total if part is not None else None)

    def _refusal(self, response: Response) -> ImageError:
        """What a status other than 200 (or an asked 206) means."""
        reason = f"{response.url}: HTTP {response.status} {response.reason}".rstrip()
        if response.status in _TRANSIENT or response.status >= 500:
            return _RetryLater(reason, self._retry_after(response))
        return LoaderError(reason)

    def _retry_after(self, response: Response) -> float:
        """Seconds that the server wants us to wait, within our own cap; dates are not worth a wall clock here."""
        value = (response.header("Retry-After") or "").strip()
        known = re.fullmatch(r"[0-9]{1,9}", value, re.ASCII)
        return min(float(value), self._config.backoff_max) if known else 0.0

    def _check_size(self) -> None:
        """What is there and what is announced stay within what is allowed and expected."""
        partial, expected = self._partial, self._order.expected_size
        size = partial.size if partial.total is None else partial.total
        if expected is not None and (size > expected or partial.total not in (None, expected)):
            raise SizeMismatch(f"{self._url}: has {size} bytes, the download descriptor says {expected}")
        if size > self._order.max_size:
            raise TooLarge(
                f"{self._url}: {size} bytes, or more, but at most {self._order.max_size} are taken (images.max_size)"
            )

    def _body(self, response: Response) -> None:
        partial, limiter = self._partial, self._downloader.limiter
        buffer = memoryview(bytearray(limiter.chunk))
        while count := response.readinto(buffer):
            if partial.total is not None and partial.size + count > partial.total:
                # only a partial answer without a length of its own can do this; nothing of it is reliable
                self._ranges = False
                partial.begin(None, None)
                raise NetworkLost(f"{response.url}: more bytes than the announced total")
            partial.write(buffer[:count])
            if partial.total is None:
                self._check_size()
            self._watcher.received(partial.size, partial.total, count)
            delay = limiter.delay(count)
            if delay > 0:
                self._downloader.wait(self._cancel, delay)
            if self._cancel.is_set():
                raise Cancelled("the download was cancelled")
            if self._late():
                raise NetworkLost("it took too long")

    def _complete(self) -> Downloaded:
        partial, expected = self._partial, self._order.expected_size
        if expected is not None and partial.size != expected:
            raise SizeMismatch(f"{self._url}: has {partial.size} bytes, the download descriptor says {expected}")
        if partial.size == 0:
            raise SizeMismatch(f"{self._url}: the server sent nothing")
        digest = partial.sha256()
        if self._digest is not None and digest != self._digest:
            raise Corrupt(f"{self._url}: SHA-256 is {digest}, the server's Repr-Digest says {self._digest}")
        return Downloaded(
            url=self._final_url,
            content_type=self._content_type,
            size=partial.size,
            sha256=digest,
            spliced=partial.pieces > 1,
            delimited=self._delimited,
        )


class _RetryLater(NetworkLost):
    """The server asks to come back, perhaps not before some seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds
