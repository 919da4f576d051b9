"""Joins the table of pages to HTTP: cookie, CSRF, roles, security headers, problems. Knows no page's meaning."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from virmo_server import audit
from virmo_server.api import operations_running as running
from virmo_server.api.auth import ANYBODY, Actor, authenticate, require
from virmo_server.api.endpoint import Call
from virmo_server.api.http import read_body
from virmo_server.api.schema_running import LoginBody, LoginView
from virmo_server.api.stream import events_route
from virmo_server.api.upload import upload_route
from virmo_server.console import links
from virmo_server.console.page import ConsolePage
from virmo_server.console.pages import PAGES
from virmo_server.console.render import STATIC, make_environment, render
from virmo_server.console.session import ConsoleSession, is_csrf_right, new_session, seal, unseal
from virmo_server.console.visit import Answer, Changed, Goto, Page, Visit, read_form
from virmo_server.model import Role
from virmo_server.problem import Problem, not_found
from virmo_server.services import Services

logger = logging.getLogger(__name__)

CSRF_HEADER = "x-csrf-token"
#: Only what this server serves, no inline scripts or styles, never inside another site's frame.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ASSET_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}
_MAX_FIELDS = 1000
_Who = tuple[ConsoleSession | None, Actor | None]
#: The API's words are for people at a command line.
_LOGIN_WORDS = {
    "token-missing": "Type your name and password, or a token.",
    "token-unknown": "This token is not known here, or it was revoked.",
    "password": "Name or password is wrong.",
    "invalid": "Type your name and password, or a token.",
}
_TITLES = {400: "Not understood", 403: "Not allowed", 404: "Not found", 409: "Not now", 422: "Not valid"}


def console_routes(services: Services) -> list[BaseRoute]:
    """All routes of the console, and the way to it from ``/``."""
    return Console(services).routes()


class Console:
    """The console over ``services``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._environment: Environment = make_environment()
        is_secure = services.config.public_url.startswith("https:")
        self._cookie = "__Secure-virmo-console" if is_secure else "virmo-console"
        self._is_secure = is_secure

    def routes(self) -> list[BaseRoute]:
        """Pages by path, static files, log-in, and the upload, which streams."""
        by_path: dict[str, list[ConsolePage]] = {}
        for page in PAGES:
            by_path.setdefault(page.path, []).append(page)

        async def home(_request: Request) -> Response:
            return RedirectResponse(links.HOME, 303)

        return [
            *(Route(path, home, methods=["GET"]) for path in ("/", links.PREFIX, f"{links.PREFIX}/")),
            Route(f"{links.PREFIX}/static/{{name}}", self._static, methods=["GET"]),
            Route(links.LOGIN, self._answered(self._show_login), methods=["GET"]),
            Route(links.LOGIN, self._answered(self._log_in), methods=["POST"]),
            Route(f"{links.PREFIX}/logout", self._answered(self._log_out), methods=["POST"]),
            upload_route(self._services, links.PREFIX, self._uploader, _plain_problem),
            events_route(self._services, links.PREFIX, self._follower, _plain_problem),
            *(self._route(path, pages) for path, pages in by_path.items()),
            Route(f"{links.PREFIX}/{{rest:path}}", self._answered(self._nothing), methods=["GET"]),
        ]

    # ---- pages

    def _route(self, path: str, pages: Sequence[ConsolePage]) -> Route:
        table = {page.method: page for page in pages}

        async def handle(request: Request) -> Response:
            page = table["GET" if request.method == "HEAD" else request.method]
            form = await self._read_form(request) if page.method == "POST" else {}
            return await run_in_threadpool(self._visit, request, page, form)

        return Route(links.PREFIX + path, self._answered(handle), methods=list(table))

    def _visit(self, request: Request, page: ConsolePage, form: Mapping[str, str]) -> Response:
        session, actor = self._who(request)
        if page.method == "POST":
            self._check_csrf(request, session, form)
        self._admit(request, actor, page)
        visit = Visit(self._services, session, actor, request.path_params, dict(request.query_params), form)
        return self._respond(request, visit, page.handler(visit))

    def _admit(self, request: Request, actor: Actor, page: ConsolePage) -> None:
        try:
            require(actor, page.role)
        except Problem as problem:
            if page.method == "POST":
                name, target = page.handler.__name__, request.url.path.removeprefix(links.PREFIX)
                audit.record(self._services, actor, f"console.{name}", target, (problem.status, str(problem)))
            raise

    def _respond(self, request: Request, visit: Visit, answer: Answer) -> Response:
        match answer:
            case Page():
                return self._html(request, answer.template, answer.values, (visit.session, visit.actor))
            case Goto():
                if _is_htmx(request):
                    return Response(status_code=204, headers={"HX-Redirect": answer.path})
                return RedirectResponse(answer.path, 303)
            case Changed():
                notice = {"text": answer.notice, "link": answer.link}
                return Response(status_code=204, headers={"HX-Trigger": json.dumps({"notice": notice, "live": None})})

    # ---- log-in

    async def _show_login(self, request: Request) -> Response:
        goal = links.own_path(request.query_params.get("next", ""))
        if (await run_in_threadpool(self._who_if_anyone, request))[1] is not None:
            return RedirectResponse(goal, 303)
        session = new_session(self._services.clock())
        response = self._html(request, "login.html", {"goal": goal, "problem": ""}, (session, None))
        self._set_cookie(response, session)
        return response

    async def _log_in(self, request: Request) -> Response:
        form = await self._read_form(request)
        session = self._session(request)
        if session is None:
            return RedirectResponse(links.LOGIN, 303)  # the log-in page was open for longer than its cookie lives
        self._check_csrf(request, session, form)
        goal = links.own_path(form.get("goal", ""))
        try:
            token = await run_in_threadpool(self._key, form)
        except Problem as problem:
            logger.info("console: log-in refused code=%s", problem.code)
            values = {"goal": goal, "problem": _LOGIN_WORDS.get(problem.code, str(problem))}
            return self._html(request, "login.html", values, (session, None), status=problem.status)
        response = RedirectResponse(goal, 303)
        self._set_cookie(response, new_session(self._services.clock(), token))
        return response

    def _key(self, form: Mapping[str, str]) -> str:
        """The key to the API for what was typed: a token as it is, or that of a new log-in."""
        token = form.get("token", "").strip()
        if token:
            logger.info("console: %s logged in with a token", self._authenticate(token).name)
            return token
        body = read_form(LoginBody, {"name": form.get("name", ""), "password": form.get("password", "")})
        made: LoginView = running.log_in(Call(self._services, ANYBODY, {}, {}, body))
        logger.info("console: %s logged in", made.name)
        return made.token

    async def _log_out(self, request: Request) -> Response:
        form = await self._read_form(request)
        session = self._session(request)
        if session is not None:
            self._check_csrf(request, session, form)
        await run_in_threadpool(self._end_login, request)
        response = RedirectResponse(links.LOGIN, 303)
        response.delete_cookie(self._cookie, path=links.PREFIX, secure=self._is_secure, httponly=True)
        return response

    def _end_login(self, request: Request) -> None:
        actor = self._who_if_anyone(request)[1]
        if actor is not None and actor.login is not None:
            running.log_out(Call(self._services, actor, {}, {}))

    def _who(self, request: Request) -> tuple[ConsoleSession, Actor]:
        session = self._session(request)
        if session is None or session.token is None:
            raise Problem(401, "log-in", "Log in first.")
        return session, self._authenticate(session.token)

    def _who_if_anyone(self, request: Request) -> _Who:
        try:
            return self._who(request)
        except Problem:
            return None, None

    def _authenticate(self, untrusted_token: str) -> Actor:
        with self._services.database.read() as database:
            return authenticate(database, f"Bearer {untrusted_token.strip()}")

    def _uploader(self, _services: Services, request: Request, role: Role) -> Actor:
        session, actor = self._who(request)
        self._check_csrf(request, session, {})
        require(actor, role)
        return actor

    def _follower(self, _services: Services, request: Request, role: Role) -> Actor:
        actor = self._who(request)[1]
        require(actor, role)
        return actor

    def _session(self, request: Request) -> ConsoleSession | None:
        return unseal(self._services.vault, request.cookies.get(self._cookie), self._services.clock())

    def _set_cookie(self, response: Response, session: ConsoleSession) -> None:
        response.set_cookie(
            self._cookie,
            seal(self._services.vault, session),
            path=links.PREFIX,
            secure=self._is_secure,
            httponly=True,
            samesite="strict",
        )

    # ---- the rest

    async def _nothing(self, request: Request) -> Response:
        raise not_found("page", request.url.path)

    async def _static(self, request: Request) -> Response:
        path = STATIC / str(request.path_params["name"])
        if path.parent != STATIC or path.suffix not in _ASSET_TYPES or not path.is_file():
            return Response(status_code=404)
        is_named_by_content = "v" in request.query_params
        keep = "public, max-age=31536000, immutable" if is_named_by_content else "no-cache"
        headers = {**SECURITY_HEADERS, "Cache-Control": keep}
        return FileResponse(path, media_type=_ASSET_TYPES[path.suffix], headers=headers)

    def _html(
        self,
        request: Request,
        template: str,
        values: Mapping[str, Any],
        who: _Who,
        status: int = 200,
    ) -> Response:
        session, actor = who
        shell = {
            "here": request.url.path,
            "here_with_query": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "csrf": "" if session is None else session.csrf,
            "actor": actor,
            "may_order": _may(actor, Role.OPERATOR),
            "may_administer": _may(actor, Role.ADMIN),
            "server_id": self._services.config.server_id,
        }
        text = render(self._environment, template, self._services.clock(), {**shell, **values})
        return Response(text, status, media_type="text/html")

    def _answered(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """``handle`` with problems shown in place, and the headers that every answer carries."""

        async def wrapped(request: Request) -> Response:
            try:
                response = await handle(request)
            except Problem as problem:
                logger.info(
                    "console: refused path=%s status=%d code=%s", request.url.path, problem.status, problem.code
                )
                response = await run_in_threadpool(self._problem, request, problem)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody will read it
            response.headers.update(SECURITY_HEADERS)
            response.headers["Cache-Control"] = "no-store"
            return response

        return wrapped

    def _problem(self, request: Request, problem: Problem) -> Response:
        if problem.status == 401:
            here = request.headers.get("hx-current-url", "") if _is_htmx(request) else str(request.url)
            goal = links.own_path("/" + here.split("/", 3)[3]) if here.count("/") > 2 else links.HOME
            login = links.url("login", next=goal)
            if _is_htmx(request):
                return Response(status_code=401, headers={"HX-Redirect": login})
            return RedirectResponse(login, 303)
        if _is_htmx(request):
            return _plain_problem(problem)
        values = {"title": _TITLES.get(problem.status, "Not possible"), "problem": str(problem)}
        return self._html(request, "problem.html", values, self._who_if_anyone(request), status=problem.status)

    async def _read_form(self, request: Request) -> dict[str, str]:
        untrusted_body = await read_body(request, self._services.config.limits.request_bytes)
        try:
            return dict(parse_qsl(untrusted_body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
        except ValueError as error:
            raise Problem(400, "form", "This form cannot be read: too many fields, or not UTF-8.") from error

    def _check_csrf(self, request: Request, session: ConsoleSession, form: Mapping[str, str]) -> None:
        untrusted_word = request.headers.get(CSRF_HEADER) or form.get("csrf", "")
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise Problem(403, "csrf", "This came from another site, and was not done.")
        if not is_csrf_right(session, untrusted_word):
            raise Problem(403, "csrf", "This form is from an earlier log-in, and was not done: load the page again.")


def _may(actor: Actor | None, role: Role) -> bool:
    if actor is None:
        return False
    try:
        require(actor, role)
    except Problem:
        return False
    return True


def _is_htmx(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def _plain_problem(problem: Problem) -> Response:
    """The sentence alone: the page that asked shows it where it was asked, as text."""
    return Response(str(problem), problem.status, media_type="text/plain", headers={"Cache-Control": "no-store"})
