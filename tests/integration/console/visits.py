"""The console without a browser: log in, fetch, post as its forms do."""

from __future__ import annotations

import re
from typing import Any

import requests

from tests.integration.server.server_process import ServerProcess


class Visitor:
    """Somebody with a cookie."""

    def __init__(self, server: ServerProcess, token: str | None = None) -> None:
        self._server = server
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = server.ca_file
        self.csrf = ""
        if token is not None:
            assert self.log_in(token).status_code == 303

    def close(self) -> None:
        """Give the connection back."""
        self.http.close()

    def log_in(self, token: str, goal: str = "") -> requests.Response:
        """Through the log-in page."""
        word = csrf_of(self.get("/console/login").text)
        answer = self.post("/console/login", {"csrf": word, "token": token, "goal": goal}, csrf="")
        if answer.status_code == 303:
            self.csrf = csrf_of(self.get("/console/devices").text)
        return answer

    def get(self, path: str, **headers: str) -> requests.Response:
        """A page; redirects are not followed."""
        return self._ask("GET", path, headers=headers)

    def post(self, path: str, form: dict[str, str], *, csrf: str | None = None, **headers: str) -> requests.Response:
        """A form, with the right CSRF word unless told otherwise."""
        word = self.csrf if csrf is None else csrf
        return self._ask("POST", path, data=form, headers={"X-CSRF-Token": word, "HX-Request": "true", **headers})

    def _ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return self.http.request(method, self._server.url + path, allow_redirects=False, timeout=30, **arguments)


def csrf_of(html: str) -> str:
    """The word that the page's forms repeat."""
    found = re.search(r'data-csrf="([^"]+)"', html)
    assert found, html[:500]
    return found[1]
