"""The asking side of the control socket. Imports next to nothing: ``virmoctl`` is to answer at once on a board."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

DEFAULT_SOCKET = "/run/virmo-agent/control.sock"
MAX_ANSWER = 16 << 20  #: bytes of one answer line that are accepted


class ControlError(Exception):
    """The call cannot be done; the message is shown to the person at the terminal."""


def call(path: str | os.PathLike[str], name: str, timeout: float = 30.0, **parameters: Any) -> Any:
    """Ask a running agent; :class:`ControlError` tells why there is no answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(json.dumps({"call": name, **parameters}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline(MAX_ANSWER)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ControlError(
                f"no agent listens on {path}: is virmo-agent running? (systemctl status virmo-agent)"
            ) from error
        except PermissionError as error:
            raise ControlError(f"{path} may only be used by root") from error
        except TimeoutError as error:
            raise ControlError(f"the agent did not answer within {timeout:.0f} s") from error
    if not line:
        raise ControlError("the agent closed the connection without an answer; see its log")
    answer = json.loads(line)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["result"]
