# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests stand on: real processes, real sockets, no product code."""

import os
import pathlib
import time

E2E = pathlib.Path(__file__).resolve().parent.parent
ROOT = E2E.parent.parent
UPSTREAMS = E2E / "upstreams"
BIN_DIR = pathlib.Path(os.environ.get("TUNNEL_BIN_DIR") or ROOT / "build" / "bin").resolve()
SERVER_BIN = BIN_DIR / "tunnel-server"
CLIENT_BIN = BIN_DIR / "tunnel-client"

MIB = 1 << 20
GIB = 1 << 30


def _sanitized():
    try:
        return b"__asan_init" in SERVER_BIN.read_bytes()
    except OSError:
        return False


# Builds with sanitizers are slow and keep freed memory in quarantine: bulk tests move less
# there and do not judge memory. Everything else is the same.
SANITIZED = _sanitized()

# How long anything may take before it counts as hung. Never a statement about speed.
HANG = 120 if SANITIZED else 40


def eventually(probe, what="condition", timeout=None, pause=0.02):
    """Polls probe() until it returns something true; returns that. Fails only as a hang."""
    deadline = time.monotonic() + (timeout or HANG)
    last = None
    while True:
        try:
            value = probe()
            if value:
                return value
            last = value
        except (AssertionError, OSError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what} (last: {last!r})")
        time.sleep(pause)
