"""What the local pages share: whom they answer, what a browser may do with an answer, and the socket that listens."""

import asyncio
import base64
import binascii
import secrets
import socket
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iy.errors import UserError

HERE = "127.0.0.1"
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
GRACE = 5  # seconds
PATIENCE = 1.0  # seconds that a wrong password costs


class Login(NamedTuple):
    name: str
    password: str

    def is_given_by(self, header: str) -> bool:
        """Does an Authorization header of the kind Basic (RFC 7617) hold this name and password?"""
        kind, _, text = header.partition(" ")
        try:
            given = base64.b64decode(text, validate=True) if kind.lower() == "basic" else b""
        except binascii.Error:
            return False
        return secrets.compare_digest(given, f"{self.name}:{self.password}".encode())


class Guard:
    """Refuses requests under a foreign name, those that another site's page posts, bodies that are too large or of
    unknown length, and strangers where a login is asked for; says with every answer how little a browser may do with
    it.

    hosts: the names, with port, under which the page may be asked for. largest: bytes of a body.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], largest: int, login: Login | None = None) -> None:
        self.app, self.hosts, self.largest, self.login = app, hosts, largest, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return
        refusal = self.refusal(Request(scope))
        if refusal is not None and refusal.status_code == 401:
            await asyncio.sleep(PATIENCE)
        await (refusal or self.app)(scope, receive, with_headers)

    def refusal(self, request: Request) -> Response | None:
        if request.headers.get("host") not in self.hosts:
            return refused(403, "asked for under a foreign name")
        login = self.login
        if login is not None and not login.is_given_by(request.headers.get("authorization", "")):
            return refused(401, "name or password is missing or wrong", {"WWW-Authenticate": 'Basic realm="iy"'})
        if request.method in ("GET", "HEAD"):
            return None
        origin = request.headers.get("origin")  # browsers name it with every post, also the page's own
        if origin is not None and urlsplit(origin).netloc not in self.hosts:
            return refused(403, "posted by another site's page")
        length = request.headers.get("content-length", "")
        if not length.isdigit():
            return refused(411, "the length of what is sent must be said")
        if int(length) > self.largest:
            return refused(413, f"{int(length)} bytes are too large: at most {self.largest} are taken")
        return None


def refused(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": why}, status, headers)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there and nowhere else; one sentence when it cannot."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        if isinstance(error, socket.gaierror):
            raise UserError(f"--host {host}: {error.strerror}: give an address of this machine") from None
        raise UserError(f"port {port}: {error.strerror}: end what listens there, or choose another --port") from None
    return found


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Answer on the socket until Ctrl-C; what is then under way has a few seconds."""
    import uvicorn

    with listening:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False)
        uvicorn.Server(config).run([listening])
