# SPDX-License-Identifier: Apache-2.0
"""How the programs end: what is under way comes to its end, and a second signal makes it short."""

import json
import signal
import threading

import pytest

from harness import CLIENT_BIN, HANG, SERVER_BIN, eventually
from harness.net import dial, free_port
from harness.stack import Client

SECOND = [signal.SIGTERM, signal.SIGINT]


class Half:
    """An upstream that answers with half of the body, and with the rest when it is told to go."""

    def __init__(self, script):
        self.go = threading.Event()
        self.where = str(script(self._serve).port)

    def _serve(self, conn):
        while True:
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsome")
            self.go.wait(HANG)
            conn.send(b"more")

    @staticmethod
    def visit(server, label="demo"):
        """A visitor who has got the first half."""
        visitor = server.dial()
        visitor.request("GET", "/half", server.name(label))
        assert visitor.read_head().status == 200 and visitor.read_exactly(4) == b"some"
        return visitor


@pytest.fixture(name="half")
def _half(script):
    upstream = Half(script)
    yield upstream
    upstream.go.set()


def objects(proc, event):
    return [value for value in map(json.loads, proc.out()) if value["event"] == event]


# -- the client ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", SECOND)
def test_an_idle_client_ends(start, edge, app, number):
    client = start.client(edge, app, "--drain-timeout", "86400", subdomain="ends-idle")
    assert edge.status("/hello", "ends-idle") == 200
    assert client.proc.stop(number) == 0


def test_a_client_that_is_connected_to_nothing_ends(start):
    proc = start.program(CLIENT_BIN, ["http", "1", "--server", f"ws://127.0.0.1:{free_port()}",
                                      "--drain-timeout", "86400"])
    proc.wait_line("trying again", kind="err")
    assert proc.stop() == 0


@pytest.mark.parametrize("number", SECOND)
def test_what_visitors_have_under_way_comes_to_its_end(start, edge, half, number):
    client = start.client(edge, half, "--drain-timeout", "86400", subdomain="ends-well")
    with half.visit(edge, "ends-well") as visitor:
        client.proc.deliver(number)
        said = client.proc.wait_line("^draining: ", kind="err").string
        assert "86400 s" in said and "another signal" in said
        eventually(lambda: edge.status("/hello", "ends-well") != 200, "no new visitors")
        half.go.set()
        assert visitor.read_exactly(4) == b"more"
    assert client.proc.wait() == 0


@pytest.mark.parametrize("number", SECOND)
def test_a_second_signal_ends_the_client_at_once(start, edge, half, number):
    client = start.client(edge, half, "--drain-timeout", "86400", subdomain="ends-short")
    with half.visit(edge, "ends-short") as visitor:
        client.proc.deliver(signal.SIGINT)
        client.proc.wait_line("^draining: ", kind="err")
        assert client.proc.alive() and visitor.is_quiet()
        client.proc.deliver(number)
        assert client.proc.wait() == 0


@pytest.mark.parametrize("timeout", ["0", "0.5"])
def test_the_time_to_end_is_bounded(start, edge, half, timeout):
    client = start.client(edge, half, subdomain="ends-soon", env={"TUNNEL_DRAIN_TIMEOUT": timeout})
    with half.visit(edge, "ends-soon"):
        assert client.proc.stop() == 0
    assert ("draining" in client.proc.text("err")) == (timeout != "0")


def test_an_ending_client_reads_no_file(start, edge, half, folder):
    path = folder / "tunnel.yml"
    path.write_text("drain-timeout: 86400\n"
                    f"tunnels:\n  a: {{type: http, to: {half.where}, subdomain: ends-file}}\n")
    client = Client(start.program(CLIENT_BIN, [
        "start", "--config", path, "--server", edge.link, "--token", edge.token]))
    client.public()
    with half.visit(edge, "ends-file") as visitor:
        client.proc.deliver(signal.SIGTERM)
        client.proc.wait_line("^draining: ", kind="err")
        client.proc.deliver(signal.SIGHUP)
        assert str(path) in client.proc.wait_line("not read again", kind="err").string
        half.go.set()
        assert visitor.read_exactly(4) == b"more"
    assert client.proc.wait() == 0


def test_json_of_an_ending_client(start, edge, half):
    client = start.client(edge, half, "--log-format", "json", "--drain-timeout", "3600.5",
                          subdomain="ends-json", wait=False)
    eventually(lambda: objects(client.proc, "published"), "published")
    with half.visit(edge, "ends-json"):
        client.proc.deliver(signal.SIGTERM)
        said = eventually(lambda: objects(client.proc, "draining"), "a word about it")[0]
        assert said["timeout_ms"] == 3600500 and "server" not in said and said["text"]
        client.proc.deliver(signal.SIGTERM)
        assert client.proc.wait() == 0
    assert client.proc.err() == []


# -- the server ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", SECOND)
def test_an_idle_server_ends(start, number):
    server = start.server("--drain-delay", "3600", "--drain-timeout", "86400")
    assert server.get("/__tunnel__/health/ready", host="x").status == 200
    assert server.proc.stop(number) == 0


@pytest.mark.parametrize("number", SECOND)
def test_requests_under_way_come_to_their_end(start, half, folder, number):
    log = folder / "access.log"
    server = start.server("--access-log", log, "--drain-timeout", "86400", "--verbose")
    start.client(server, half)
    with half.visit(server) as visitor:
        server.proc.deliver(number)
        said = server.proc.wait_line("draining: ", kind="err").string
        assert "86400 s" in said and "another signal" in said
        half.go.set()
        assert visitor.read_exactly(4) == b"more"
    assert server.proc.wait() == 0
    assert "GET /half" in log.read_text()
    server.proc.wait_line("^counted: .* refused attaches, .* retried requests", kind="err")


@pytest.mark.parametrize("number", SECOND)
def test_a_second_signal_ends_the_server_at_once(start, half, number):
    server = start.server("--drain-delay", "3600", env={"TUNNEL_DRAIN_TIMEOUT": "86400"})
    start.client(server, half)
    with half.visit(server) as visitor:
        server.proc.deliver(signal.SIGTERM)
        said = server.proc.wait_line("draining: ", kind="err").string
        assert "goes on for 3600 s" in said and "take 86400 s" in said
        assert server.proc.alive() and visitor.is_quiet()
        server.proc.deliver(number)
        assert server.proc.wait() == 0


def test_the_delay_is_for_who_balances_load(start, half, app, folder):
    """Until it is over everything goes on, but the server says that it is not ready."""
    path = folder / "server.yml"
    port = free_port()
    path.write_text(f"listen: 127.0.0.1:{port}\ndrain-delay: 3600\n")
    proc = start.program(SERVER_BIN, ["--config", path, "--token", "a-token"])
    proc.wait_line("^listening: ")
    argv = ["--server", f"ws://127.0.0.1:{port}", "--token", "a-token"]
    for upstream, label in ((half, "half"), (app, "app")):
        Client(start.program(CLIENT_BIN, ["http", upstream.where, "--subdomain", label,
                                          *argv])).public()

    def status(target, host):
        with dial("127.0.0.1", port) as conn:
            return conn.fetch("GET", target, host).status
    assert status("/__tunnel__/health/ready", "x") == 200
    proc.deliver(signal.SIGTERM)
    proc.wait_line("draining: ", kind="err")
    eventually(lambda: status("/__tunnel__/health/ready", "x") == 503, "not ready")
    assert status("/__tunnel__/health/live", "x") == 200
    assert status("/hello", f"app.localhost:{port}") == 200
    assert proc.alive()


def test_an_ending_server_reads_nothing_but_turns_its_log_over(start, half, app, folder):
    path, log = folder / "server.yml", folder / "access.log"
    port = free_port()
    path.write_text(f"listen: 127.0.0.1:{port}\naccess-log: access.log\ndrain-delay: 3600\n")
    proc = start.program(SERVER_BIN, ["--config", path, "--token", "a-token"])
    proc.wait_line("^listening: ")
    argv = ["--server", f"ws://127.0.0.1:{port}", "--token", "a-token"]
    for upstream, label in ((half, "half"), (app, "app")):
        Client(start.program(CLIENT_BIN, ["http", upstream.where, "--subdomain", label,
                                          *argv])).public()
    with dial("127.0.0.1", port) as visitor, dial("127.0.0.1", port) as other:
        visitor.request("GET", "/half", f"half.localhost:{port}")
        assert visitor.read_head().status == 200
        proc.deliver(signal.SIGTERM)
        proc.wait_line("draining: ", kind="err")
        log.rename(folder / "access.log.1")
        path.write_text("bogus: 1\n")
        proc.deliver(signal.SIGHUP)
        proc.wait_line("nothing is read again", kind="err")
        assert other.fetch("GET", "/hello?turned", f"app.localhost:{port}").status == 200
        eventually(lambda: log.exists() and "/hello?turned" in log.read_text(), "the new log")
    assert "bogus" not in proc.text("err")


def test_json_of_an_ending_server(start, half):
    server = start.server("--log-format", "json", "--drain-timeout", "86400", wait=False)
    eventually(lambda: objects(server.proc, "listening"), "it listens")
    start.client(server, half)
    with half.visit(server):
        server.proc.deliver(signal.SIGTERM)
        said = eventually(lambda: objects(server.proc, "draining"), "a word about it")[0]
        assert said["timeout_ms"] == 86400000 and said["text"]
        server.proc.deliver(signal.SIGTERM)
        assert server.proc.wait() == 0
    assert server.proc.err() == []
