"""Runs the application under uvicorn, in one process or several, until a signal comes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import ssl
from functools import partial
from types import FrameType

import uvicorn

from virmo_server.app import make_app
from virmo_server.client_certificates import CertificateProtocol
from virmo_server.config import ConfigError, ServerConfig
from virmo_server.migrate import migrate
from virmo_server.services import Services, open_database, open_services
from virmo_server.workers import Workers

logger = logging.getLogger(__name__)

#: Running downloads get this long to end after the signal to stop; devices resume them anyway.
SHUTDOWN_SECONDS = 2
#: Pending connections: a fleet that wakes at once.
BACKLOG = 2048
#: Connections that a worker takes before it looks at those that it has; else the first takes all that wait.
ACCEPT_AT_ONCE = 1


def serve(config: ServerConfig, workers: int = 1) -> int:
    """Serve with so many processes until SIGINT or SIGTERM; 0 after an orderly end."""
    _check_files(config)
    database = open_database(config)
    try:
        migrate(database)
    finally:
        database.close()  # connections must not be shared by processes
    listener = _listen(config)
    host, port = listener.getsockname()[:2]
    scheme = "https" if config.tls else "http"
    logger.info("listening on %s://%s:%d, public URL %s, workers %d", scheme, host, port, config.public_url, workers)
    if config.tls is None:
        logger.warning("no tls section: connections are not protected, use this for tests or behind a proxy only")
    status = work(config, listener) if workers == 1 else Workers(partial(work, config, listener), workers).run()
    logger.info("stopped")
    return status


def work(config: ServerConfig, listener: socket.socket, number: int | None = None) -> int:
    """One process that serves, the ``number``-th from 0 of several; 0 after an orderly end."""
    _keep_to_one_processor(os.getpid() if number is None else number)
    services = open_services(config)
    server = _Server(uvicorn_config(config, services, is_alone=number is None), services)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again after its orderly shutdown; that shall not turn it into a violent end.
        signal.signal(signal_number, lambda _number, _frame: None)
    # What was made by now lasts as long as the process: it need not be looked through again and again.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _keep_to_one_processor(number: int) -> None:
    """Of those that this process may use: each worker has another, while there are enough.

    Only one thread of a Python process runs at a time. Left to run anywhere, the two that work on DM messages hand over
    from one processor to the other, which costs half as much again as their work.
    """
    processors = sorted(os.sched_getaffinity(0), reverse=True)  # devices interrupt the first
    os.sched_setaffinity(0, {processors[number % len(processors)]})


class _Server(uvicorn.Server):
    """uvicorn that leaves connections to idle workers, and tells answers without an end to end before it waits."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)  # uvicorn has set what it takes at once

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop came."""
        self._services.stopping.set()
        super().handle_exit(sig, frame)


def uvicorn_config(config: ServerConfig, services: Services, *, is_alone: bool) -> uvicorn.Config:
    """uvicorn's settings. Its access log is off: URLs of images are capabilities."""
    client_ca = None if config.tls is None else config.tls.client_ca
    return uvicorn.Config(
        make_app(services, is_alone=is_alone),
        ssl_certfile=None if config.tls is None else str(config.tls.certificate),
        ssl_keyfile=None if config.tls is None else str(config.tls.key),
        ssl_ca_certs=None if client_ca is None else str(client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if client_ca is None else ssl.CERT_OPTIONAL,
        http="auto" if client_ca is None else CertificateProtocol,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
        backlog=ACCEPT_AT_ONCE,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _check_files(config: ServerConfig) -> None:
    if config.tls is not None:
        for path in (config.tls.certificate, config.tls.key, config.tls.client_ca):
            if path is not None and not path.is_file():
                raise ConfigError(f"tls: there is no file {path}: make a trial CA with 'virmo-server init'")


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.listen.host else socket.AF_INET
    try:
        listener = socket.create_server((config.listen.host, config.listen.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.listen.host} port {config.listen.port}: {error.strerror}"
        ) from error
    # An answer is written in two parts. asyncio sets this on sockets that it makes itself alone; without it the second
    # part waits for the client's delayed acknowledgement: 40 ms for each message. Accepted connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
