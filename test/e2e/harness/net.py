# SPDX-License-Identifier: Apache-2.0
"""Ports, sockets, and HTTP/1.1 by hand: nothing here repairs what the other side sends."""

import contextlib
import os
import random
import select
import socket
import ssl
import threading

from . import HANG

# Processes that run tests side by side have ports of their own.
_SHARD, _SHARDS = (int(n) for n in os.environ.get("TUNNEL_TEST_SHARD", "0/1").split("/"))
_FIRST = 10240 + (32000 - 10240) // _SHARDS * _SHARD
_LAST = _FIRST + (32000 - 10240) // _SHARDS
_handed_out = set()
_rng = random.SystemRandom()


def free_port():
    """A port nobody listens on, outside the range the kernel takes for outgoing connections."""
    for _ in range(1000):
        port = _rng.randrange(_FIRST, _LAST)
        if port in _handed_out:
            continue
        try:
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                with socket.socket(family) as probe:
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((host, port))
        except OSError:
            continue
        _handed_out.add(port)
        return port
    raise AssertionError("no free port")


def _is_free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with socket.socket(family, kind) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    return False
    return True


def free_range(count):
    """The first of count ports in a row that nobody uses, neither for TCP nor for UDP."""
    for _ in range(1000):
        first = _rng.randrange(_FIRST, _LAST - count)
        ports = range(first, first + count)
        if not _handed_out.intersection(ports) and all(_is_free(port) for port in ports):
            _handed_out.update(ports)
            return first
    raise AssertionError(f"no {count} free ports in a row")


def port_range(count):
    """The same as the servers' options want it."""
    first = free_range(count)
    return f"{first}-{first + count - 1}"


class Truncated(Exception):
    """The peer closed in the middle of a message; .partial is what came of its body."""

    def __init__(self, partial=b""):
        super().__init__(f"closed after {len(partial)} bytes of the body")
        self.partial = partial


class Message:
    """A request or a response, as it was on the wire."""

    def __init__(self, start, headers, raw_head):
        self.start = start
        self.headers = headers  # [(name as sent, value)]
        self.raw_head = raw_head
        self.body = b""
        self.trailers = []
        self.framing = "none"  # none, length, chunked, close
        self.interim = []      # 1xx messages before this one
        self.chunks = []

    @property
    def status(self):
        return int(self.start.split(" ", 2)[1])

    @property
    def method(self):
        return self.start.split(" ", 1)[0]

    @property
    def target(self):
        return self.start.split(" ")[1]

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def __repr__(self):
        return f"<{self.start!r} {self.headers!r} {self.body[:200]!r}>"


class Conn:
    """A socket with a read buffer and HTTP/1.1 reading on top."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def abort(self):
        """Closes with a reset instead of a FIN."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def more(self, size=65536):
        """Reads once into the buffer; False at the end of the stream."""
        data = self.sock.recv(size)
        self.buffer += data
        return bool(data)

    def read_until(self, mark, limit=1 << 20):
        while mark not in self.buffer:
            assert len(self.buffer) < limit, "head without an end"
            if not self.more():
                raise Truncated(self.buffer)
        head, self.buffer = self.buffer.split(mark, 1)
        return head + mark

    def read_exactly(self, size):
        parts, have = [self.buffer[:size]], min(size, len(self.buffer))
        self.buffer = self.buffer[size:]
        while have < size:
            data = self.sock.recv(min(size - have, 1 << 18))
            if not data:
                raise Truncated(b"".join(parts))
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def read_all(self):
        """Everything to the end of the stream; a reset counts as the end."""
        with contextlib.suppress(ConnectionError):
            while self.more(1 << 18):
                pass
        data, self.buffer = self.buffer, b""
        return data

    def at_end(self):
        """True when the peer has closed with nothing more to say. Waits for it."""
        return self.read_all() == b""

    def is_quiet(self, seconds=0.3):
        """True if neither bytes nor an end came: the connection is open and silent."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not self.buffer and not poll.poll(seconds * 1000)

    def read_head(self):
        raw = self.read_until(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        headers = []
        for line in lines[1:]:
            name, sep, value = line.partition(":")
            assert sep, f"header line without a colon: {line!r}"
            headers.append((name, value.strip(" \t")))
        return Message(lines[0], headers, raw)

    def read_chunk(self):
        """One chunk's payload; b'' for the last one (its trailers are left in the stream)."""
        line = self.read_until(b"\r\n")[:-2]
        data = self.read_exactly(int(line.split(b";")[0], 16))
        if data:
            assert self.read_exactly(2) == b"\r\n", "no CRLF after a chunk"
        return data

    def read_trailers(self):
        trailers = []
        while True:
            line = self.read_until(b"\r\n")[:-2].decode("latin-1")
            if not line:
                return trailers
            name, _, value = line.partition(":")
            trailers.append((name, value.strip(" \t")))

    def read_body(self, message, response_to=None):
        """Reads the body into message, by the rules of RFC 9112 section 6."""
        coding = message.get("Transfer-Encoding", "").lower()
        length = message.all("Content-Length")
        bodyless = response_to is not None and (
            response_to == "HEAD" or message.status in (204, 304) or message.status < 200)
        if bodyless:
            return message
        if coding:
            assert coding == "chunked" and not length, f"ambiguous framing: {message!r}"
            message.framing = "chunked"
            try:
                while True:
                    chunk = self.read_chunk()
                    if not chunk:
                        break
                    message.chunks.append(chunk)
                message.body = b"".join(message.chunks)
                message.trailers = self.read_trailers()
            except Truncated as cut:
                raise Truncated(b"".join(message.chunks) + cut.partial) from None
        elif length:
            assert len(length) == 1, f"several lengths: {length}"
            message.framing = "length"
            message.body = self.read_exactly(int(length[0]))
        elif response_to is not None:
            message.framing = "close"
            while self.more(1 << 18):
                pass
            message.body, self.buffer = self.buffer, b""
        return message

    def read_response(self, method="GET"):
        interim = []
        while True:
            message = self.read_head()
            assert message.start.startswith("HTTP/1."), f"not a response: {message!r}"
            if 100 <= message.status < 200 and message.status != 101:
                interim.append(message)
                continue
            message.interim = interim
            return self.read_body(message, response_to=method)

    def read_request(self):
        return self.read_body(self.read_head())

    def request(self, method, target, host, headers=(), body=None, version="HTTP/1.1"):
        """Sends a request as given; body sets Content-Length."""
        lines = [f"{method} {target} {version}"]
        if host is not None:
            lines.append(f"Host: {host}")
        lines += [f"{n}: {v}" for n, v in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))

    def fetch(self, method, target, host, headers=(), body=None):
        self.request(method, target, host, headers, body)
        return self.read_response(method)


def dial(host, port, *, tls=None, sni=None, receive_buffer=None):
    """Connects; tls is an ssl.SSLContext."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(HANG)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            sock = tls.wrap_socket(sock, server_hostname=sni)
    except BaseException:
        sock.close()
        raise
    return Conn(sock)


def tls_trusting(ca=None, check_name=True):
    """A context that verifies against the PEM file ca, or nothing at all without one."""
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if not ca or not check_name:
        context.check_hostname = False
    if not ca:
        context.verify_mode = ssl.CERT_NONE
    return context


class Listener:
    """Accepts on a loopback port and runs serve(conn) in a thread for each connection."""

    def __init__(self, serve, host="127.0.0.1", backlog=512):
        self.serve = serve
        self.accepted = 0
        self.conns = []
        self.failures = []
        self._lock = threading.Lock()
        self._closing = False
        self.sock = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog)
        self.port = self.sock.getsockname()[1]
        self._threads = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            sock.settimeout(HANG)
            conn = Conn(sock)
            with self._lock:
                if self._closing:
                    conn.close()
                    return
                self.accepted += 1
                self.conns.append(conn)
                thread = threading.Thread(target=self._run, args=(conn,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _run(self, conn):
        try:
            self.serve(conn)
        except (OSError, Truncated):
            pass  # the other side left: for most tests that is the point
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(error)
        finally:
            conn.close()

    def drop_all(self):
        """Resets every connection accepted so far."""
        with self._lock:
            for conn in self.conns:
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)
            self.conns = []

    def close(self):
        with self._lock:
            self._closing = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._acceptor.join(HANG)
        self.drop_all()
        for thread in self._threads:
            thread.join(HANG)
