# SPDX-License-Identifier: Apache-2.0
"""The server is started anew: what belonged to whom before belongs to them after."""

import shutil
import signal

import pytest

from harness import eventually
from harness.net import dial


def rules(folder):
    return ["--state", str(folder / "state"), "--token", "e2e-other-token"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_visitors_wait_and_names_stay(start, app, tmp_path, how):
    server = start.server(*rules(tmp_path))
    client = start.client(server, app)
    port = start.tcp(server, app.port)
    number = port.port
    # Written within a second or two; a killed server writes no more.
    eventually(lambda: "name:demo.localhost" in (tmp_path / "state").read_text(), "the state")
    eventually(lambda: f"tcp:{number}" in (tmp_path / "state").read_text(), "the port")
    server.proc.kill() if how == signal.SIGKILL else server.proc.stop(how)
    again = start.server(*rules(tmp_path), token=server.token, port=server.port)
    # Whoever comes first, perhaps before the client: it is waited for.
    with again.dial() as conn:
        conn.request("GET", "/bytes?n=10", again.name("demo"))
        assert conn.read_response().status == 200
    thief = start.client(again, app, token="e2e-other-token", wait=False)
    assert thief.proc.wait() != 0
    assert "another account" in thief.proc.text("err")
    eventually(lambda: answers(number), "the port again")
    assert client.proc.alive() and port.proc.alive()


def answers(port):
    try:
        with dial("127.0.0.1", port) as conn:
            conn.request("GET", "/bytes?n=10", "x")
            return conn.read_response().status == 200
    except OSError:
        return False


def test_a_state_file_that_cannot_be_used(start, tmp_path):
    (tmp_path / "state").write_text("what is this\n")
    server = start.server(*rules(tmp_path), wait=False)
    assert server.proc.wait() == 1
    err = server.proc.text("err").strip()
    assert "line 1" in err and "remove" in err and len(err.splitlines()) == 1
    server = start.server("--state", str(tmp_path / "none" / "state"), wait=False)
    assert server.proc.wait() == 1
    assert "none/state" in server.proc.text("err")


def test_a_state_file_that_cannot_be_written_any_more(start, app, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    server = start.server("--state", str(folder / "state"))
    shutil.rmtree(folder)
    start.client(server, app)
    server.proc.wait_line("cannot write the state file", kind="err")
    with server.dial() as conn:
        conn.request("GET", "/bytes?n=10", server.name("demo"))
        assert conn.read_response().status == 200
    assert server.proc.text("err").count("cannot write") == 1
