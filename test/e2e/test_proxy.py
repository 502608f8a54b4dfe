# SPDX-License-Identifier: Apache-2.0
"""Through an outbound HTTP proxy, and links that are cut on the way."""

import re

import pytest

from harness import eventually
from harness.proxy import ConnectProxy, Relay


@pytest.fixture(name="proxy")
def _proxy(start):
    return start.keep(ConnectProxy())


@pytest.fixture(name="locked_proxy")
def _locked_proxy(start):
    return start.keep(ConnectProxy(user="ann", password="p@ss:word"))


def test_wss_through_a_proxy(start, app, proxy, authority):
    """The proxy resolves the name: here it exists only there."""
    server = start.server(tls=[authority.issue("edge.invalid")])
    client = start.client(server, app, "--ca", authority.cert,
                          "--proxy", f"http://127.0.0.1:{proxy.port}",
                          link=f"wss://edge.invalid:{server.tls_port}")
    assert server.status("/hello") == 200
    assert set(proxy.targets) == {f"edge.invalid:{server.tls_port}"} and not proxy.other
    assert client.proc.alive()


def test_plain_ws_through_a_proxy(start, edge, app, proxy):
    client = start.client(edge, app, "--proxy", f"http://127.0.0.1:{proxy.port}", subdomain=None)
    assert edge.status("/hello", client.label()) == 200
    assert set(proxy.targets) == {f"127.0.0.1:{edge.port}"}


def test_insecure_allows_plain_ws_to_a_remote_name(start, edge, app, proxy):
    args = ["--proxy", f"http://127.0.0.1:{proxy.port}"]
    link = f"ws://edge.invalid:{edge.port}"
    refused = start.client(edge, app, *args, link=link, subdomain=None, wait=False)
    assert refused.proc.wait() in (1, 2)
    assert proxy.targets == []
    client = start.client(edge, app, *args, "--insecure", link=link, subdomain=None)
    assert edge.status("/hello", client.label()) == 200
    by_env = start.client(edge, app, *args, link=link, subdomain=None, env={"TUNNEL_INSECURE": "1"})
    assert edge.status("/hello", by_env.label()) == 200


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "TUNNEL_PROXY"])
def test_proxy_from_the_environment(start, app, proxy, authority, name):
    server = start.server(tls=[authority.issue("edge.invalid")])
    start.client(server, app, "--ca", authority.cert, link=f"wss://edge.invalid:{server.tls_port}",
                 env={name: f"http://127.0.0.1:{proxy.port}"})
    assert server.status("/hello") == 200
    assert set(proxy.targets) == {f"edge.invalid:{server.tls_port}"}


def test_no_proxy_names_the_server(start, edge, app, proxy, authority):
    client = start.client(edge, app, "--ca", authority.cert, subdomain=None,
                          link=f"wss://localhost:{edge.tls_port}", env={
                              "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}",
                              "NO_PROXY": "example.com,localhost"})
    assert edge.status("/hello", client.label()) == 200
    assert proxy.targets == []


def test_flag_wins_over_https_proxy(start, app, proxy, authority):
    server = start.server(tls=[authority.issue("edge.invalid")])
    start.client(server, app, "--ca", authority.cert,
                 "--proxy", f"http://127.0.0.1:{proxy.port}",
                 link=f"wss://edge.invalid:{server.tls_port}",
                 env={"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert len(set(proxy.targets)) == 1


def test_proxy_with_credentials(start, edge, app, locked_proxy):
    client = start.client(edge, app, "--proxy",
                          f"http://ann:p%40ss%3Aword@127.0.0.1:{locked_proxy.port}",
                          subdomain=None)
    assert edge.status("/hello", client.label()) == 200
    assert locked_proxy.targets


def test_proxy_that_refuses_the_credentials(start, edge, app, locked_proxy):
    client = start.client(edge, app, "--proxy", f"http://ann:wr0ng@127.0.0.1:{locked_proxy.port}",
                          wait=False, subdomain=None)
    assert "407" in client.gets_nowhere()
    assert "wr0ng" not in client.proc.text()
    assert locked_proxy.denied >= 1 and not locked_proxy.targets


def test_proxy_that_is_not_there(start, edge, app):
    client = start.client(edge, app, "--proxy", "http://127.0.0.1:1", wait=False, subdomain=None)
    client.gets_nowhere()


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200000 + b"\r\n\r\n",
    b"\x00\x01\x02 no http at all\r\n\r\n", b""])
def test_proxy_that_talks_nonsense(start, edge, app, answer):
    proxy = start.keep(ConnectProxy(answer=answer or b"HTTP/1.1 200 OK\r\n"))
    client = start.client(edge, app, "--proxy", f"http://127.0.0.1:{proxy.port}", wait=False,
                          subdomain=None)
    client.gets_nowhere()


def test_link_cut_on_the_way(start, edge, app):
    relay = start.keep(Relay(edge.port))
    client = start.client(edge, app, link=f"ws://127.0.0.1:{relay.port}", subdomain=None)
    label = client.label()
    for _ in range(3):
        assert edge.status("/hello", label) == 200
        relay.drop_all()
        eventually(lambda: edge.status("/hello", label) == 200, "the link again")
    urls = {m[1] for line in client.proc.out() if (m := re.match(r"public: (\S+)", line))}
    assert urls == {client.public()}
    assert client.proc.alive()


def test_link_cut_under_load(start, edge, app):
    """A request under way goes on where it was; its visitor's end is the service's."""
    relay = start.keep(Relay(edge.port))
    client = start.client(edge, app, link=f"ws://127.0.0.1:{relay.port}", subdomain=None)
    label = client.label()
    for round_ in range(3):
        with edge.dial() as conn:
            conn.request("GET", f"/pour?id=cut{round_}", edge.name(label))
            assert conn.read_head().status == 200
            conn.read_exactly(100000)
            relay.drop_all()
            conn.read_exactly(1 << 20)
        app.await_visit(f"cut{round_}", "closed")
        eventually(lambda: edge.status("/hello", label) == 200, "the link again")
