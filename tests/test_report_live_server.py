"""One page for browsers on this machine: who gets it, what else is refused, and when the server may end."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from threading import Thread

import pytest

from mnist_exp.report.live.server import NOW, Server, Shown
from mnist_exp.system.errors import ConfigError

FIRST = Shown(f"<p>page</p>{NOW}", "<b>now 1</b>", 1, "default-src 'none'", is_over=False)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(FIRST)
    with server.running():
        yield server


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    return connection.getresponse()


def next_event(response: HTTPResponse) -> tuple[str, object]:
    name = response.readline().decode().removeprefix("event: ").strip()
    data = response.readline().decode().removeprefix("data: ")
    assert response.readline() == b"\n"
    return name, json.loads(data)


def test_the_page_is_whole_and_kept_nowhere(server: Server) -> None:
    assert server.address == f"http://127.0.0.1:{server.server_address[1]}/{server.token}/"
    response = ask(server, f"/{server.token}/")
    assert (response.status, response.read()) == (200, b"<p>page</p><b>now 1</b>")
    assert response.headers["Content-Security-Policy"] == "default-src 'none'"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_only_this_machine_can_reach_it(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_each_server_has_a_token_of_its_own(server: Server) -> None:
    other = Server(FIRST)
    other.server_close()
    assert len(server.token) >= 22  # 128 bits
    assert server.token != other.token


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/events", "//", "/TOKEN", "/TOKENx/", "/TOKEN//", "/TOKEN/events/", "/TOKEN/?a", "/token/", "/TOKE/"),
        *("/TOKEN/ledger.jsonl", "/TOKEN/../ledger.jsonl", "/TOKEN/0/summary.json", "/ledger.jsonl", "/favicon.ico"),
        *("/%54OKEN/", "/TOKEN/%2e%2e/", "/../../etc/passwd", "/TOKEN/eventsevents", "/T\xd6KEN/"),
    ],
)
def test_every_other_address_is_unknown(server: Server, path: str) -> None:
    path = path.replace("TOKEN", server.token).replace("TOKE", server.token[:-1]).replace("\xd6", "%ff")
    response = ask(server, path)
    assert (response.status, response.read()) == (404, b"There is no such page.\n")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "SEARCH"])
def test_it_can_only_be_read(server: Server, method: str) -> None:
    response = ask(server, f"/{server.token}/", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "0.0.0.0", "[::1"])
def test_a_site_whose_name_leads_here_gets_nothing(server: Server, host: str) -> None:
    for path in (f"/{server.token}/", f"/{server.token}/events", "/"):
        response = ask(server, path, host=host)
        assert response.status == 403
        assert b"page" not in response.read()


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "127.0.0.1:9000", "LOCALHOST:80"])
def test_a_tunnel_may_have_another_port(server: Server, host: str) -> None:
    assert ask(server, f"/{server.token}/", host=host).status == 200


def test_events_say_what_has_changed(server: Server) -> None:
    response = ask(server, f"/{server.token}/events")
    assert response.headers["Content-Type"] == "text/event-stream"
    assert [next_event(response) for _ in range(2)] == [("now", "<b>now 1</b>"), ("report", 1)]
    server.show(FIRST._replace(now="a\n\nb"))
    assert next_event(response) == ("now", "a\n\nb")
    server.show(FIRST._replace(now="a\n\nb", edition=2))
    assert next_event(response) == ("report", 2)
    server.show(FIRST._replace(now="c", edition=3, is_over=True))
    assert [next_event(response) for _ in range(3)] == [("now", "c"), ("report", 3), ("over", True)]


def test_a_quiet_stream_is_kept_open(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_exp.report.live.server.HEARTBEAT", 0.01)
    response = ask(server, f"/{server.token}/events")
    lines = [response.readline() for _ in range(8)]
    assert lines[-2:] == [b": nothing new\n", b"\n"]


def test_it_may_end_when_every_browser_has_the_last_page(server: Server) -> None:
    last = FIRST._replace(edition=2, is_over=True)
    listener = ask(server, f"/{server.token}/events")
    assert ask(server, f"/{server.token}/").read()  # of a page that was not the last one
    server.show(last)
    waiting = Thread(target=server.wait_until_seen, daemon=True)
    waiting.start()
    assert ask(server, f"/{server.token}/").read()
    waiting.join(0.2)
    assert waiting.is_alive()  # one still listens
    listener.close()
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_browser_that_never_fetches_the_last_page_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_exp.report.live.server.GRACE", 0.01)
    listener = ask(server, f"/{server.token}/events")
    next_event(listener)
    server.show(FIRST._replace(edition=2, is_over=True))
    assert ask(server, f"/{server.token}/").read()
    server.wait_until_seen()


def test_a_port_that_is_taken_is_an_error_of_one_line(server: Server) -> None:
    port = server.server_address[1]
    with pytest.raises(ConfigError, match=rf"^--port {port}: Address already in use; without --port, a free one"):
        Server(FIRST, port)
    with pytest.raises(ConfigError, match=r"^--port 65536: must be 0 to 65535; without"):
        Server(FIRST, 65536)
