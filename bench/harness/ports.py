# SPDX-License-Identifier: Apache-2.0
"""TCP and UDP tunnels: what is measured, and by which loads."""

import json
import os
import select
import subprocess

from harness.cases import BULK_LIMIT, GIB, Case, run_load
from harness.proc import BenchError, clean_environment, free_ports
from harness.subjects import READY_TIMEOUT, TOKEN, Stack, Subject

MIB = 1 << 20

HAPROXY_TCP = """
global
    nbthread 1
    maxconn 2048
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen visitors
    bind 127.0.0.1:{port}
    server origin 127.0.0.1:{origin}
"""


class PortStack(Stack):
    """The origin c/peer.c, HAProxy in front of it (TCP alone), and the tunnel."""

    def __init__(self, directory, tools, kind, client_options=(), server_options=()):
        super().__init__(directory, tools)
        self.kind = kind
        self.client_options = list(client_options)
        self.server_options = list(server_options)

    def _start(self):
        process = self._spawn("origin", [self.tools["peer"], self.kind, "0"])
        match = process.wait_output(r"^listening: 127\.0\.0\.1:(\d+)$", READY_TIMEOUT)
        origin = int(match.group(1))
        self.subjects.append(Subject("origin", origin, None, {"origin": process}))
        ports = free_ports(3)
        if self.kind == "tcp":
            self._start_haproxy_tcp(ports[0], origin)
        self._start_port_tunnel(ports[1], ports[2], origin)
        for subject in self.subjects:
            self.check(subject)

    def _start_haproxy_tcp(self, port, origin):
        if not self.tools.get("haproxy"):
            return
        conf = os.path.join(self.directory, "haproxy.cfg")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(HAPROXY_TCP.format(port=port, origin=origin))
        process = self._spawn("haproxy", [self.tools["haproxy"], "-db", "-q", "-f", conf])
        process.wait_port(port, READY_TIMEOUT)
        self.subjects.append(Subject("haproxy", port, None, {"haproxy": process}))

    def _start_port_tunnel(self, listen, port, origin):
        if not self.tools.get("tunnel-server"):
            return
        argv = [self.tools["tunnel-server"], "--listen", f"127.0.0.1:{listen}"]
        argv += ["--domain", "localhost", "--token", TOKEN, f"--{self.kind}-ports", str(port)]
        server = self._spawn("server", argv + self.server_options, "tunnel-server")
        server.wait_output(r"^listening: http://", READY_TIMEOUT)
        argv = [self.tools["tunnel-client"], self.kind, str(origin), "--token", TOKEN, "--quiet"]
        argv += ["--server", f"ws://127.0.0.1:{listen}", "--remote-port", str(port)]
        client = self._spawn("client", argv + self.client_options, "tunnel-client")
        client.wait_output(rf"^public: {self.kind}://", READY_TIMEOUT)
        processes = {"server": server, "client": client}
        self.subjects.append(Subject("tunnel", port, None, processes))

    def check(self, subject):
        """What comes through must be what the origin says; c/visit.c looks at every answer."""
        loads = [["up", str(MIB), "0", "20"], ["down", str(MIB), "0", "20"], ["connect", "1", "0"]]
        if self.kind == "udp":
            loads = [["udp", "2", "1", "1200", "100"]]
        for load in loads:
            try:
                visit(self.tools, subject, load)
            except BenchError as error:
                raise BenchError(f"{subject.name} does not pass on {load[0]}: {error}") from error


def visit(tools, subject, load):
    """One run of c/visit.c; its result and what it cost the machine."""
    argv = [tools["visit"], load[0], str(subject.port), *load[1:]]
    output, cpu, wall = run_load(argv)
    return json.loads(output), cpu / wall


class PortCase(Case):
    """A load of c/visit.c on a PortStack."""

    kind = "tcp"

    def make_stack(self, directory, tools):
        return PortStack(directory, tools, self.kind)


class TcpBulk(PortCase):
    rate_unit = "MiB/s"
    cpu_unit = "GiB"

    def __init__(self, way, size, seconds):
        self.way = way
        self.name = f"tcp-{way}"
        self.size = size
        self.ms = int(seconds * 1000)
        self.title = f"TCP {'uploads' if way == 'up' else 'downloads'} (one connection)"

    def run(self, tools, subject):
        load = [self.way, str(self.size), str(self.ms), str(BULK_LIMIT)]
        got, busy = visit(tools, subject, load)
        if got["bytes"] != got["count"] * self.size:
            raise BenchError(f"{subject.name} moved {got['bytes']} bytes: bodies are incomplete")
        rate = got["bytes"] / MIB / got["seconds"]
        return {"rate": rate, "units": got["bytes"] / GIB, "errors": 0, "load_busy": busy}


class TcpConnect(PortCase):
    name = "tcp-connect"
    rate_unit = "connections/s"
    cpu_unit = "1,000 connections"

    def __init__(self, seconds, connections=16):
        self.ms = int(seconds * 1000)
        self.connections = connections
        self.title = f"TCP connections, a byte each ({connections} at a time)"

    def run(self, tools, subject):
        load = ["connect", str(self.connections), str(self.ms)]
        got, busy = visit(tools, subject, load)
        rate = got["count"] / got["seconds"]
        return {"rate": rate, "units": got["count"] / 1000, "errors": 0, "load_busy": busy}


class UdpEcho(PortCase):
    kind = "udp"
    rate_unit = "datagrams/s"
    cpu_unit = "100,000 datagrams"

    def __init__(self, size, seconds, flows=8, window=16):
        self.name = f"udp-{size}"
        self.size = size
        self.ms = int(seconds * 1000)
        self.flows = flows
        self.window = window
        self.title = f"UDP datagrams of {size} bytes, there and back ({flows} flows)"

    def run(self, tools, subject):
        load = ["udp", str(self.flows), str(self.window), str(self.size), str(self.ms)]
        got, busy = visit(tools, subject, load)
        return {
            "rate": got["count"] / got["seconds"],
            "units": got["count"] / 100000,
            "errors": 0,
            "lost": got["lost"],
            "load_busy": busy,
        }


def _await_ready(process):
    """True when it printed "ready", False when it ended or took too long."""
    if not select.select([process.stdout], [], [], BULK_LIMIT)[0]:
        return False
    return process.stdout.readline() == "ready\n"


def measure_flows(directory, tools, count):
    """Resident memory that this many idle flows cost each side; None without the tunnel."""
    options = ["--udp-flows", str(count + 10), "--udp-flows-per-source", str(count + 10)]
    with PortStack(directory, tools, "udp", ["--idle-timeout", "600"], options) as stack:
        tunnel = next((s for s in stack.subjects if s.name == "tunnel"), None)
        if not tunnel:
            return None
        before = {role: p.memory("VmRSS") for role, p in tunnel.processes.items()}
        argv = [tools["visit"], "flows", str(tunnel.port), str(count)]
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            text=True,
        ) as visitor:
            try:
                ready = _await_ready(visitor)
                for process in tunnel.processes.values():
                    process.check_alive()
                if not ready:
                    raise BenchError(f"{count} flows could not be opened through the tunnel")
                after = {role: p.memory("VmRSS") for role, p in tunnel.processes.items()}
            finally:
                visitor.kill()
    bytes_each = {role: (after[role] - before[role]) / count for role in before}
    return {"count": count, "bytes_per_flow": bytes_each}
