# SPDX-License-Identifier: Apache-2.0
"""Processes with captured output, and what the kernel says about them."""

import os
import re
import signal
import subprocess
import threading
import time

from . import HANG

_SANITIZER = re.compile(
    r"AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|ThreadSanitizer|: runtime error: ")
_DROPPED = re.compile(r"^(TUNNEL_.*|PYTEST_.*|(https?|all|no|ftp)_proxy)$", re.IGNORECASE)


def clean_env(**extra):
    """The caller's environment without what would steer the programs under test."""
    env = {k: v for k, v in os.environ.items() if not _DROPPED.match(k)}
    env["LC_ALL"] = "C.UTF-8"
    env.update({k: str(v) for k, v in extra.items() if v is not None})
    return env


class Proc:
    """One child in a session of its own; it dies with us whatever happens."""

    def __init__(self, argv, *, env=None, cwd=None, name=None, soft_files=None):
        self.argv = [str(a) for a in argv]
        self.name = name or os.path.basename(self.argv[0])
        self.lines = []  # (stream, text)
        self._changed = threading.Condition()
        self._expected_signal = None
        wrap = ["setpriv", "--pdeathsig", "KILL"]
        if soft_files:
            wrap = ["prlimit", f"--nofile={soft_files}:"] + wrap
        self.popen = subprocess.Popen(
            wrap + self.argv, env=env if env is not None else clean_env(), cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
        self._readers = [
            threading.Thread(target=self._read, args=(kind, pipe), daemon=True)
            for kind, pipe in (("out", self.popen.stdout), ("err", self.popen.stderr))]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self):
        return self.popen.pid

    def _read(self, kind, pipe):
        with pipe:
            for raw in iter(pipe.readline, b""):
                with self._changed:
                    self.lines.append((kind, raw.decode("utf-8", "replace").rstrip("\r\n")))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def text(self, kind=None):
        with self._changed:
            return "\n".join(t for k, t in self.lines if kind in (None, k))

    def out(self):
        return [t for k, t in list(self.lines) if k == "out"]

    def err(self):
        return [t for k, t in list(self.lines) if k == "err"]

    def transcript(self):
        state = self.popen.poll()
        head = f"--- {self.name} (pid {self.pid}, {'alive' if state is None else f'exit {state}'})"
        return "\n".join([head] + [f"{k}| {t}" for k, t in list(self.lines)])

    def wait_line(self, pattern, *, kind=None, timeout=None, count=1):
        """The count-th line that matches pattern; fails if the process ends or hangs first."""
        want = re.compile(pattern)
        deadline = time.monotonic() + (timeout or HANG)
        while True:
            with self._changed:
                found = (want.search(t) for k, t in self.lines if kind in (None, k))
                hits = [m for m in found if m]
                if len(hits) >= count:
                    return hits[count - 1]
                ended = self.popen.poll() is not None and not any(
                    r.is_alive() for r in self._readers)
                if not ended and time.monotonic() < deadline:
                    self._changed.wait(0.1)
                    continue
            why = "ended" if ended else "said nothing of it"
            raise AssertionError(f"{self.name} {why}: no line /{pattern}/\n{self.transcript()}")

    def alive(self):
        return self.popen.poll() is None

    def wait(self, timeout=None):
        """The exit code, with all output read; a process that stays is a failure."""
        try:
            code = self.popen.wait(timeout or HANG)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not exit\n{self.transcript()}") from None
        for reader in self._readers:
            reader.join(HANG)
        return code

    def deliver(self, number):
        if number == signal.SIGKILL:
            self._expected_signal = number
        os.kill(self.pid, number)

    def stop(self, number=signal.SIGTERM, patience=None):
        """Asks to stop and returns the exit code. patience: seconds after which it insists."""
        if self.alive():
            os.kill(self.pid, number)
        if patience:
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                os.kill(self.pid, number)
        return self.wait()

    def kill(self):
        """Ends the process and whatever it started."""
        if self.alive():
            self._expected_signal = signal.SIGKILL
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.popen.wait()
        for reader in self._readers:
            reader.join(5)

    def verdict(self):
        """What went wrong with it that no test asked for, or None."""
        code = self.popen.poll()
        report = [t for _, t in list(self.lines) if _SANITIZER.search(t)]
        if report:
            return f"{self.name}: {report[0]}\n{self.transcript()}"
        if code is not None and code < 0 and -code != self._expected_signal:
            return f"{self.name} died of signal {-code}\n{self.transcript()}"
        return None

    # -- what the kernel says ---------------------------------------------------------------

    def _status(self, field):
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field} for {self.name}")

    def rss(self):
        return self._status("VmRSS")

    def peak_rss(self):
        return self._status("VmHWM")

    def reset_peak(self):
        with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_ticks(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])


def run(argv, *, env=None, timeout=None, check=False, **kw):
    """subprocess.run with captured bytes, a clean environment and a hang limit."""
    done = subprocess.run([str(a) for a in argv], env=env if env is not None else clean_env(),
                          stdin=subprocess.DEVNULL if "input" not in kw else None,
                          stdout=kw.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          timeout=timeout or HANG, check=False, **kw)
    if check and done.returncode:
        raise AssertionError(f"{argv[0]} exit {done.returncode}: "
                             f"{done.stderr.decode('utf-8', 'replace')}")
    return done
