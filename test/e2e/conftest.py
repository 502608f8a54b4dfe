# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a starter for each test, and one running stack that well-behaved tests share."""

import pathlib
import resource
import shutil
import signal
import tempfile

import pytest

from harness import HANG, tls
from harness.net import Listener, free_range
from harness.services import Reach
from harness.stack import Starter

def pytest_configure(config):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    # Told to stop, the run winds up its fixtures: no process and no folder stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    del config


def pytest_make_parametrize_id(val):
    """Raw bytes and functions make no readable ids."""
    if isinstance(val, bytes) or callable(val):
        return repr(val)[:24] if isinstance(val, bytes) else getattr(val, "__name__", None)
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Nothing may hang: every test, with its fixtures, has an alarm."""
    limit = 15 * HANG if item.get_closest_marker("heavy") else 5 * HANG

    def ring(_number, _frame):
        raise TimeoutError(f"{item.nodeid} hung for {limit} s")
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _folder():
    # Short, because AF_UNIX paths are; removed whole, because runs leave nothing.
    return pathlib.Path(tempfile.mkdtemp(prefix="e2e-"))


@pytest.fixture(name="folder")
def _a_folder():
    path = _folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(name="start")
def _start(folder):
    """Starts processes that end with the test."""
    starter = Starter(folder)
    yield starter
    starter.close()


@pytest.fixture(name="session_folder", scope="session")
def _session_folder():
    path = _folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(name="session_start", scope="session")
def _session_start(session_folder):
    starter = Starter(session_folder)
    yield starter
    starter.close()


@pytest.fixture(name="authority", scope="session")
def _authority(session_folder):
    return tls.Authority(session_folder / "ca")


@pytest.fixture(name="local_pair", scope="session")
def _local_pair(authority):
    """A certificate for localhost in all its spellings."""
    return authority.issue("localhost", "demo.localhost", "127.0.0.1", "::1")


@pytest.fixture(name="app", scope="session")
def _app(session_start):
    """The Node app most tests talk to, through the shared tunnel or past it."""
    return session_start.node()


@pytest.fixture(name="edge", scope="session")
def _edge(session_start, local_pair):
    """A server for visitors, plain and TLS, that no test may disturb."""
    return session_start.server(tls=[local_pair])


@pytest.fixture(name="tunnel", scope="session")
def _tunnel(session_start, edge, app):
    """The Node app published as demo on the shared server."""
    return session_start.client(edge, app, "--quiet")


@pytest.fixture(name="port_edge", scope="session")
def _port_edge(session_start):
    """A server with ports to give, for TCP and UDP, that no test may disturb."""
    first = free_range(80)
    return session_start.server("--tcp-ports", f"{first}-{first + 39}",
                                "--udp-ports", f"{first + 40}-{first + 79}")


@pytest.fixture(name="reach", scope="session", params=["direct", "tunnel"])
def _reach(request):
    """Where a visitor finds a port: without a tunnel, so that a test is proved itself, and with."""
    if request.param == "direct":
        return Reach()
    return Reach(request.getfixturevalue("session_start"), request.getfixturevalue("port_edge"))


@pytest.fixture(name="files", scope="session")
def _files(session_folder):
    """A folder of static files."""
    root = session_folder / "www"
    root.mkdir()
    (root / "index.html").write_text("<!doctype html><title>static</title>static page\n")
    (root / "text.txt").write_text("some compressible text\n" * 2000)
    (root / "empty").write_bytes(b"")
    (root / "small.bin").write_bytes(bytes(range(256)) * 4096)
    return root


@pytest.fixture(name="script")
def _script(start):
    """Makes a scripted upstream: serve(conn) runs for every connection it gets."""
    def make(serve, **kw):
        listener = start.keep(Listener(serve, **kw))
        listener.where = str(listener.port)
        return listener
    return make
