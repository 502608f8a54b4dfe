# SPDX-License-Identifier: Apache-2.0
"""What results.md says about each section, next to what is aimed at."""

KIB = 1024


def _table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _spread(values, digits=2):
    low, high = values["min"], values["max"]
    text = f"**{values['median']:.{digits}f}**"
    return text if low == high else f"{text} ({low:.{digits}f}–{high:.{digits}f})"


def _beside(section):
    heads = ["path", "", "p99 alone, ms", "p99 beside, ms", "ratio"]
    rows = [
        [
            row["path"],
            row["subject"],
            _spread(row["alone_p99_ms"]),
            _spread(row["beside_p99_ms"]),
            _spread(row["ratio"], 1),
        ]
        for row in section["rows"]
    ]
    title = f"Small requests beside {section['streams']} downloads through the same client"
    return title, _table(heads, rows), "Aim: at most twice as long."


def _far(section):
    heads = ["path", "", "plain TCP, MiB/s", "tunnel, MiB/s", "ratio"]
    rows = [
        [
            row["path"],
            row["way"],
            _spread(row["plain"], 1),
            _spread(row["tunnel"], 1),
            _spread(row["ratio"]),
        ]
        for row in section["rows"]
    ]
    return "One stream over a round trip of 100 ms", _table(heads, rows), "Aim: at least 0.9."


def _seconds(entry):
    return [str(entry["count"]), *(f"{entry[key]:.2f}" for key in ("p50", "p99", "max"))]


def _recovery(section):
    heads = ["the network", "streams", "p50 s", "p99 s", "most s"]
    rows = [["every connection reset", *_seconds(section["reset"])]]
    for seconds, entry in section["by_seconds_away"].items():
        rows.append([f"silent for {seconds} s", *_seconds(entry)])
    rows.append(["silent, all of these", *_seconds(section["blackhole"])])
    text = "Until the first byte of each stream after the network is back. "
    text += "Aim: p50 at most 1 s, p99 at most 5 s."
    if section["noticed_s"]:
        noticed = _spread(section["noticed_s"], 1)
        text += f" A dead link was noticed after {noticed} s (aim: about 5)."
    return "Recovery", _table(heads, rows), text


def _idle(section):
    heads = ["", "clients", "resident, KiB each", "of it heap", "CPU ms to join"]
    rows = []
    for row in section["rows"]:
        each = row["bytes_each"]
        rows.append(
            [
                row["kind"],
                f"{row['clients']:,}",
                f"**{each['Rss'] / KIB:.1f}**",
                f"{each['Anonymous'] / KIB:.1f}",
                f"{row['handshake_cpu_ms']:.2f}",
            ]
        )
    text = "Of the server, each with a session and a published tunnel. "
    text += "Aim: at most 8 KiB plain, 24 with TLS."
    return "Idle clients", _table(heads, rows), text


def _storm(section):
    heads = ["", "clients", "joined within s", "came again", "p99 before, ms", "p99 during, ms"]
    heads.append("slowest, ms")
    rows = [
        [
            row["kind"],
            f"{row['clients']:,}",
            _spread(row["seconds"], 1),
            str(row["again"]),
            _spread(row["before_p99_ms"], 1),
            _spread(row["during_p99_ms"], 1),
            _spread(row["during_max_ms"], 1),
        ]
        for row in section["rows"]
    ]
    text = "Small requests through another client, while all of these connect at once."
    return "A storm of clients", _table(heads, rows), text


SECTIONS = {
    "beside": _beside,
    "far": _far,
    "recovery": _recovery,
    "idle": _idle,
    "storm": _storm,
}


def section_lines(name, section):
    title, table, text = SECTIONS[name](section)
    return ["", f"## {title}", "", *table, "", text]
