# SPDX-License-Identifier: Apache-2.0
"""What one request and one MiB cost each process: system calls, allocations, copies, instructions."""

import glob
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

from harness.proc import BenchError, clean_environment
from harness.subjects import Stack, make_root

MIB = 1 << 20
COUNTERS = ("allocs", "alloc_bytes", "frees", "copies", "copy_bytes", "in_bytes", "out_bytes")
ROLES = ("haproxy", "server", "client")
TOOL_TIMEOUT = 60
FUNCTIONS_SHOWN = 6


class Load:
    """An exact amount of work: `amount` requests or MiB."""

    def __init__(self, name, title, amount, upload=False, connections=0):
        self.name = name
        self.title = title
        self.amount = amount
        self.upload = upload
        self.connections = connections

    def scaled(self, part):
        amount = max(int(self.amount * part), self.connections, 1)
        return Load(self.name, self.title, amount, self.upload, self.connections)

    def arguments(self, subject):
        target = [str(subject.port), subject.host]
        if self.connections:
            return ["small", *target, "/small", str(self.amount), str(self.connections), "hold"]
        if self.upload:
            return ["up", *target, "/sink", str(self.amount * MIB), "0", "600", "hold"]
        return ["down", *target, f"/big{self.amount}", "0", "600", "hold"]


class HeldLoad:
    """A load generator that has connected and warmed up; run() does the work that counts."""

    def __init__(self, load, tools, subject, directory):
        self.what = f"{load.name} through {subject.name}"
        self.errors = os.path.join(directory, "load-errors")
        with open(self.errors, "wb") as errors:
            self.popen = subprocess.Popen(
                [tools["load"], *load.arguments(subject)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_environment(),
            )

    def __enter__(self):
        try:
            self._line()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.communicate()

    def _line(self):
        line = self.popen.stdout.readline()
        if not line.endswith(b"\n"):
            with open(self.errors, encoding="utf-8", errors="replace") as file:
                raise BenchError(f"{self.what}: {file.read().strip() or 'ended early'}")

    def run(self):
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        self._line()


def make_loads(quick):
    requests, mib = (500, 16) if quick else (5000, 64)
    return [
        Load("small1", "One small request (200-byte body), 1 connection", requests, connections=1),
        Load("small50", "One small request, 50 connections", requests, connections=50),
        Load("down", "One MiB down (one large body)", mib),
        Load("up", "One MiB up (one large body)", mib, upload=True),
    ]


def make_files(directory, loads):
    """The origin's files, with a body of each size that a download asks for."""
    root = make_root(directory, MIB)
    for load in loads:
        if load.connections or load.upload:
            continue
        with open(os.path.join(root, f"big{load.amount}"), "wb") as file:
            for _ in range(load.amount):
                file.write(os.urandom(MIB))
    return root


class SystemCalls:
    """strace -c -f, attached to each process while the load runs."""

    name = "strace"
    scale = 1.0

    def __init__(self, directory, _tools, _out):
        self.directory = directory

    def wrap(self, _role, argv):
        return argv, {}

    def measure(self, processes, _load, work):
        tracers = {}
        try:
            for role, process in processes.items():
                out = os.path.join(self.directory, f"strace-{role}")
                tracers[role] = (self._attach(process.pid, out), out)
            work()
        finally:
            for tracer, _ in tracers.values():
                tracer.send_signal(signal.SIGINT)
                tracer.wait(TOOL_TIMEOUT)
        return {role: self._parse(out) for role, (_, out) in tracers.items()}

    @staticmethod
    def _attach(pid, out):
        argv = ["strace", "-f", "-c", "-U", "calls,name", "-o", out, "-p", str(pid)]
        tracer = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        # "Process N attached" is the only thing it says before the end.
        if b"attached" not in tracer.stderr.readline():
            tracer.kill()
            raise BenchError(f"strace cannot attach to process {pid}: is ptrace allowed here?")
        return tracer

    @staticmethod
    def _parse(out):
        calls = {}
        with open(out, encoding="ascii", errors="replace") as file:
            for line in file:
                match = re.match(r"\s*(\d+) (\w+)$", line)
                if match and match.group(2) != "total":
                    calls[match.group(2)] = int(match.group(1))
        return {"calls": sum(calls.values()), "by_call": calls}


class Counts:
    """The counting library in LD_PRELOAD."""

    name = "count"
    scale = 1.0

    def __init__(self, directory, tools, _out):
        self.directory = directory
        self.library = tools["count.so"]

    def _base(self, role):
        return os.path.join(self.directory, f"count-{role}")

    def wrap(self, role, argv):
        if role not in ROLES:
            return argv, {}
        return argv, {"LD_PRELOAD": self.library, "BENCH_COUNT_FILE": self._base(role)}

    def _read(self, role):
        totals = [0] * len(COUNTERS)
        files = glob.glob(glob.escape(self._base(role)) + ".*")
        if not files:
            raise BenchError(f"{role} did not load the counting library: is it linked statically?")
        for path in files:
            with open(path, "rb") as file:
                numbers = struct.unpack(f"={len(COUNTERS)}Q", file.read(8 * len(COUNTERS)))
            totals = [a + b for a, b in zip(totals, numbers)]
        return totals

    def measure(self, processes, _load, work):
        before = {role: self._read(role) for role in processes}
        work()
        time.sleep(0.2)  # Let the last frees and acknowledgements happen.
        return {
            role: dict(zip(COUNTERS, (a - b for a, b in zip(self._read(role), before[role]))))
            for role in processes
        }


class Instructions:
    """valgrind --tool=callgrind; its profiles are kept for callgrind_annotate."""

    name = "callgrind"
    scale = 0.1

    def __init__(self, directory, _tools, out):
        self.prefix = os.path.join(directory, "vgdb")
        self.directory = directory
        self.out = out
        self.dumps = {}

    def _profile(self, role):
        return os.path.join(self.directory, f"callgrind-{role}.out")

    def wrap(self, role, argv):
        if role not in ROLES:
            return argv, {}
        for old in glob.glob(glob.escape(self._profile(role)) + "*"):
            os.unlink(old)
        self.dumps[role] = 0
        tool = ["valgrind", "-q", "--tool=callgrind", f"--vgdb-prefix={self.prefix}"]
        return tool + [f"--callgrind-out-file={self._profile(role)}", *argv], {}

    def _control(self, process, *words):
        argv = ["callgrind_control", f"--vgdb-prefix={self.prefix}", *words, str(process.pid)]
        try:
            result = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                timeout=TOOL_TIMEOUT,
                check=False,
                text=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"callgrind_control: {error}") from error
        if result.returncode != 0 or "OK" not in result.stdout:
            raise BenchError(f"callgrind_control {words[0]}: {result.stdout.strip()}")

    def measure(self, processes, load, work):
        for process in processes.values():
            self._control(process, "--zero")
        work()
        found = {}
        for role, process in processes.items():
            self._control(process, "--dump")
            self.dumps[role] += 1
            dump = f"{self._profile(role)}.{self.dumps[role]}"
            kept = os.path.join(self.out, f"callgrind.{role}.{load.name}")
            shutil.copyfile(dump, kept)
            total = self._total(kept)
            found[role] = {"instructions": total, "by_function": self._functions(kept, total)}
        return found

    @staticmethod
    def _functions(path, total):
        """Instructions by function, the most expensive ones."""
        argv = ["callgrind_annotate", "--threshold=100", "--show-percs=no", "--auto=no", path]
        result = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
        functions = {}
        for line in result.stdout.splitlines():
            match = re.match(r"\s*([\d,]+)\s+\S*?:([a-zA-Z_]\w*)(?:'\d+)? \[", line)
            count = int(match.group(1).replace(",", "")) if match else total
            # What was on the stack when counting began is charged with everything below it.
            if count < 0.99 * total:
                functions[match.group(2)] = functions.get(match.group(2), 0) + count
        ranked = sorted(functions.items(), key=lambda item: -item[1])
        return dict(ranked[:FUNCTIONS_SHOWN])

    @staticmethod
    def _total(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                match = re.match(r"(?:summary|totals): (\d+)", line)
                if match:
                    return int(match.group(1))
        raise BenchError(f"no total in {path}")


METHODS = (SystemCalls, Counts, Instructions)


def _one_stack(method, loads, upload, directory, tools, say):
    """Measures the loads that share an origin; {load: {role: figures per unit}}."""
    os.makedirs(directory)
    root = None if upload else make_files(directory, loads)
    found = {}
    with Stack(directory, tools, upload=upload, root=root, wrap=method.wrap) as stack:
        for subject in stack.subjects:
            processes = {r: p for r, p in subject.processes.items() if r in ROLES}
            if not processes:
                continue
            for load in loads:
                say(f"{method.name}: {load.name}, {subject.name}")
                with HeldLoad(load, tools, subject, directory) as held:
                    totals = method.measure(processes, load, held.run)
                for role, figures in totals.items():
                    found.setdefault(load.name, {})[role] = per_unit(figures, load.amount)
    return found


def per_unit(figures, amount):
    return {
        key: {name: count / amount for name, count in value.items()}
        if isinstance(value, dict)
        else value / amount
        for key, value in figures.items()
    }


def measure_all(loads, tools, folder, out, say):
    """{load: {role: {figure: value per unit}}} from all three methods."""
    found = {load.name: {} for load in loads}
    for make in METHODS:
        for upload in (False, True):
            own = [load.scaled(make.scale) for load in loads if load.upload == upload]
            if not own:
                continue
            directory = os.path.join(folder, f"{make.name}-{'up' if upload else 'down'}")
            method = make(directory, tools, out)
            for name, roles in _one_stack(method, own, upload, directory, tools, say).items():
                for role, figures in roles.items():
                    found[name].setdefault(role, {}).update(figures)
            shutil.rmtree(directory, ignore_errors=True)
    return found


def _number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _calls(by_call):
    """The system calls that make up almost all, most frequent first."""
    ranked = sorted(by_call.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:.2f}" for name, count in ranked if count >= 0.01)


def _functions(figures):
    """The functions that most instructions are spent in, by name, as shares."""
    shares = ((name, n / figures["instructions"]) for name, n in figures["by_function"].items())
    return ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.02)


ROWS = (
    ("system calls", "calls"),
    ("bytes read from the kernel", "in_bytes"),
    ("bytes written to the kernel", "out_bytes"),
    ("memcpy and memmove calls", "copies"),
    ("bytes they copied", "copy_bytes"),
    ("allocations", "allocs"),
    ("bytes allocated", "alloc_bytes"),
    ("frees", "frees"),
    ("instructions", "instructions"),
)
TITLES = {"haproxy": "HAProxy", "server": "tunnel-server", "client": "tunnel-client"}


def markdown(loads, found):
    lines = []
    for load in loads:
        roles = [role for role in ROLES if role in found[load.name]]
        figures = found[load.name]
        lines += [f"## {load.title}", ""]
        lines.append("| | " + " | ".join(TITLES[role] for role in roles) + " |")
        lines.append("|---" + "|---:" * len(roles) + "|")
        for title, key in ROWS:
            cells = [_number(figures[role][key]) for role in roles]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        lines.append("")
        for role in roles:
            lines.append(f"- {TITLES[role]}, system calls: {_calls(figures[role]['by_call'])}")
        for role in roles:
            lines.append(f"- {TITLES[role]}, instructions: {_functions(figures[role])}")
        lines.append("")
    return "\n".join(lines)


def write(loads, found, out):
    text = markdown(loads, found)
    with open(os.path.join(out, "cost.md"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(out, "cost.json"), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=2)
        file.write("\n")
    return text
