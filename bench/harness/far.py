# SPDX-License-Identifier: Apache-2.0
"""One stream over a round trip of 100 ms, next to a plain TCP connection over the same path."""

import json
import os

from harness.cases import BULK_LIMIT, run_load, spread
from harness.path import FarTunnel

MIB = 1 << 20
# what the path is: a rate in Mbit/s (0: none), what the line buffers in KiB
PATHS = {"100 Mbit/s": (100, 1250), "no limit": (0, 16384)}


def _rate(far, way, place, size):
    argv = far.visit(way, place, str(size), "0", str(BULK_LIMIT))
    output, _, _ = run_load(argv)
    result = json.loads(output)
    return result["bytes"] / MIB / result["seconds"]


def measure_far(directory, tools, settings, say):
    """Rows of (path, direction, rate without, rate with, ratio)."""
    rows = []
    for name, (rate, buffer) in PATHS.items():
        folder = os.path.join(directory, name.split()[0])
        os.makedirs(folder)
        commands = ["delay 50", f"rate {rate}", f"buffer {buffer}"]
        size = settings["far_mib"] * MIB * (1 if rate else 2)
        with FarTunnel(folder, tools, *commands) as far:
            tunnel = str(far.ports[0])
            _rate(far, "down", tunnel, 4 * MIB)  # then there are lanes
            for way in ("down", "up"):
                samples = []
                for index in range(settings["far_rounds"]):
                    plain = _rate(far, way, far.direct, size)
                    through = _rate(far, way, tunnel, size)
                    label = f"far {name} {way} {index + 1}"
                    say(f"{label}: plain {plain:.1f}, tunnel {through:.1f} MiB/s")
                    samples.append((plain, through))
                rows.append(
                    {
                        "path": name,
                        "way": way,
                        "plain": spread([plain for plain, _ in samples]),
                        "tunnel": spread([through for _, through in samples]),
                        "ratio": spread([through / plain for plain, through in samples]),
                    }
                )
    return {"rows": rows, "mib": settings["far_mib"]}
