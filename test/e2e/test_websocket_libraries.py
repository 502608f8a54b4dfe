# SPDX-License-Identifier: Apache-2.0
"""`ws` of npm and `websockets` of PyPI, each with each: what they say to one another directly they
say through the tunnel, over ws:// and wss://."""

import collections
import functools
import json
import pathlib

import pytest

from harness import HANG, ROOT, UPSTREAMS
from harness.proc import clean_env, run
from harness.stack import App, need

LANGUAGES = ["node", "python"]
EXPECTED = {
    "plain": [18, True, "", 3001, "done"],
    "deflate": [18, True, "permessage-deflate", 3001, "done"],
    "bounded_deflate": [18, True, "permessage-deflate", 3001, "done"],
    "subprotocol": ["two", 1000, ""],
    "said_at_once": ["one", "two", "three", 1000, "said"],
    "fragments": ["abcd", "abcd", 1000, ""],
    "closed_by_the_server": [4001, "grüße ☃"],
    "server_dies": [1006, ""],
    "client_dies": [True],
    "ping": ["are you there", 1000, ""],
    "refused": [403, "no\n"],
    "many": [50, True],
}
# What the server saw of each connection's end, and how often.
ENDS = {"closed /echo 3001 done": 3, "closed /echo 1000": 52, "closed /echo 1006": 1,
        "closed /say 1000 said": 1, "closed /fragments 1000": 1, "closed /close 4001 grüße ☃": 1,
        "closed /die 1006": 1}


@functools.lru_cache(None)
def packages():
    """Where the set-up put them."""
    said = run([ROOT / "scripts" / "setup", "packages"], check=True).stdout
    where = pathlib.Path(said.decode().strip())
    assert (where / "python").is_dir(), f"nothing in {where}: run the set-up (make test does)"
    return where


def command(language, *args):
    peer = ([need("node"), UPSTREAMS / "ws_peer.js"] if language == "node" else
            ["/usr/bin/python3", UPSTREAMS / "ws_peer.py"])
    env = clean_env(NODE_PATH=packages() / "node_modules", PYTHONPATH=packages() / "python",
                    PYTHONDONTWRITEBYTECODE=1)
    return [*peer, *args], env


class Rig:
    """A server for visitors, and behind it one of each library's servers."""

    def __init__(self, start, authority):
        self.authority = authority
        names = [f"{language}.ws.test" for language in LANGUAGES]
        self.server = start.server(domain="ws.test", tls=[authority.issue(*names)])
        self.apps = {}
        for language in LANGUAGES:
            argv, env = command(language, "serve")
            proc = start.spawn(argv, env=env, name=f"{language} server")
            app = App(proc, int(proc.wait_line(r"^ready (\d+)$")[1]))
            start.client(self.server, app, "--quiet", subdomain=language)
            self.apps[language] = app

    def where(self, language, way):
        """URL and port, and for wss:// what to trust."""
        if way == "direct":
            port = self.apps[language].port
            return f"ws://127.0.0.1:{port}", port
        if way == "ws":
            return f"ws://{self.server.name(language)}", self.server.port
        return (f"wss://{self.server.name(language, tls=True)}", self.server.tls_port,
                self.authority.cert)

    def ends(self, language):
        return collections.Counter(line.strip() for line in self.apps[language].proc.out()
                                   if line.startswith("closed "))


@pytest.fixture(name="rig", scope="module")
def _rig(session_start, authority):
    return Rig(session_start, authority)


@pytest.mark.parametrize("way", ["direct", "ws", "wss"])
@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_pairs(rig, client, server, way):
    """Texts and binaries to 8 MiB, permessage-deflate, subprotocols, fragments, closing handshakes
    from either side, deaths, pings, a refusal, fifty connections at once: as seen by both ends."""
    before = rig.ends(server)
    argv, env = command(client, "talk", *map(str, rig.where(server, way)))
    done = run(argv, env=env, timeout=3 * HANG)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == EXPECTED
    rig.apps[server].proc.wait_line("^closed ", count=before.total() + sum(ENDS.values()))
    assert rig.ends(server) - before == ENDS
