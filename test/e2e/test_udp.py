# SPDX-License-Identifier: Apache-2.0
"""UDP tunnels: a real DNS server and iperf3, and datagrams by hand.

Datagrams may be lost by right, so whoever waits for an answer asks again, as real programs do;
what may never happen is that one comes to the wrong visitor, or cut, joined or changed.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import select
import socket
import threading
import time

import pytest

from harness import HANG, MIB, SANITIZED, eventually
from harness.net import Listener, dial, free_port, free_range, port_range
from harness.proc import run
from harness.proxy import Relay
from harness.services import Dnsmasq, Iperf
from harness.stack import need

MAX = 65507


def udp_socket(host="127.0.0.1", port=0):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    sock.bind((host, port))
    return sock


class Upstream:
    """A UDP service: answer(payload, source) gives the datagrams to send back."""

    def __init__(self, answer=None, host="127.0.0.1", port=0):
        self.sock = udp_socket(host, port)
        self.port = self.sock.getsockname()[1]
        self.answer = answer or (lambda payload, source: [payload])
        self.got = []      # (payload, source)
        self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            ready = select.select([self.sock, self._stop[1]], [], [])[0]
            if self._stop[1] in ready:
                return
            try:
                payload, source = self.sock.recvfrom(65536)
                self.got.append((payload, source))
                for reply in self.answer(payload, source):
                    self.sock.sendto(reply, source)
            except ConnectionError:
                pass  # an earlier answer found nobody

    def sources(self):
        """The source addresses seen, in the order of their first datagram."""
        return list(dict.fromkeys(source for _, source in list(self.got)))

    def close(self):
        self._stop[0].close()
        self._thread.join(HANG)
        self._stop[1].close()
        self.sock.close()


class Visitor:
    """A connected UDP socket that asks until it is answered."""

    def __init__(self, where, host=None):
        self.sock = udp_socket(host or ("::1" if ":" in where[0] else "127.0.0.1"))
        self.sock.connect(where)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    close = __exit__

    def send(self, payload):
        try:
            self.sock.send(payload)
        except ConnectionRefusedError:
            pass  # that of an earlier datagram

    def receive(self, seconds):
        """The next datagram, or None when none comes."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return None
        try:
            return self.sock.recv(65536)
        except ConnectionRefusedError:
            return None

    def ask(self, payload, expected=None):
        """Sends until the expected answer (default: an echo) comes; anything else is a failure.
        Late answers to what was asked twice are of this visitor's own asking."""
        expected = payload if expected is None else expected
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            self.send(payload)
            got = self.receive(1)
            if got is not None:
                assert got == expected, (len(got), got[:60], len(expected), expected[:60])
                return got
        raise AssertionError(f"no answer to {payload[:60]!r} ({len(payload)} bytes)")

    def drain(self, seconds=0.5):
        got = []
        while (one := self.receive(seconds)) is not None:
            got.append(one)
        return got


@pytest.fixture(name="upstream")
def _upstream(start):
    def make(answer=None, **kw):
        return start.keep(Upstream(answer, **kw))
    return make


# -- DNS ------------------------------------------------------------------------------------------

@pytest.fixture(name="dns", scope="module")
def _dns(session_start):
    long_text = ",".join(f"piece-{i:02}-{'x' * 80}" for i in range(20))
    return Dnsmasq(session_start, *(f"--address=/h{i}.test/10.1.{i // 256}.{i % 256}"
                                    for i in range(400)),
                   "--address=/six.test/2001:db8::6", "--txt-record=text.test,plain words",
                   f"--txt-record=long.test,{long_text}", "--mx-host=test,mail.test,10",
                   "--srv-host=_sip._udp.test,sip.test,5060,1,2")


def test_dns_records(dns, reach):
    where = reach.udp(dns.port)

    def short(*query):
        got = dns.dig(where, "+short", "+notcp", *query)
        assert got.returncode == 0, got
        return got.stdout.decode().strip()
    assert short("h7.test", "A") == "10.1.0.7"
    assert short("six.test", "AAAA") == "2001:db8::6"
    assert short("text.test", "TXT") == '"plain words"'
    assert short("test", "MX") == "10 mail.test."
    assert short("_sip._udp.test", "SRV") == "1 2 5060 sip.test."
    assert b"status: NXDOMAIN" in dns.dig(where, "nobody.test").stdout


def test_dns_large_answer(dns, reach):
    """An answer above one Ethernet frame, whole, in one datagram; and truncated where asked so."""
    where = reach.udp(dns.port)
    got = dns.dig(where, "+notcp", "+ignore", "+bufsize=4096", "long.test", "TXT").stdout.decode()
    assert re.search(r"MSG SIZE +rcvd: (1[6-9]|2\d)\d\d\b", got), got
    assert "piece-00-" in got and "piece-19-" in got and " tc" not in got.split(";; flags:")[1][:20]
    got = dns.dig(where, "+notcp", "+ignore", "+noedns", "long.test", "TXT").stdout.decode()
    assert " tc" in got.split(";; flags:")[1][:20], got


def test_dns_many_at_once(dns, reach, folder):
    """Hundreds of names by several askers at the same time: each answer is the one asked for."""
    where = reach.udp(dns.port)
    names = [f"h{i}.test" for i in range(400)]
    parts = [names[i::8] for i in range(8)]
    for i, part in enumerate(parts):
        (folder / f"names{i}").write_text("".join(f"{name} A\n" for name in part))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: dns.dig(where, "+short", "+notcp", "-f",
                                                  folder / f"names{i}"), range(8)))
    for part, answer in zip(parts, answers):
        expected = [f"10.1.{int(n[1:-5]) // 256}.{int(n[1:-5]) % 256}" for n in part]
        # An asker who had to ask again says so.
        said = [line for line in answer.stdout.decode().splitlines() if not line.startswith(";;")]
        assert said == expected


def test_dns_falls_back_to_tcp(dns, start):
    """As resolvers do it: the truncated answer comes by UDP, the whole one by TCP, same port."""
    first = free_range(1)
    server = start.server("--tcp-ports", f"{first}-{first}", "--udp-ports", f"{first}-{first}")
    start.udp(server, dns.port)
    start.tcp(server, dns.port)
    got = dns.dig(("127.0.0.1", first), "+noedns", "long.test", "TXT").stdout.decode()
    assert "(TCP)" in got and "piece-19-" in got, got


# -- iperf3 ---------------------------------------------------------------------------------------

@pytest.fixture(name="iperf", scope="module")
def _iperf(session_start):
    return Iperf(session_start)


@pytest.fixture(name="iperf_where", scope="module", params=["direct", "tunnel"])
def _iperf_where(request, session_start, iperf):
    """It speaks TCP and UDP on one port number."""
    if request.param == "direct":
        return "127.0.0.1", iperf.port
    first = free_range(1)
    server = session_start.server("--tcp-ports", f"{first}-{first}",
                                  "--udp-ports", f"{first}-{first}")
    session_start.tcp(server, iperf.port, "--remote-port", str(first))
    session_start.udp(server, iperf.port, "--remote-port", str(first))
    return "127.0.0.1", first


@pytest.mark.parametrize("extra", [[], ["-R"], ["-P", "4"], ["--bidir"], ["-l", "60"]],
                         ids=["up", "down", "four", "both-ways", "small"])
def test_iperf3(iperf_where, extra):
    """Moderate traffic, well within what any machine moves: nearly all of it arrives."""
    host, port = iperf_where
    argv = [need("iperf3"), "-u", "-c", host, "-p", str(port), "-b", "4M", "-t", "2", "-l", "1200",
            "-J", *extra]

    def finished():
        got = json.loads(run(argv, timeout=3 * HANG).stdout)
        if "busy" in got.get("error", ""):
            return None  # it has not yet heard of the end of the test before
        assert "error" not in got, got["error"]
        return got
    got = eventually(finished, "a test of iperf3")
    total = got["end"]["sum"]
    assert total["packets"] > 100 and total["lost_percent"] < 25, total


# -- datagrams ------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 2, 511, 1200, 1472, 1473, 4096, 9000, 16384, 32768, 65000,
                                  65506, MAX])
def test_sizes_are_kept(upstream, reach, size):
    """Both ways: what was one datagram is one datagram, with these bytes."""
    echo = upstream()
    payload = os.urandom(size)
    with Visitor(reach.udp(echo.port)) as visitor:
        visitor.ask(payload)
    assert {data for data, _ in echo.got} == {payload}


def test_sizes_in_a_row(upstream, reach):
    """Small behind large and empty between full: none joined to another, none cut."""
    sizes = [0, MAX, 1, 0, 0, 9000, 1472, 3, MAX, 0]
    script = [bytes([i]) * size for i, size in enumerate(sizes)]
    service = upstream(lambda payload, source: script)
    with Visitor(reach.udp(service.port)) as visitor:
        def all_came():
            visitor.send(b"go")
            return visitor.drain(1) == script
        eventually(all_came, "all of the row, in order")


def test_answers_of_other_numbers(upstream, reach):
    """A flow is no exchange: none, one or many answers, and more of them later."""
    service = upstream(lambda payload, source: [b"%d" % i for i in range(int(payload))])
    with Visitor(reach.udp(service.port)) as visitor:
        for count in (1, 5, 0, 20):
            expected = [b"%d" % i for i in range(count)]

            def came(n=count, e=expected):
                visitor.send(b"%d" % n)
                return visitor.drain() == e
            eventually(came, f"{count} answers")
        flow = service.sources()[-1]
        for i in range(3):  # unasked
            service.sock.sendto(b"later %d" % i, flow)
            assert visitor.receive(HANG) == b"later %d" % i


def test_replies_reach_their_own_visitor_only(upstream, reach):
    """Many visitors at the same time, each with words of its own, answered out of turn."""
    held = []

    def answer(payload, source):
        # Every answer is given twice: at once, and again while another visitor is being served.
        held.append((payload, source))
        if len(held) > 50:
            late, whom = held.pop(0)
            service.sock.sendto(late, whom)
        return [payload]
    service = upstream(answer)
    where = reach.udp(service.port)
    visitors = [Visitor(where) for _ in range(200)]
    try:
        foreign = []

        def talk(index):
            visitor, mine = visitors[index], b"visitor %d " % index
            for turn in range(10):
                word, deadline = mine + b"%d" % turn, time.monotonic() + HANG
                while time.monotonic() < deadline:
                    visitor.send(word)
                    got = visitor.receive(1)
                    while got is not None and got != word:
                        if not got.startswith(mine):
                            foreign.append((mine, got))
                        got = visitor.receive(1)
                    if got == word:
                        break
                else:
                    raise AssertionError(f"no answer to {word!r}")
            return True
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            assert all(pool.map(talk, range(200)))
        for index, visitor in enumerate(visitors):
            mine = b"visitor %d " % index
            foreign += [(mine, got) for got in visitor.drain(0) if not got.startswith(mine)]
        assert not foreign
        assert len(service.sources()) == 200  # one upstream socket for each
    finally:
        for visitor in visitors:
            visitor.close()


def test_strangers_cannot_answer(upstream, start, port_edge):
    """Only what comes from the upstream's own address is an answer."""
    service = upstream()
    client = start.udp(port_edge, service.port)
    with Visitor(("127.0.0.1", client.port)) as visitor, udp_socket() as stranger:
        visitor.ask(b"hello")
        flow = service.sources()[0]
        for _ in range(20):
            try:
                stranger.sendto(b"forged", flow)
            except ConnectionRefusedError:
                pass
        visitor.ask(b"still")
        assert visitor.drain() in ([], [b"still"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families(start, upstream, host):
    """IPv6 visitors where the server listens on IPv6, to an IPv4 upstream and to an IPv6 one."""
    server = start.server("--udp-ports", port_range(4), "--listen", f"[::1]:{free_port()}")
    for family in ("127.0.0.1", "::1"):
        service = upstream(host=family)
        where = f"[{family}]:{service.port}" if ":" in family else service.port
        client = start.udp(server, where)
        with Visitor((host, client.port)) as visitor:
            for size in (0, 100, MAX):
                visitor.ask(os.urandom(size))


def test_all_addresses(start, upstream):
    """A server on [::]: each visitor is answered from the address he asked."""
    port = free_port()
    server = start.server("--listen", f"[::]:{port}", "--udp-ports", port_range(2), plain=False,
                          wait=False)
    server.proc.wait_line("^listening: http://")
    server.port = port
    client = start.udp(server, upstream().port)
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        with Visitor((host, client.port)) as visitor:  # connected: other sources are not heard
            visitor.ask(b"to " + host.encode())


def test_upstream_that_is_not_up(start, upstream):
    """Nothing answers, nothing breaks, and once it is up it answers the same visitor."""
    server = start.server("--udp-ports", port_range(2))
    port = free_port()
    client = start.udp(server, port)
    with Visitor(("127.0.0.1", client.port)) as visitor:
        for i in range(5):
            visitor.send(b"%d" % i)
        assert visitor.drain() == []
        service = upstream(port=port)
        visitor.ask(b"now")
        service.close()
        visitor.send(b"into the void")
        visitor.drain()
        start.closers.remove(service)
        upstream(port=port)
        visitor.drain()
        visitor.ask(b"again")
    assert client.proc.alive() and server.proc.alive()


def test_link_is_cut(start, upstream):
    """Datagrams are lost meanwhile; afterwards the same port answers the same visitor."""
    server = start.server("--udp-ports", port_range(4))
    relay = start.keep(Relay(server.port))
    client = start.udp(server, upstream().port, link=f"ws://127.0.0.1:{relay.port}")
    with Visitor(("127.0.0.1", client.port)) as visitor:
        for i in range(3):
            visitor.ask(b"turn %d" % i)
            before = relay.accepted
            relay.drop_all()
            eventually(lambda b=before: relay.accepted > b, "the client comes back")
            visitor.drain(0)


# -- the life of flows ----------------------------------------------------------------------------

def test_idle_flows_end(start, upstream):
    """After the idle time a visitor is a new flow: another socket asks the upstream, and the
    client's descriptors have come back."""
    server = start.server("--udp-ports", port_range(2))
    service = upstream()
    client = start.udp(server, service.port, "--idle-timeout", "1")
    resting = client.proc.descriptors()
    visitors = [Visitor(("127.0.0.1", client.port)) for _ in range(30)]
    try:
        for i, visitor in enumerate(visitors):
            visitor.ask(b"%d" % i)
        assert client.proc.descriptors() >= resting + 30
        eventually(lambda: client.proc.descriptors() <= resting, "the flows have ended")
        old = set(service.sources())
        for visitor in visitors:
            visitor.ask(b"new")
        assert len(set(service.sources()) - old) >= 25  # a port may come twice by chance
    finally:
        for visitor in visitors:
            visitor.close()


def test_busy_flows_stay(start, upstream):
    """Datagrams in either direction keep a flow: it outlives many idle times."""
    server = start.server("--udp-ports", port_range(2))
    service = upstream(lambda payload, source: [])
    client = start.udp(server, service.port, "--idle-timeout", "2")

    def lives(visitor, speak):
        """Speaks every quarter of a second for 5 s; None when this machine paused for too long."""
        visitor.send(b"first")
        eventually(lambda: any(p == b"first" for p, _ in service.got), "it has come")
        source, last, worst = service.got[-1][1], time.monotonic(), 0
        end = last + 5
        while time.monotonic() < end:
            speak(visitor, source)
            visitor.receive(0.25)
            worst = max(worst, time.monotonic() - last)
            last = time.monotonic()
        if worst > 1:
            return None
        service.got.clear()
        visitor.send(b"last")
        eventually(lambda: any(p == b"last" for p, _ in service.got), "it has come")
        return service.got[-1][1] == source
    for speak in (lambda visitor, source: visitor.send(b"x"),
                  lambda visitor, source: service.sock.sendto(b"y", source)):
        with Visitor(("127.0.0.1", client.port)) as visitor:
            verdict = next(v for _ in range(5) if (v := lives(visitor, speak)) is not None)
            assert verdict
        service.got.clear()


def reached(visitors, talking=()):
    """How many of the visitors get an answer, each asked a few times while others go on talking."""
    count = 0
    for visitor in visitors:
        for _ in range(3):
            for other in talking:
                other.ask(b"still here")
            visitor.send(b"?")
            if visitor.receive(0.2) is not None:
                count += 1
                break
    return count


def test_flows_of_a_tunnel_are_capped(start, upstream):
    """Who talks with the service keeps its place; others get one when it has become free."""
    server = start.server("--udp-ports", port_range(2), "--udp-flows", "10")
    service = upstream()
    client = start.udp(server, service.port, "--idle-timeout", "3")
    early = [Visitor(("127.0.0.1", client.port)) for _ in range(10)]
    late = [Visitor(("127.0.0.1", client.port)) for _ in range(5)]
    try:
        for visitor in early * 2:
            visitor.ask(b"?")
        flows = service.sources()
        assert len(flows) == 10
        assert reached(late[:1], early) == 0
        assert service.sources() == flows
        eventually(lambda: reached(late) == 5, "places have become free")
    finally:
        for visitor in early + late:
            visitor.close()


def test_lookups_are_not_capped(start, upstream):
    """Asked once, answered once: as many of those as anybody likes, one after another, by way of as
    few places as there are; and nobody is made to ask twice."""
    server = start.server("--udp-ports", port_range(2), "--udp-flows", "20",
                          "--udp-flows-per-source", "10", "--verbose")
    service = upstream()
    client = start.udp(server, service.port)
    for i in range(300):
        with Visitor(("127.0.0.1", client.port)) as visitor:
            visitor.ask(b"lookup %d" % i)
    assert server.proc.stop() == 0
    assert re.search(r" 0 dropped datagrams", server.proc.text("err")), server.proc.text("err")


def test_flows_of_a_source_are_capped(start, upstream):
    """One address cannot take the places of all."""
    server = start.server("--udp-ports", port_range(2), "--udp-flows-per-source", "4")
    service = upstream()
    client = start.udp(server, service.port)
    where = ("127.0.0.1", client.port)
    greedy = [Visitor(where, "127.0.0.1") for _ in range(12)]
    modest = [Visitor(where, "127.0.0.2") for _ in range(4)]
    try:
        for visitor in greedy[:4] * 2:
            visitor.ask(b"?")
        assert reached(greedy[4:], greedy[:4]) == 0
        assert len(service.sources()) == 4
        for visitor in modest + greedy[:4]:
            visitor.ask(b"?")
        assert len(service.sources()) == 8
    finally:
        for visitor in greedy + modest:
            visitor.close()


def test_closed_upstream_flows_do_not_pile_up(start, upstream):
    """Twice the cap of visitors, one after another with pauses: each finds a place in time."""
    server = start.server("--udp-ports", port_range(2), "--udp-flows", "8")
    service = upstream()
    client = start.udp(server, service.port, "--idle-timeout", "1")
    for i in range(16):
        with Visitor(("127.0.0.1", client.port)) as visitor:
            visitor.ask(b"%d" % i)


# -- pressure -------------------------------------------------------------------------------------

def test_flood_beside_a_stream(start, upstream):
    """Datagrams as fast as one process can send them, and a TCP tunnel of the same server: the
    stream gets its bytes through, some of the flood arrives, nothing grows without bound."""
    server = start.server("--udp-ports", port_range(2), "--tcp-ports", port_range(2))
    service = upstream(lambda payload, source: [payload[:16]])
    size = (4 if SANITIZED else 32) * MIB
    bulk = os.urandom(MIB) * (size // MIB)
    source = start.keep(Listener(lambda conn: conn.send(bulk)))
    udp = start.udp(server, service.port)
    tcp = start.tcp(server, source.port)
    before = {p: p.rss() for p in (server.proc, udp.proc, tcp.proc)}
    stop = threading.Event()
    with Visitor(("127.0.0.1", udp.port)) as flooder, concurrent.futures.ThreadPoolExecutor(2) as p:
        def flood():
            sent, payload = 0, os.urandom(1400)
            while not stop.is_set():
                flooder.send(payload)
                sent += 1
            return sent

        def listen():
            heard = 0
            while not stop.is_set():
                heard += flooder.receive(0.2) is not None
            return heard
        flooding, listening = p.submit(flood), p.submit(listen)
        try:
            eventually(lambda: len(service.got) > 1000, "the flood arrives")
            with dial("127.0.0.1", tcp.port) as visitor:
                digest, moved = hashlib.sha256(), 0
                while data := visitor.sock.recv(1 << 18):
                    digest.update(data)
                    moved += len(data)
            heard_of = len(service.got)
            eventually(lambda: len(service.got) > heard_of, "the flood goes on")
            with Visitor(("127.0.0.1", udp.port)) as modest:
                modest.ask(b"modest")
        finally:
            stop.set()
        assert moved == size and digest.digest() == hashlib.sha256(bulk).digest()
        assert flooding.result() > 1000 and listening.result() > 100
    if not SANITIZED:
        for proc, rss in before.items():
            assert proc.rss() - rss < 48 * MIB
    with Visitor(("127.0.0.1", udp.port)) as visitor:
        visitor.ask(b"afterwards")


def test_flood_of_largest_datagrams(start, upstream):
    """64 KiB each, in bursts: those that arrive are whole."""
    server = start.server("--udp-ports", port_range(2))
    words = {os.urandom(16): None for _ in range(50)}
    payloads = [word + hashlib.sha256(word).digest() * ((MAX - 16) // 32) for word in words]
    service = upstream()
    client = start.udp(server, service.port)
    with Visitor(("127.0.0.1", client.port)) as visitor:
        for _ in range(4):
            for payload in payloads:
                visitor.send(payload)
            for got in visitor.drain(0.2):
                assert got in payloads
        visitor.ask(payloads[0][:100])
    assert service.got and all(got in payloads or len(got) == 100 for got, _ in service.got)


def test_kill_while_flooded(start, upstream):
    """The client dies in a flood; the server goes on, and another client takes over the port."""
    server = start.server("--udp-ports", port_range(1), "--link-timeout", "1")
    service = upstream()
    client = start.udp(server, service.port)
    port = client.port
    with Visitor(("127.0.0.1", port)) as visitor:
        visitor.ask(b"before")
        client.proc.kill()
        for _ in range(2000):
            visitor.send(bytes(1000))
        start.udp(server, service.port, "--remote-port", str(port))
        visitor.drain(0.2)
        with Visitor(("127.0.0.1", port)) as other:
            other.ask(b"after")
