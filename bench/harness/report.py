# SPDX-License-Identifier: Apache-2.0
"""results.json, results.md and results.png."""

import json
import os
import platform
import subprocess
import time

from harness.sections import section_lines

COLORS = {"origin": "#7f7f7f", "nginx": "#2ca02c", "haproxy": "#1f77b4", "tunnel": "#d62728"}
# A generator that is busy for this share of the time may be what limits the result.
LOAD_BUSY_MAX = 0.95


def _first_line(argv):
    try:
        result = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError:
        return "unknown"
    lines = result.stdout.strip().splitlines()
    return lines[0] if lines else "unknown"


def machine(tools):
    """What the figures depend on."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    versions = {"nginx": _first_line([tools["nginx"], "-v"])}
    if "haproxy" in tools:
        versions["haproxy"] = _first_line([tools["haproxy"], "-v"])
    if "tunnel-server" in tools:
        versions["tunnel"] = _first_line([tools["tunnel-server"], "--version"])
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_average_at_start": os.getloadavg()[0],
        "versions": versions,
    }


def notes(results):
    """What a reader must know before believing the figures."""
    found = list(results["missing"])
    load = results["machine"]["load_average_at_start"]
    if load > 0.5:
        found.append(f"the machine was not idle at the start (load average {load:.1f})")
    for name, case in results["cases"].items():
        for subject, entry in case["subjects"].items():
            if entry["errors"]:
                found.append(f"{name}: {entry['errors']} failed requests through {subject}")
            if entry["load_busy"] > LOAD_BUSY_MAX:
                found.append(
                    f"{name}: the load generator was busy {entry['load_busy']:.0%} of the time with "
                    f"{subject}, which may be faster than shown"
                )
    return found


def _by_role(values, text):
    """One figure for one process; "server 1.0 + client 2.0" for two."""
    if len(values) == 1:
        return text(next(iter(values.values())))
    return ", ".join(f"{role} {text(value)}" for role, value in values.items())


def _ratio(name, spread):
    if name == "origin":
        return "1"
    return f"**{spread['median']:.3f}** ({spread['min']:.3f}–{spread['max']:.3f})"


def table(case):
    first = next(iter(case["subjects"].values()))
    latency, lost = "p50_ms" in first, "lost_share" in first
    heads = ["", case["rate_unit"], "ratio to origin (min–max)"]
    heads += ["p50 ms", "p99 ms"] if latency else []
    heads += ["lost"] if lost else []
    heads += [f"CPU s per {case['cpu_unit']}", "peak memory MiB"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, entry in case["subjects"].items():
        cells = [name, f"{entry['rate']['median']:,.0f}", _ratio(name, entry["ratio"])]
        if latency:
            cells += [f"{entry['p50_ms']:.2f}", f"{entry['p99_ms']:.2f}"]
        if lost:
            cells.append(f"{entry['lost_share']:.2%}")
        cells.append(_by_role(entry["cpu_s_per_unit"], lambda value: f"{value:.3f}"))
        cells.append(_by_role(entry["peak_bytes"], lambda value: f"{value / (1 << 20):.1f}"))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def markdown(results):
    info = results["machine"]
    settings = results["settings"]
    lines = ["# Benchmark of the tunnel", ""]
    lines.append(
        f"{info['time']}; {info['cores']} cores of {info['cpu']}, Linux {info['kernel']}; "
        f"{settings['rounds']} interleaved rounds, everything on loopback of one machine."
    )
    lines.append("Versions: " + "; ".join(info["versions"].values()) + ".")
    for note in notes(results):
        lines += ["", f"> **Note:** {note}"]
    for case in results["cases"].values():
        lines += ["", f"## {case['title']}", ""] + table(case)
    for name, section in results["sections"].items():
        lines += section_lines(name, section)
    if results.get("flows"):
        flows = results["flows"]
        cost = _by_role(flows["bytes_per_flow"], lambda value: f"{value * 1000 / (1 << 20):.2f} MiB")
        lines += ["", "## Idle UDP flows", ""]
        lines.append(f"Resident memory per 1,000 of them ({flows['count']} opened): {cost}.")
    lines += ["", "How to read this: bench/README.md.", ""]
    return "\n".join(lines)


def _bars(axes, case, figures, title, label):
    """figures(entry) -> (height, below, above)"""
    names = list(case["subjects"])
    values = [figures(case["subjects"][name]) for name in names]
    heights = [value[0] for value in values]
    errors = [[value[1] for value in values], [value[2] for value in values]]
    colors = [COLORS.get(name, "#9467bd") for name in names]
    bars = axes.bar(names, heights, color=colors, yerr=errors, capsize=4)
    axes.bar_label(bars, labels=[f"{height:.3g}" for height in heights], padding=3, fontsize=8)
    axes.margins(y=0.15)
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=8)


def _ratio_bar(entry):
    ratio = entry["ratio"]
    return ratio["median"], ratio["median"] - ratio["min"], ratio["max"] - ratio["median"]


def _cpu_bar(entry):
    return sum(entry["cpu_s_per_unit"].values()), 0, 0


def _peak_bar(entry):
    return sum(entry["peak_bytes"].values()) / (1 << 20), 0, 0


def plot(results, path):
    import matplotlib  # Late, so that everything but the plot works without it.

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(results["cases"].values())
    if not cases:
        return
    figure, grid = pyplot.subplots(
        3, len(cases), figsize=(4.2 * len(cases), 9), squeeze=False, constrained_layout=True
    )
    for column, case in enumerate(cases):
        title = case["title"].replace(" (", "\n(")
        _bars(grid[0][column], case, _ratio_bar, title, f"{case['rate_unit']}, ratio to origin")
        _bars(grid[1][column], case, _cpu_bar, "", f"CPU seconds per {case['cpu_unit']}")
        _bars(grid[2][column], case, _peak_bar, "", "peak memory of all processes, MiB")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(results, folder):
    """Writes the three files; returns the table's text and what went wrong with the plot."""
    problem = None
    text = markdown(results)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=2)
        file.write("\n")
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(text)
    try:
        plot(results, os.path.join(folder, "results.png"))
    except ImportError as error:
        problem = f"no plot: {error} (python3-matplotlib comes with scripts/setup test)"
    return text, problem
