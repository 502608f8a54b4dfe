# SPDX-License-Identifier: Apache-2.0
"""Thousands of clients: what an idle one costs the server, and what it does to others when all come
at once."""

import os
import re
import resource
import subprocess
import time

from harness.cases import spread
from harness.proc import BenchError, Process, clean_environment
from harness.subjects import NGINX_COMMON, NGINX_ORIGIN, READY_TIMEOUT, TOKEN, make_root
from harness.talk import Talker, probe

MIB = 1 << 20
AT_ONCE = 64  # handshakes, where how fast they come is not what is measured
SPARE = 200  # descriptors of a process for other things
SETTLE_S = 1
LIMIT_S = 240


def _certificate(directory):
    key, cert = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    argv += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
    try:
        subprocess.run(argv, check=True, capture_output=True, env=clean_environment())
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"no certificate: {error}") from error
    return ["--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key]


def _server(directory, tools):
    """A server with a plain and a TLS listener; the process and both ports."""
    argv = [tools["tunnel-server"], "--listen", "127.0.0.1:0", *_certificate(directory)]
    server = Process("server", [*argv, "--domain", "localhost", "--token", TOKEN], directory)
    ports = [
        int(server.wait_output(rf"^listening: {scheme}://\S*:(\d+)$", READY_TIMEOUT).group(1))
        for scheme in ("http", "https")
    ]
    return server, dict(zip(("plain", "tls"), ports))


def _swarm(tools, port, count, at_once, kind):
    argv = [tools["swarm"], str(port), "localhost", TOKEN, str(count), str(at_once), kind]
    return Talker([*argv, str(LIMIT_S)])


def _memory(process):
    """Resident bytes, and those of them that nobody else has (Pss counts shared ones in parts)."""
    with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as file:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.MULTILINE))
    return {key: int(found[key]) * 1024 for key in ("Rss", "Pss", "Anonymous")}


def _descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def _fitting(server, wanted, each):
    """As many clients as the server has descriptors for."""
    limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
    return min(wanted, int((limit - SPARE) / each))


def _idle(directory, tools, kind, wanted):
    server, ports = _server(directory, tools)
    try:
        few = 100
        with _swarm(tools, ports[kind], few, AT_ONCE, kind) as swarm:
            before = _descriptors(server)
            swarm.hear(LIMIT_S)
            count = _fitting(server, wanted, (_descriptors(server) - before) / few)
    finally:
        server.stop()
    server, ports = _server(directory, tools)
    try:
        time.sleep(SETTLE_S)
        before, cpu = _memory(server), server.cpu_seconds()
        with _swarm(tools, ports[kind], count, AT_ONCE, kind) as swarm:
            joined = swarm.hear(LIMIT_S)
            cpu = server.cpu_seconds() - cpu
            time.sleep(SETTLE_S)
            after = _memory(server)
            kept = swarm.ask()
            server.check_alive()
        if kept["lost"] or joined["joined"] != count:
            raise BenchError(f"{kept['lost']} of {count} idle clients were lost")
    finally:
        server.stop()
    return {
        "kind": kind,
        "clients": count,
        "bytes_each": {key: (after[key] - before[key]) / count for key in before},
        "handshake_cpu_ms": cpu * 1000 / count,
    }


def measure_idle(directory, tools, settings, say):
    rows = []
    for kind in ("plain", "tls"):
        folder = os.path.join(directory, kind)
        os.makedirs(folder)
        rows.append(_idle(folder, tools, kind, settings["idle_clients"]))
        each = rows[-1]["bytes_each"]["Rss"] / 1024
        say(f"idle: {rows[-1]['clients']} {kind} clients, {each:.1f} KiB each")
    return {"rows": rows}


# --- a storm -------------------------------------------------------------------------------------


class Live:
    """A server with a client whose tunnel is visited all the time."""

    def __init__(self, directory, tools):
        self.directory = directory
        self.tools = tools
        self.processes = []
        self.ports = {}

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        while self.processes:
            self.processes.pop().stop()

    def _start(self):
        root = make_root(self.directory, MIB)
        conf = os.path.join(self.directory, "nginx.conf")
        socket = os.path.join(self.directory, "origin")
        body = NGINX_ORIGIN.replace("127.0.0.1:{port}", "unix:" + socket).format(root=root)
        user = "user root;" if os.geteuid() == 0 else ""
        with open(conf, "w", encoding="utf-8") as file:
            file.write(NGINX_COMMON.format(dir=self.directory, user=user, master="", body=body))
        argv = [self.tools["nginx"], "-p", self.directory, "-e", self.directory + "/error.log"]
        argv += ["-c", conf, "-g", "daemon off;"]
        self.processes.append(Process("nginx", argv, self.directory))
        server, self.ports = _server(self.directory, self.tools)
        self.processes.append(server)
        argv = [self.tools["tunnel-client"], "http", "unix:" + socket, "--token", TOKEN, "--quiet"]
        argv += ["--server", f"ws://127.0.0.1:{self.ports['plain']}", "--subdomain", "bench"]
        client = Process("client", argv, self.directory)
        self.processes.append(client)
        client.wait_output(r"public: https?://", READY_TIMEOUT)


def _storm(directory, tools, kind, count):
    with Live(directory, tools) as live:
        with probe(tools, live.ports["plain"], "bench.localhost") as asker:
            time.sleep(0.3)
            asker.ask()
            time.sleep(2)
            before = asker.ask()
            with _swarm(tools, live.ports[kind], count, count, kind) as swarm:
                joined = swarm.hear(LIMIT_S)
                during = asker.ask()
                for process in live.processes:
                    process.check_alive()
    return {"kind": kind, "clients": count, "before": before, "during": during, "joined": joined}


def measure_storm(directory, tools, settings, say):
    rows = []
    for kind in ("plain", "tls"):
        samples = []
        for index in range(settings["storm_rounds"]):
            folder = os.path.join(directory, f"{kind}{index}")
            os.makedirs(folder)
            samples.append(_storm(folder, tools, kind, settings["storm_clients"]))
            last = samples[-1]
            say(
                f"storm {kind}: {last['clients']} clients in {last['joined']['seconds']:.1f} s, "
                f"p99 {last['before']['p99_ms']} -> {last['during']['p99_ms']} ms"
            )
        rows.append(
            {
                "kind": kind,
                "clients": settings["storm_clients"],
                "seconds": spread([s["joined"]["seconds"] for s in samples]),
                "before_p99_ms": spread([s["before"]["p99_ms"] for s in samples]),
                "during_p99_ms": spread([s["during"]["p99_ms"] for s in samples]),
                "during_max_ms": spread([s["during"]["max_ms"] for s in samples]),
                "again": sum(s["joined"]["refused"] + s["joined"]["cut"] for s in samples),
                "samples": samples,
            }
        )
    return {"rows": rows}
