# SPDX-License-Identifier: Apache-2.0
"""Helpers of the benchmark that are talked to by lines: c/probe.c and c/swarm.c."""

import json
import os
import select
import subprocess

from harness.proc import BenchError, clean_environment


class Talker:
    """A helper that answers lines with lines of JSON; a context manager that ends it."""

    def __init__(self, argv):
        self.argv = argv
        self.popen = None

    def __enter__(self):
        self.popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            text=True,
        )
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.communicate()

    def hear(self, timeout=60):
        name = next(os.path.basename(word) for word in self.argv if "/" in word)
        if not select.select([self.popen.stdout], [], [], timeout)[0]:
            raise BenchError(f"{name} said nothing for {timeout} s")
        line = self.popen.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            raise BenchError(line.strip() or f"{name} has ended") from None

    def tell(self):
        try:
            self.popen.stdin.write("\n")
            self.popen.stdin.flush()
        except OSError:
            pass  # hear() says why

    def ask(self, timeout=60):
        self.tell()
        return self.hear(timeout)


def probe(tools, place, host, connections=4, pause_us=2000, prefix=()):
    argv = [tools["probe"], str(place), host, "/small", str(connections), str(pause_us)]
    return Talker([*prefix, *argv])
