# SPDX-License-Identifier: Apache-2.0
"""The three things that are measured, and the interleaved rounds around them."""

import json
import os
import statistics
import subprocess
import time

from harness.build import HERE
from harness.proc import BenchError, clean_environment

GIB = 1 << 30
BULK_LIMIT = 120


def run_load(argv):
    """Runs a load generator to its end; returns its output, CPU seconds and wall seconds."""
    before = os.times()
    start = time.monotonic()
    try:
        result = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            timeout=BULK_LIMIT + 60,
            check=False,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{os.path.basename(argv[0])}: {error}") from error
    wall = time.monotonic() - start
    after = os.times()
    if result.returncode != 0:
        lines = result.stdout.strip().splitlines() or ["no output"]
        raise BenchError(lines[-1])
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return result.stdout, cpu, wall


class Case:
    """One kind of load. rate() of a sample is in `rate_unit`, its CPU is told per `cpu_unit`."""

    name = title = rate_unit = cpu_unit = ""
    upload = False
    kind = None  # "tcp" or "udp": a case of harness/ports.py

    def run(self, tools, subject):
        """Loads a subject once: {rate, units, errors, load_busy, ...}."""
        raise NotImplementedError


class Small(Case):
    name = "small"
    rate_unit = "requests/s"
    cpu_unit = "1,000 requests"

    def __init__(self, seconds, connections=50):
        self.seconds = seconds
        self.connections = connections
        self.title = f"Small requests (200-byte body, {connections} connections, keep-alive)"

    def run(self, tools, subject):
        argv = [tools["wrk"], "-t1", f"-c{self.connections}", f"-d{self.seconds}s", "--timeout=10s"]
        argv += ["-s", os.path.join(HERE, "wrk.lua"), "-H", f"Host: {subject.host}"]
        output, cpu, wall = run_load(argv + [f"http://127.0.0.1:{subject.port}/small"])
        lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
        if not lines:
            raise BenchError(f"wrk printed no result: {output.strip()}")
        result = json.loads(lines[-1][len("RESULT ") :])
        kinds = ("connect", "read", "write", "status", "timeout")
        if result["requests"] == 0:
            raise BenchError(f"not one request to {subject.name} was answered")
        return {
            "rate": result["requests"] / (result["us"] / 1e6),
            "units": result["requests"] / 1000,
            "p50_ms": result["p50"] / 1000,
            "p99_ms": result["p99"] / 1000,
            "errors": sum(result[kind] for kind in kinds),
            "load_busy": cpu / wall,
        }


class Bulk(Case):
    rate_unit = "MiB/s"
    cpu_unit = "GiB"

    def __init__(self, size, seconds):
        self.size = size
        self.ms = int(seconds * 1000)
        way = "uploads" if self.upload else "downloads"
        self.title = f"Large {way} ({size >> 20} MiB bodies, one connection)"

    def arguments(self):
        raise NotImplementedError

    def run(self, tools, subject):
        way, path, size = self.arguments()
        argv = [tools["load"], way, str(subject.port), subject.host, path, *size]
        output, cpu, wall = run_load(argv + [str(self.ms), str(BULK_LIMIT)])
        result = json.loads(output)
        if result["bytes"] != result["count"] * self.size:
            raise BenchError(f"{subject.name} moved {result['bytes']} bytes: bodies are incomplete")
        return {
            "rate": result["bytes"] / (1 << 20) / result["seconds"],
            "units": result["bytes"] / GIB,
            "errors": 0,
            "load_busy": cpu / wall,
        }


class Down(Bulk):
    name = "down"

    def arguments(self):
        return "down", "/big", []


class Up(Bulk):
    name = "up"
    upload = True

    def arguments(self):
        return "up", "/sink", [str(self.size)]


def measure(case, tools, subject):
    """One sample of one subject, with what it cost each of its processes."""
    for process in subject.processes.values():
        process.check_alive()
        process.reset_peak()
    before = {role: process.cpu_seconds() for role, process in subject.processes.items()}
    try:
        sample = case.run(tools, subject)
    except BenchError as error:
        for process in subject.processes.values():
            process.check_alive()
        raise BenchError(f"{case.name} through {subject.name}: {error}") from error
    sample["cpu_s"] = {}
    sample["peak_bytes"] = {}
    for role, process in subject.processes.items():
        process.check_alive()
        sample["cpu_s"][role] = process.cpu_seconds() - before[role]
        sample["peak_bytes"][role] = process.memory("VmHWM")
    return sample


def run_rounds(case, stack, rounds, warm_up, say):
    """Interleaved rounds; returns {subject: [sample of round 1, ...]} and memory at the start."""
    samples = {subject.name: [] for subject in stack.subjects}
    start = {
        subject.name: {role: p.memory("VmRSS") for role, p in subject.processes.items()}
        for subject in stack.subjects
    }
    for index in range(-1 if warm_up else 0, rounds):
        for subject in stack.subjects:
            sample = measure(case, stack.tools, subject)
            label = "warm-up" if index < 0 else f"round {index + 1}/{rounds}"
            say(f"{case.name:11} {label:10} {subject.name:8} {sample['rate']:10.0f} {case.rate_unit}")
            if index >= 0:
                samples[subject.name].append(sample)
    return samples, start


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(case, samples, start):
    """What the table says, from the samples of one case."""
    subjects = {}
    for name, own in samples.items():
        pairs = [s["rate"] / o["rate"] for s, o in zip(own, samples["origin"])]
        roles = own[0]["cpu_s"]
        entry = {
            "rate": spread([s["rate"] for s in own]),
            "ratio": spread(pairs),
            "errors": sum(s["errors"] for s in own),
            "load_busy": statistics.median(s["load_busy"] for s in own),
            "cpu_s_per_unit": {
                role: sum(s["cpu_s"][role] for s in own) / sum(s["units"] for s in own)
                for role in roles
            },
            "peak_bytes": {role: max(s["peak_bytes"][role] for s in own) for role in roles},
            "start_bytes": start[name],
            "samples": own,
        }
        for key in ("p50_ms", "p99_ms"):
            if key in own[0]:
                entry[key] = statistics.median(s[key] for s in own)
        if "lost" in own[0]:
            units = sum(s["units"] for s in own) * 100000
            entry["lost_share"] = sum(s["lost"] for s in own) / units
        subjects[name] = entry
    return {
        "title": case.title,
        "rate_unit": case.rate_unit,
        "cpu_unit": case.cpu_unit,
        "subjects": subjects,
    }
