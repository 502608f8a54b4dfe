# SPDX-License-Identifier: Apache-2.0
"""Who gets which TCP port, for how long, and what a tunnel tells its upstream of the visitor."""

import concurrent.futures
import ipaddress
import re
import secrets
import socket
import struct

import pytest

from harness import eventually
from harness.net import Listener, dial, free_port, free_range, port_range
from harness.proxy import Relay
from harness.stack import curl


def greeter(start, word):
    """An upstream that says a word and hangs up."""
    return start.keep(Listener(lambda conn: conn.send(word)))


def greets(port, word, host="127.0.0.1"):
    with dial(host, port) as visitor:
        return visitor.read_all() == word


def is_refused(port, host="127.0.0.1"):
    try:
        dial(host, port).close()
    except ConnectionRefusedError:
        return True
    return False


def the_line(client):
    """The one line that says why there is no tunnel."""
    said = client.gets_nowhere()
    assert len(said.splitlines()) == 1, said
    return said


# -- ports ----------------------------------------------------------------------------------------

def test_public_line_names_domain_and_port(start):
    first = free_range(4)
    server = start.server("--tcp-ports", f"{first}-{first + 3}", domain="tunnel.test")
    client = start.tcp(server, greeter(start, b"a").port, "--remote-port", str(first + 2))
    assert client.public() == f"tcp://tunnel.test:{first + 2}"
    assert greets(first + 2, b"a")


def test_omitted_port_is_one_of_the_range(start):
    """Clients that name no port get different ones, until there are none; then one comes free."""
    first = free_range(3)
    server = start.server("--tcp-ports", f"{first}-{first + 2}")
    words = [b"one", b"two", b"three"]
    clients = [start.tcp(server, greeter(start, word).port) for word in words]
    ports = [client.port for client in clients]
    assert sorted(ports) == [first, first + 1, first + 2]
    assert all(greets(port, word) for port, word in zip(ports, words))
    late = start.tcp(server, greeter(start, b"late").port, wait=False)
    line = the_line(late)
    assert "port" in line.lower(), line
    assert clients[1].proc.stop() == 0
    next_one = start.tcp(server, greeter(start, b"next").port)
    assert next_one.port == ports[1] and greets(ports[1], b"next")
    assert greets(ports[0], b"one") and greets(ports[2], b"three")


def test_port_outside_the_range(start):
    first = free_range(3)
    server = start.server("--tcp-ports", f"{first}-{first + 1}")
    for port in (first + 2, first - 1, 22, 65535):
        line = the_line(start.tcp(server, 9, "--remote-port", str(port), wait=False))
        assert str(port) in line, line
    assert is_refused(first + 2)


def test_ranges_of_several_parts(start):
    first = free_range(8)
    server = start.server("--tcp-ports", f"{first},{first + 2}-{first + 3}")
    for port in (first, first + 2, first + 3):
        client = start.tcp(server, greeter(start, b"in").port, "--remote-port", str(port))
        assert client.port == port and greets(port, b"in")
    line = the_line(start.tcp(server, 9, "--remote-port", str(first + 1), wait=False))
    assert str(first + 1) in line


def test_no_ports_at_all(start):
    server = start.server("--tcp-ports", "none", "--udp-ports", "none")
    for kind in ("tcp", "udp"):
        line = the_line(start.port_client(kind, server, 9, wait=False))
        assert kind in line.lower(), line
        the_line(start.port_client(kind, server, 9, "--remote-port", "20000", wait=False))


def test_port_that_another_program_has(start):
    """It is told as such; without a wish for that port the tunnel gets another one."""
    first = free_range(2)
    server = start.server("--tcp-ports", f"{first}-{first + 1}")
    with socket.create_server(("127.0.0.1", first)):
        line = the_line(start.tcp(server, 9, "--remote-port", str(first), wait=False))
        assert str(first) in line, line
        client = start.tcp(server, greeter(start, b"other").port)
        assert client.port == first + 1 and greets(first + 1, b"other")


def test_port_that_another_account_has(start):
    first = free_range(2)
    server = start.server("--tcp-ports", f"{first}-{first + 1}", "--token", "second-credential")
    holder = start.tcp(server, greeter(start, b"mine").port, "--remote-port", str(first),
                       "--instance", secrets.token_hex(16))
    for extra in ([], ["--force"]):
        line = the_line(start.tcp(server, greeter(start, b"thief").port, *extra, "--remote-port",
                                  str(first), token="second-credential", wait=False))
        assert str(first) in line, line
    assert holder.proc.alive() and greets(first, b"mine")


def test_own_account_takes_a_port_over(start):
    """As with names: the same instance at once, another one with --force; a live holder else."""
    first = free_range(1)
    server = start.server("--tcp-ports", f"{first}-{first}")
    same = secrets.token_hex(16)

    def client(word, *args, **kw):
        return start.tcp(server, greeter(start, word).port, "--remote-port", str(first), *args,
                         **kw)
    one = client(b"one", "--instance", same)
    late = client(b"late", "--instance", secrets.token_hex(16), wait=False)
    assert str(first) in the_line(late)
    two = client(b"two", "--instance", same)
    assert one.proc.wait() == 1 and greets(first, b"two")
    client(b"three", "--instance", secrets.token_hex(16), "--force")
    assert two.proc.wait() == 1 and greets(first, b"three")


def test_port_is_released(start):
    """The port refuses connections as soon as its client has left, and can be had again."""
    server = start.server("--tcp-ports", port_range(1))
    for word in (b"first", b"second"):
        client = start.tcp(server, greeter(start, word).port)
        assert greets(client.port, word)
        assert client.proc.stop() == 0
        eventually(lambda c=client: is_refused(c.port), "the port is closed")


def test_tcp_and_udp_share_a_number(start):
    """Port numbers of TCP and UDP are different things."""
    first = free_range(1)
    server = start.server("--tcp-ports", f"{first}-{first}", "--udp-ports", f"{first}-{first}")
    client = start.tcp(server, greeter(start, b"tcp").port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.bind(("127.0.0.1", 0))
        other = start.udp(server, upstream.getsockname()[1])
        assert client.port == other.port == first
    assert greets(first, b"tcp")


@pytest.mark.parametrize("option", ["--tcp-ports", "--udp-ports"])
@pytest.mark.parametrize("value", ["", "0-10", "20-10", "1-65536", "x", "10-", "-10", "1,,2",
                                   "10-20-30", "80 90"])
def test_ranges_that_are_none(start, option, value):
    server = start.server(option, value, wait=False)
    assert server.proc.wait() == 2
    assert any(option in line for line in server.proc.err()) and not server.proc.out()


@pytest.mark.parametrize("args", [["--remote-port", "0"], ["--remote-port", "65536"],
                                  ["--remote-port", "x"], ["--proxy-protocol", "v3"],
                                  ["--subdomain", "demo"]])
def test_options_that_are_wrong(start, port_edge, args):
    client = start.tcp(port_edge, 9, *args, wait=False)
    assert client.proc.wait() == 2
    assert any(args[0] in line for line in client.proc.err()), client.proc.transcript()


# -- a tunnel to itself ---------------------------------------------------------------------------

@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2"])
def test_a_tunnel_to_itself(start, host):
    """One clear line and exit, as soon as it shows: by the URL, the address reached, or a visitor."""
    first = free_range(1)
    server = start.server("--tcp-ports", str(first), "--listen", f"0.0.0.0:{free_port()}")
    client = start.tcp(server, f"{host}:{first}", wait=False)
    if host != "localhost":
        client.public()
        try:
            with dial("127.0.0.1", first) as visitor, pytest.raises(ConnectionResetError):
                visitor.sock.recv(1)
        except ConnectionResetError:
            pass  # so soon that connecting itself is told
    assert client.proc.wait() == 1
    assert f"{host}:{first} is the tunnel's own public address" in client.proc.text("err")
    eventually(lambda: is_refused(first), "the port is closed")


# -- the link -------------------------------------------------------------------------------------

def test_port_stays_when_the_link_is_cut(start):
    """Whatever happens to the connection between the ends, visitors find the same port."""
    first = free_range(4)
    server = start.server("--tcp-ports", f"{first}-{first + 3}")
    relay = start.keep(Relay(server.port))
    client = start.tcp(server, greeter(start, b"still").port, link=f"ws://127.0.0.1:{relay.port}")
    port = client.port
    for _ in range(3):
        before = relay.accepted
        relay.drop_all()
        eventually(lambda b=before: relay.accepted > b, "the client comes back")
        eventually(lambda: greets(port, b"still"), "the same port answers")
    assert len(set(re.findall(r"tcp://\S+", client.proc.text("out")))) == 1


def test_port_stays_when_the_server_restarts(start):
    first = free_range(4)
    ports = f"{first}-{first + 3}"
    server = start.server("--tcp-ports", ports)
    client = start.tcp(server, greeter(start, b"again").port)
    port = client.port
    assert server.proc.stop() == 0
    eventually(lambda: is_refused(port), "the port is closed")
    start.server("--tcp-ports", ports, port=server.port, token=server.token)
    eventually(lambda: greets(port, b"again"), "the same port answers")


@pytest.mark.parametrize("how", ["cut", "client killed", "server killed"])
def test_what_was_cut_short_does_not_look_whole(start, how):
    """A transfer that breaks off ends with a reset at both sides, never as if all had come."""
    server = start.server("--tcp-ports", port_range(2), "--link-timeout", "1", "--grace", "1")
    relay = start.keep(Relay(server.port))
    begun, seen = [], []

    def serve(conn):
        begun.append(conn.read_exactly(1))
        if begun[-1] == b"d":
            while True:
                conn.send(bytes(65536))
        try:
            while conn.sock.recv(65536):
                pass
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")
    upstream = start.keep(Listener(serve))
    client = start.tcp(server, upstream.port, link=f"ws://127.0.0.1:{relay.port}")
    with dial("127.0.0.1", client.port) as down, dial("127.0.0.1", client.port) as up:
        down.send(b"d")
        down.read_exactly(1 << 20)
        up.send(b"u" + bytes(1 << 20))
        eventually(lambda: len(begun) == 2, "both are served")
        if how == "cut":
            relay.frozen = True
            relay.drop_all()
        else:
            (client if how == "client killed" else server).proc.kill()
        if how != "server killed":  # then the kernel closes for it, in its own way
            with pytest.raises(ConnectionResetError):
                while down.sock.recv(1 << 18):
                    pass
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                up.send(bytes(65536))
    if how != "client killed":
        eventually(lambda: seen, "the upstream sees an end")
        assert seen == ["reset"]


def test_visitors_when_the_client_dies(start):
    """Killed, not stopped: open connections end, and so does the port once it is missed."""
    server = start.server("--tcp-ports", port_range(2), "--link-timeout", "1", "--grace", "1")
    upstream = start.keep(Listener(lambda conn: conn.read_all()))
    client = start.tcp(server, upstream.port)
    with dial("127.0.0.1", client.port) as visitor:
        visitor.send(b"x")
        eventually(lambda: upstream.accepted, "the upstream has it")
        client.proc.kill()
        assert visitor.read_all() == b""
    eventually(lambda: is_refused(client.port), "the port is closed")


def test_visitors_when_either_end_stops(start):
    """SIGTERM: open connections have their time, then they end at both sides, and the process leaves
    with 0."""
    for which in ("client", "server"):
        server = start.server("--tcp-ports", port_range(2), "--drain-timeout", "0.5")
        ended = []
        upstream = start.keep(Listener(lambda conn, e=ended: e.append(conn.read_all())))
        client = start.tcp(server, upstream.port, "--drain-timeout", "0.5")
        with dial("127.0.0.1", client.port) as visitor:
            visitor.send(b"last words")
            eventually(lambda u=upstream: u.accepted, "the upstream has it")
            assert (client if which == "client" else server).proc.stop() == 0
            assert visitor.read_all() == b""
        eventually(lambda e=ended: len(e) == 1, "the upstream's connection ends")


def test_quiet_connections_stay(start):
    """A connection on which nothing is said outlives every timeout of the link."""
    server = start.server("--tcp-ports", port_range(2), "--link-timeout", "1", "--grace", "1")
    upstream = start.keep(Listener(lambda conn: conn.send(conn.read_exactly(4))))
    client = start.tcp(server, upstream.port)
    with dial("127.0.0.1", client.port) as visitor:
        assert visitor.is_quiet(4)
        visitor.send(b"ping")
        assert visitor.read_all() == b"ping"


def test_both_families(start):
    """The ports are bound on the hosts of the server's own listeners, and on no others."""
    port6 = free_port()
    server = start.server("--tcp-ports", port_range(2), "--listen", f"[::1]:{port6}")
    client = start.tcp(server, greeter(start, b"both").port)
    assert greets(client.port, b"both") and greets(client.port, b"both", "::1")
    assert is_refused(client.port, "127.0.0.2")
    only4 = start.server("--tcp-ports", port_range(2))
    client = start.tcp(only4, greeter(start, b"four").port)
    assert greets(client.port, b"four") and is_refused(client.port, "::1")


# -- PROXY protocol -------------------------------------------------------------------------------

V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1_header(source, target):
    """As the specification of the PROXY protocol, section 2.1, has it."""
    family = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {family} {source[0]} {target[0]} {source[1]} {target[1]}\r\n".encode()


def v2_header(source, target):
    """Section 2.2: version 2, command PROXY, a stream over IPv4 or IPv6, no TLVs."""
    family = b"\x21" if ":" in source[0] else b"\x11"
    addresses = b"".join(ipaddress.ip_address(end[0]).packed for end in (source, target))
    block = addresses + struct.pack("!HH", source[1], target[1])
    return V2_SIGNATURE + b"\x21" + family + struct.pack("!H", len(block)) + block


HEADERS = {"v1": v1_header, "v2": v2_header}


@pytest.fixture(name="dual", scope="module")
def _dual(session_start):
    """A server on 127.0.0.1 and ::1."""
    return session_start.server("--tcp-ports", port_range(12), "--listen", f"[::1]:{free_port()}")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_proxy_protocol_header(start, dual, version, host):
    """Byte for byte, ahead of what the visitor says, for each of many visitors."""
    got = []
    upstream = start.keep(Listener(lambda conn: got.append(conn.read_all())))
    client = start.tcp(dual, upstream.port, "--proxy-protocol", version)

    def visit(i):
        with dial(host, client.port) as visitor:
            ends = [visitor.sock.getsockname()[:2], visitor.sock.getpeername()[:2]]
            visitor.send(b"visitor %d" % i)
            visitor.half_close()
            assert visitor.at_end()
        return HEADERS[version](*ends) + b"visitor %d" % i
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        expected = list(pool.map(visit, range(40)))
    eventually(lambda: len(got) == 40, "all have come")
    assert sorted(got) == sorted(expected)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_proxy_protocol_before_the_visitor_speaks(start, dual, version):
    """Servers that speak first wait for the header alone."""
    def serve(conn):
        head = conn.read_exactly(len(expected))
        conn.send(head)
    upstream = start.keep(Listener(serve))
    client = start.tcp(dual, upstream.port, "--proxy-protocol", version)
    visitor = socket.socket()
    with visitor:
        visitor.bind(("127.0.0.1", 0))
        expected = HEADERS[version](visitor.getsockname(), ("127.0.0.1", client.port))
        visitor.settimeout(40)
        visitor.connect(("127.0.0.1", client.port))
        got = b""
        while part := visitor.recv(1000):
            got += part
        assert got == expected


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_proxy_protocol_of_mapped_addresses(start, version):
    """A listener on [::] has IPv4 visitors as well: they are told as IPv4."""
    port = free_port()
    server = start.server("--listen", f"[::]:{port}", "--tcp-ports", port_range(2), plain=False,
                          wait=False)
    server.proc.wait_line("^listening: http://")
    server.port = port
    got = []
    upstream = start.keep(Listener(lambda conn: got.append(conn.read_all())))
    client = start.tcp(server, upstream.port, "--proxy-protocol", version)
    for host in ("127.0.0.1", "::1"):
        with dial(host, client.port) as visitor:
            ends = [visitor.sock.getsockname()[:2], visitor.sock.getpeername()[:2]]
            visitor.half_close()
            assert visitor.at_end()
        eventually(lambda: got, "it has come")
        assert got.pop() == HEADERS[version](*ends)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_proxy_protocol_read_by_nginx(start, dual, version):
    """A real reader of the header agrees about what it says."""
    port, plain = free_port(), free_port()
    start.nginx(f"""
  server {{
    listen 127.0.0.1:{port} proxy_protocol; listen 127.0.0.1:{plain};
    location / {{
      return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr\
 $proxy_protocol_server_port"; }}
  }}""", plain)
    client = start.tcp(dual, port, "--proxy-protocol", version)
    for host in ("127.0.0.1", "::1"):
        with dial(host, client.port) as visitor:
            mine, theirs = visitor.sock.getsockname()[:2], visitor.sock.getpeername()[:2]
            for _ in range(3):  # once a connection, not once a request
                got = visitor.fetch("GET", "/", "nginx")
                assert got.body.decode() == f"{mine[0]} {mine[1]} {theirs[0]} {theirs[1]}"


def test_without_the_option_there_is_no_header(start, dual):
    upstream = start.keep(Listener(lambda conn: conn.send(conn.read_until(b"\n"))))
    client = start.tcp(dual, upstream.port)
    with dial("127.0.0.1", client.port) as visitor:
        visitor.send(b"plain\n")
        assert visitor.read_all() == b"plain\n"


def test_curl_reads_the_web_through_a_tcp_tunnel(start, port_edge, files):
    """HTTP is bytes like any other."""
    client = start.tcp(port_edge, start.nginx_files(files))
    got = curl(f"http://127.0.0.1:{client.port}/small.bin")
    assert got.stdout == (files / "small.bin").read_bytes()
