"""Serves one page to browsers on this machine, and tells them what has changed.

The page is at /TOKEN/, and its server-sent events at /TOKEN/events. Nothing else can be read, and nothing can be
written. Who does not know the token gets nothing; nor does the page of a site whose name leads to this machine (DNS
rebinding), because its requests name that site as their host.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Condition, Thread
from typing import Any, NamedTuple

from mnist_exp.system.errors import ConfigError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # under which a browser may ask; the port may be another one, behind an ssh tunnel
HEARTBEAT = 10  # seconds after which a comment is sent if nothing has changed: it shows whether the browser is there
TIMEOUT = 20  # seconds: a browser that takes longer to ask, or to read, is gone
GRACE = 10  # seconds in which the browsers that listen can fetch the last page
NOW = "<!-- now -->"  # where the page has what happens now
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}


class Shown(NamedTuple):
    """What browsers show at one moment."""

    page: str  # HTML, with NOW where `now` belongs
    now: str  # HTML
    edition: int  # of the page, from 1
    policy: str  # the page's Content-Security-Policy
    is_over: bool  # nothing will change any more

    def events(self, before: Shown | None) -> str:
        """Return the server-sent events for a browser that knows what was shown before; "" if nothing changed."""
        known = before or self._replace(now="", edition=0, is_over=False)
        changes = {
            "now": (known.now, self.now),
            "report": (known.edition, self.edition),
            "over": (known.is_over, self.is_over),
        }
        return "".join(
            f"event: {name}\ndata: {json.dumps(after)}\n\n" for name, (old, after) in changes.items() if old != after
        )


class Server(ThreadingTCPServer):
    """Serves what `show` was given last.

    Attributes:
        token: What the address must have.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, shown: Shown, port: int = 0) -> None:
        """Listen on a port of this machine alone.

        Args:
            shown: What to show first.
            port: The port; 0 for any free one.

        Raises:
            ConfigError: The port can't be used.
        """
        self.token = secrets.token_urlsafe(16)
        self._shown, self._changed = shown, Condition()
        self._listeners, self._was_last_shown = 0, False
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "must be 0 to 65535"
            raise ConfigError(f"--port {port}: {reason}; without --port, a free one is taken") from error

    @property
    def address(self) -> str:
        """The URL of the page."""
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, *request: Any) -> None:
        """Print nothing about a browser that went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*request)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer requests in the block."""
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()

    @property
    def shown(self) -> Shown:
        """What is shown now."""
        return self._shown

    def show(self, shown: Shown) -> None:
        """Show something else from now on."""
        with self._changed:
            self._shown = shown
            self._changed.notify_all()

    def wait(self, before: Shown | None) -> Shown:
        """Return what is shown, once it is something else, or after HEARTBEAT."""
        with self._changed:
            self._changed.wait_for(lambda: self._shown is not before, HEARTBEAT)
            return self._shown

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count a browser that listens in the block."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def delivered(self, shown: Shown) -> None:
        """Remember whether a browser has what is shown last."""
        with self._changed:
            self._was_last_shown |= shown.is_over
            self._changed.notify_all()

    def wait_until_seen(self) -> None:
        """Return when a browser has what is shown last, and those that listen have it too, or had time to fetch it."""
        with self._changed:
            self._changed.wait_for(lambda: self._was_last_shown)
            self._changed.wait_for(lambda: not self._listeners, GRACE)

    def _count(self, change: int) -> None:
        with self._changed:
            self._listeners += change
            self._changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = TIMEOUT
    server_version, sys_version = "mnist_exp", ""

    def do_GET(self) -> None:
        """Answer with the page, or with events until the browser is gone."""
        base, token = self.path.removesuffix("events"), f"/{self.server.token}/"
        if self.headers.get("Host", "").partition(":")[0].lower() not in NAMES:
            self._answer(403, "This server answers to 127.0.0.1 and localhost.\n")
        elif not secrets.compare_digest(base.encode(errors="replace"), token.encode()):
            self._answer(404, "There is no such page.\n")
        elif self.path == base:
            self._send_page()
        else:
            self._send_events()

    def parse_request(self) -> bool:
        """Return whether the request can be answered: what is not GET is refused."""
        is_readable = super().parse_request()
        if is_readable and self.command != "GET":
            self._answer(405, "This page can only be read.\n", {"Allow": "GET"})
        return is_readable and self.command == "GET"

    def _send_page(self) -> None:
        shown = self.server.shown
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": shown.policy}
        self._answer(200, shown.page.replace(NOW, shown.now), headers)
        self.server.delivered(shown)

    def _send_events(self) -> None:
        self._begin(200, {"Content-Type": "text/event-stream"})
        before: Shown | None = None
        with self.server.listening(), suppress(OSError):  # the browser is gone
            while not (before and before.is_over):
                shown = self.server.wait(before)
                self.wfile.write((shown.events(before) or ": nothing new\n\n").encode())
                before = shown
            self.rfile.read(1)  # until the browser closes: it fetches the last page first

    def _answer(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        content = text.encode(errors="backslashreplace")
        length = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content))}
        self._begin(code, {**length, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _begin(self, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""
