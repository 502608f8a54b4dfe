# SPDX-License-Identifier: Apache-2.0
"""Compiles the C helpers and finds the programs that take part."""

import os
import subprocess

from harness.proc import BenchError
from harness.subjects import find_program, need_program

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(HERE)
SOURCES = os.path.join(HERE, "c")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]
HELPERS = {
    "load": ["load.c", "util.c"],
    "sink": ["sink.c", "util.c"],
    "peer": ["peer.c", "util.c"],
    "visit": ["visit.c", "util.c"],
    "wan": ["wan.c", "util.c"],
    "probe": ["probe.c", "util.c"],
    "swarm": ["swarm.c", "util.c"],
    "count.so": ["count.c"],
}


def compile_helper(name, build):
    """Compiles a helper if it is older than its sources; returns its path."""
    folder = os.path.join(build, "bench", "bin")
    os.makedirs(folder, exist_ok=True)
    out = os.path.join(folder, name)
    sources = [os.path.join(SOURCES, source) for source in HELPERS[name]]
    watched = sources + [os.path.join(SOURCES, "util.h")]
    if os.path.exists(out) and all(os.path.getmtime(out) > os.path.getmtime(s) for s in watched):
        return out
    # -fno-builtin: the counting functions must not be taken for the ones they replace.
    extra = ["-shared", "-fPIC", "-fno-builtin"] if name.endswith(".so") else []
    libraries = ["-lssl", "-lcrypto"] if name == "swarm" else []
    compiler = os.environ.get("CC", "cc").split()
    command = [*compiler, *FLAGS, *extra, "-o", out, *sources, *libraries]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"compiling {name} failed: {error}") from error
    return out


def find_tools(build, bin_dir, need):
    """Paths by name; what is optional and missing is left out and told in the second result."""
    tools = {"nginx": need_program("nginx")}
    for name in need:
        tools[name] = need_program(name)
    missing = []
    haproxy = find_program("haproxy")
    if haproxy:
        tools["haproxy"] = haproxy
    else:
        missing.append("haproxy is not installed (scripts/setup test): it is left out")
    found = {}
    for name in ("tunnel-server", "tunnel-client"):
        path = os.path.join(bin_dir, name)
        if os.access(path, os.X_OK):
            found[name] = path
        else:
            missing.append(f"{path} is missing (run make): THE TUNNEL IS NOT MEASURED")
    if len(found) == 2:
        tools.update(found)
    for name in ("load", "sink", "peer", "visit", "wan", "probe", "swarm"):
        tools[name] = compile_helper(name, build)
    return tools, missing
