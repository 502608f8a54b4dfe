# SPDX-License-Identifier: Apache-2.0
"""How long small requests take alone, and beside ten downloads through the same client."""

import os
import shutil
import subprocess
import time

from harness.cases import spread
from harness.path import FAR, NEAR, FarTunnel
from harness.proc import BenchError, clean_environment
from harness.subjects import NGINX_COMMON, NGINX_ORIGIN, READY_TIMEOUT, TOKEN, Stack, make_root
from harness.talk import probe

STREAMS = 10
MIB = 1 << 20
DELAY_MS, RATE_MBIT = 10, 100


class Downloads:
    """Ten of them, one body after another, until the end of the block."""

    def __init__(self, tools, place, host, prefix=()):
        self.argv = [*prefix, tools["load"], "down", str(place), host, "/big", "60000", "120"]
        self.running = []

    def __enter__(self):
        for _ in range(STREAMS):
            self.running.append(
                subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=clean_environment(),
                    text=True,
                )
            )
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.communicate()

    def check(self):
        for process in self.running:
            if process.poll() is not None:
                raise BenchError(f"a download ended: {process.stdout.read().strip()}")


def _pair(tools, place, host, seconds, prefix=()):
    """p99 alone, and beside the downloads."""
    with probe(tools, place, host, prefix=prefix) as asker:
        time.sleep(0.2)
        asker.ask()
        time.sleep(seconds)
        alone = asker.ask()
        with Downloads(tools, place, host, prefix) as downloads:
            time.sleep(min(seconds, 1.5))
            asker.ask()
            time.sleep(seconds)
            beside = asker.ask()
            downloads.check()
    return alone, beside


def _say_pair(say, what, pair):
    say(f"beside {what}: p99 {pair[0]['p99_ms']} -> {pair[1]['p99_ms']} ms")


def _row(path, name, samples):
    return {
        "path": path,
        "subject": name,
        "alone_p99_ms": spread([alone["p99_ms"] for alone, _ in samples]),
        "beside_p99_ms": spread([beside["p99_ms"] for _, beside in samples]),
        "alone_p50_ms": spread([alone["p50_ms"] for alone, _ in samples]),
        "beside_p50_ms": spread([beside["p50_ms"] for _, beside in samples]),
        "ratio": spread([beside["p99_ms"] / alone["p99_ms"] for alone, beside in samples]),
    }


def _on_loopback(directory, tools, settings, say):
    root = make_root(directory, 64 * MIB)
    rows = []
    with Stack(directory, tools, root=root) as stack:
        samples = {subject.name: [] for subject in stack.subjects}
        for _ in range(settings["beside_rounds"]):
            for subject in stack.subjects:
                pair = _pair(tools, subject.port, subject.host, settings["beside_seconds"])
                samples[subject.name].append(pair)
                _say_pair(say, f"loopback {subject.name}", pair)
        rows = [_row("loopback", name, own) for name, own in samples.items()]
    return rows


class FarWeb(FarTunnel):
    """The same over a path of its own, with nginx as the origin of an http tunnel."""

    PORT = 8000

    def _start(self):
        near, far = self.wan.address
        root = make_root(self.directory, 64 * MIB)
        conf = os.path.join(self.directory, "nginx.conf")
        body = NGINX_ORIGIN.format(port=self.PORT, root=root).replace("127.0.0.1:", "")
        user = "user root;" if os.geteuid() == 0 else ""
        with open(conf, "w", encoding="utf-8") as file:
            file.write(NGINX_COMMON.format(dir=self.directory, user=user, master="", body=body))
        argv = [self.tools["nginx"], "-p", self.directory, "-e", self.directory + "/error.log"]
        self.spawn(NEAR, "nginx", [*argv, "-c", conf, "-g", "daemon off;"])
        self.direct = f"{near}:{self.PORT}"
        argv = [self.tools["tunnel-server"], "--listen", "0.0.0.0:8080", "--domain", "localhost"]
        self.server = self.spawn(FAR, "server", [*argv, "--token", TOKEN])
        self.server.wait_output(r"^listening: http://", READY_TIMEOUT)
        argv = [self.tools["tunnel-client"], "http", str(self.PORT), "--token", TOKEN, "--quiet"]
        argv += ["--server", f"ws://{far}:8080", "--insecure", "--subdomain", "bench"]
        self.spawn(NEAR, "client", argv).wait_output(r"public: http://", READY_TIMEOUT)


def _on_a_line(directory, tools, settings, say):
    commands = [f"delay {DELAY_MS}", f"rate {RATE_MBIT}", "buffer 256"]
    with FarWeb(directory, tools, *commands) as far:
        places = {"origin": far.direct, "tunnel": "127.0.0.1:8080"}
        samples = {name: [] for name in places}
        for _ in range(settings["beside_rounds"]):
            for name, place in places.items():
                seconds = settings["beside_seconds"] + 1
                pair = _pair(tools, place, "bench.localhost", seconds, far.wan.enter(FAR, []))
                samples[name].append(pair)
                _say_pair(say, f"line {name}", pair)
    return [_row(f"{RATE_MBIT} Mbit/s, {2 * DELAY_MS} ms", name, s) for name, s in samples.items()]


def measure_beside(directory, tools, settings, say):
    rows = []
    for name, part in (("loopback", _on_loopback), ("line", _on_a_line)):
        folder = os.path.join(directory, name)
        os.makedirs(folder)
        rows += part(folder, tools, settings, say)
        shutil.rmtree(folder, ignore_errors=True)
    return {"rows": rows, "streams": STREAMS}
