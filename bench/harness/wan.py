# SPDX-License-Identifier: Apache-2.0
"""A network of its own between two namespaces, from c/wan.c: long, slow, lossy or cut, as told."""

import subprocess

from harness.proc import BenchError


class NoNetwork(BenchError):
    """There is no root, or no TUN: no network can be made here."""


class Wan:
    """A running c/wan.c; a context manager that ends it, and its namespaces with it.

    `path` are the namespaces of its ends, `address` their IPv4 addresses; enter(end, argv) makes
    argv run at an end (0 or 1). Without root, or where there is no TUN, __enter__ raises NoNetwork.
    """

    def __init__(self, program, *commands, ends=("new", "new")):
        self.argv = [program, *ends, *commands]
        self.path = []
        self.address = []
        self.popen = None

    def __enter__(self):
        self.popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            while (line := self._line()) != "ready":
                _, path, address = line.split()
                self.path.append(path)
                self.address.append(address)
        except (BenchError, ValueError) as error:
            self.popen.kill()
            self.popen.communicate()
            raise NoNetwork(f"no network of its own: {error}") from None
        return self

    def __exit__(self, *_):
        self.popen.terminate()
        self.popen.communicate()

    def _line(self):
        line = self.popen.stdout.readline()
        if not line.endswith("\n"):
            raise BenchError("c/wan.c has ended")
        if line.startswith("wan: "):
            raise BenchError(line.strip())
        return line.strip()

    def enter(self, end, argv):
        return ["nsenter", "--net=" + self.path[end], *argv]

    def tell(self, command):
        """Gives it a command, returns what it printed before its "ok"."""
        self.popen.stdin.write(command + "\n")
        self.popen.stdin.flush()
        lines = []
        while (line := self._line()) != "ok":
            if line.startswith("error"):
                raise BenchError(f"c/wan.c does not understand '{command}'")
            lines.append(line)
        return lines
