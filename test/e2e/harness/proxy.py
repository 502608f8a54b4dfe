# SPDX-License-Identifier: Apache-2.0
"""An outbound HTTP CONNECT proxy, and a plain relay whose connections can be cut."""

import base64
import contextlib
import socket
import threading

from .net import Conn, Listener, Truncated


def _pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _splice(left, right):
    left.settimeout(None)
    right.settimeout(None)
    back = threading.Thread(target=_pump, args=(right, left), daemon=True)
    back.start()
    _pump(left, right)
    back.join()


class Relay(Listener):
    """Forwards every connection to one port; drop_all() cuts them, frozen stops new ones."""

    def __init__(self, port, host="127.0.0.1"):
        self.target = (host, port)
        self.frozen = False
        super().__init__(self._serve)

    def _serve(self, conn):
        if self.frozen:
            return
        with socket.create_connection(self.target) as out:
            _splice(conn.sock, out)


class Stalling(Relay):
    """A relay that can stop reading: `up` and `down` say which way still flows. What came before the
    stall arrives after it, however much later that is."""

    def __init__(self, port):
        self.up, self.down = threading.Event(), threading.Event()
        self.flow()
        super().__init__(port)

    def flow(self):
        self.up.set()
        self.down.set()

    @staticmethod
    def _pump_if(may, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                may.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _serve(self, conn):
        with socket.create_connection(self.target) as out:
            conn.sock.settimeout(None)
            back = threading.Thread(target=self._pump_if, args=(self.down, out, conn.sock), daemon=True)
            back.start()
            self._pump_if(self.up, conn.sock, out)
            back.join()

    def close(self):
        self.flow()
        super().close()


class Hole(Listener):
    """A relay that, once it is told to, takes everything and passes nothing on."""

    def __init__(self, port):
        self.port_behind = port
        self.swallows = set()
        super().__init__(self._serve)

    def _pump(self, conn, source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if conn not in self.swallows:
                    sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self, conn):
        with socket.create_connection(("127.0.0.1", self.port_behind)) as out:
            conn.sock.settimeout(None)
            back = threading.Thread(target=self._pump, args=(conn, out, conn.sock),
                                    daemon=True)
            back.start()
            self._pump(conn, conn.sock, out)
            back.join()


class Tap(Listener):
    """Forwards every connection to one port and keeps what went each way."""

    def __init__(self, port):
        self.port_behind = port
        self.up = bytearray()
        self.down = bytearray()
        super().__init__(self._serve)

    def _serve(self, conn):
        def pump(source, sink, kept):
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    kept += data
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        with socket.create_connection(("127.0.0.1", self.port_behind)) as out:
            conn.sock.settimeout(None)
            back = threading.Thread(target=pump, args=(out, conn.sock, self.down), daemon=True)
            back.start()
            pump(conn.sock, out, self.up)
            back.join()


class ConnectProxy(Listener):
    """CONNECT to any name lands on 127.0.0.1: the proxy resolves, not the client."""

    def __init__(self, user=None, password=None, answer=None):
        self.targets = []      # "host:port" as asked for
        self.other = []        # requests that were not CONNECT
        self.denied = 0
        self.answer = answer   # a fixed response head instead of a tunnel
        self._want = None
        if user is not None:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._want = f"Basic {token}"
        super().__init__(self._serve)

    def _serve(self, conn: Conn):
        while True:
            try:
                head = conn.read_head()
            except Truncated:
                return
            if head.method != "CONNECT":
                self.other.append(head.start)
                conn.send("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                continue
            if self._want and head.get("Proxy-Authorization") != self._want:
                self.denied += 1
                conn.send("HTTP/1.1 407 Proxy Authentication Required\r\n"
                          'Proxy-Authenticate: Basic realm="e2e"\r\nContent-Length: 0\r\n\r\n')
                continue
            self.targets.append(head.target)
            if self.answer:
                conn.send(self.answer)
                return
            break
        port = int(head.target.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as out:
            conn.send("HTTP/1.1 200 Connection established\r\nVia: 1.1 e2e\r\n\r\n")
            if conn.buffer:
                out.sendall(conn.buffer)
            _splice(conn.sock, out)
