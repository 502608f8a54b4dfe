# SPDX-License-Identifier: Apache-2.0
"""Starts, watches and stops processes, and reads what they cost from /proc."""

import ctypes
import os
import re
import shlex
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that ends the run, said in one line."""


def free_ports(count):
    """Ports of 127.0.0.1 that are free now, all different."""
    sockets = []
    try:
        for _ in range(count):
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            sockets.append(sock)
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def clean_environment(extra=None):
    """The environment without what could steer the subjects: proxies and TUNNEL_ settings."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("TUNNEL_") and not key.lower().endswith("_proxy")
    }
    env.update(extra or {})
    return env


def _die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _stat_fields(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _children(pid):
    """All living descendants of a process."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                for child in file.read().split():
                    found.append(int(child))
                    found.extend(_children(int(child)))
    except OSError:
        pass
    return found


class Process:
    """One program under the benchmark's care, in a process group of its own."""

    def __init__(self, name, argv, directory, env=None):
        self.name = name
        self.log = os.path.join(directory, name.replace(" ", "-") + ".log")
        self.argv = argv
        with open(self.log, "wb") as log:
            try:
                self.popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env=clean_environment(env),
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise BenchError(f"cannot start {name}: {error}") from error
        self.pid = self.popen.pid

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def check_alive(self):
        if self.popen.poll() is not None:
            lines = self.output().strip().splitlines()
            last = lines[-1] if lines else "no output"
            raise BenchError(f"{self.name} ended with status {self.popen.returncode}: {last}")

    def wait_output(self, pattern, timeout):
        """Waits until the output matches; returns the match."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.output(), re.MULTILINE)
            if match:
                return match
            self.check_alive()
            if time.monotonic() > deadline:
                command = " ".join(shlex.quote(word) for word in self.argv)
                raise BenchError(
                    f"{self.name} did not print '{pattern}' within {timeout} s ({command})"
                )
            time.sleep(0.01)

    def wait_port(self, port, timeout):
        """Waits until something accepts on 127.0.0.1:port."""
        deadline = time.monotonic() + timeout
        while True:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"{self.name} does not listen on port {port}") from None
                time.sleep(0.01)

    def stop(self, grace=5):
        """SIGTERM, then SIGKILL for the whole group; returns the exit status."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            pass
        return self.popen.wait()

    def cpu_seconds(self):
        """User and system time of the process and its children, living and reaped."""
        ticks = 0
        for pid in [self.pid] + _children(self.pid):
            try:
                fields = _stat_fields(pid)
            except OSError:
                continue
            ticks += sum(int(value) for value in fields[11:15])
        return ticks / TICKS

    def reset_peak(self):
        """Sets the peak back to what is resident now."""
        for pid in [self.pid] + _children(self.pid):
            try:
                with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
                    file.write("5")
            except OSError:
                pass  # Then the peak is that of the process's whole life.

    def memory(self, key):
        """VmHWM or VmRSS in bytes, summed over the process and its living children."""
        total = 0
        for pid in [self.pid] + _children(self.pid):
            try:
                with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                    match = re.search(rf"^{key}:\s+(\d+) kB", file.read(), re.MULTILINE)
            except OSError:
                continue
            if match:
                total += int(match.group(1)) * 1024
        return total
