"""Medians, spreads, ratios, whether each aim is met; a table and plots."""
import json
import os
import statistics
import subprocess

import harness

FIGURES = [("rate", "records/s"), ("mb", "MB/s"), ("p50", "p50 ms"),
           ("p99", "p99 ms"), ("p99.9", "p99.9 ms"), ("gap", "gap ms"),
           ("first_ack", "first ack s"), ("cpu", "CPU s/GB"),
           ("written", "written/byte"), ("rss", "RSS MB")]


def median(runs, figure):
    values = [r[figure] for r in runs if r.get(figure) is not None]
    return statistics.median(values) if values else None


def spread(runs, figure):
    """Half of what lies between the lowest and the highest, in percent."""
    values = [r[figure] for r in runs if r.get(figure) is not None]
    middle = statistics.median(values) if values else 0
    return (max(values) - min(values)) / 2 / middle * 100 if middle else 0


def table(results, rows):
    lines = ["| load | system, client | runs | " +
             " | ".join(title for _, title in FIGURES) + " |",
             "|---|---|---|" + "---|" * len(FIGURES)]
    for row in rows:
        for (name, system, client), runs in results.items():
            if name != row.name:
                continue
            cells = []
            for figure, _ in FIGURES:
                m = median(runs, figure)
                cells.append("" if m is None else "%.4g ±%.0f %%" % (
                    m, spread(runs, figure)))
            lines.append("| %s | %s, %s | %d | %s |" % (
                name, system, client, len(runs), " | ".join(cells)))
    return "\n".join(lines)


def aims(results, rows):
    """Lines of what was aimed at, and how many were met."""
    lines, met, missed = [], 0, 0
    for row in rows:
        client = row.clients[0]
        for figure, system, factor in row.aims:
            peer = "nats" if system.startswith("nats") else client
            ours = results.get((row.name, "flotilla", client))
            theirs = results.get((row.name, system, peer))
            if not ours or not theirs:
                continue
            a, b = median(ours, figure), median(theirs, figure)
            if not a or not b:
                continue
            ratio = a / b
            ok = ratio >= factor if figure == "rate" else ratio <= factor
            met, missed = met + ok, missed + (not ok)
            lines.append("%-6s %-28s %-10s %.3g times %s's (aim: %s %.3g)" % (
                "met" if ok else "MISSED", row.name, figure, ratio, system,
                "at least" if figure == "rate" else "at most", factor))
    return lines, met, missed


PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
data, out = json.load(open(sys.argv[1])), sys.argv[2]
figures = [("rate", "records/s"), ("p99", "p99 ms"), ("cpu", "brokers' CPU s/GB"),
           ("rss", "resident MB, largest broker")]
rows = [r for r in dict.fromkeys(d["row"] for d in data)
        if any(d["row"] == r and d["median"].get("rate") for d in data)]
fig, axes = plt.subplots(len(rows), len(figures), squeeze=False,
                         figsize=(4 * len(figures), 1.9 * len(rows)))
for i, row in enumerate(rows):
    bars = [d for d in data if d["row"] == row]
    for j, (key, title) in enumerate(figures):
        ax = axes[i][j]
        shown = [d for d in bars if d["median"].get(key)]
        names = [d["system"] + ", " + d["client"] for d in shown]
        ax.barh(names, [d["median"][key] for d in shown],
                xerr=[d["median"][key] * d["spread"].get(key, 0) / 100
                      for d in shown],
                color=["tab:blue" if d["system"] == "flotilla" else
                       "tab:gray" for d in shown])
        ax.set_title(row + ": " + title, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.invert_yaxis()
fig.tight_layout()
fig.savefig(out)
"""


def write(folder, results, rows, build):
    """results.json, table.md and plots.svg."""
    os.makedirs(folder, exist_ok=True)
    data = [{"row": name, "system": system, "client": client, "runs": runs,
             "median": {f: median(runs, f) for f, _ in FIGURES},
             "spread": {f: spread(runs, f) for f, _ in FIGURES}}
            for (name, system, client), runs in results.items()]
    path = os.path.join(folder, "results.json")
    with open(path, "w") as f:
        json.dump(data, f, indent=1)
    lines, _, _ = aims(results, rows)
    with open(os.path.join(folder, "table.md"), "w") as f:
        f.write(table(results, rows) + "\n\n" +
                "".join("- %s\n" % line for line in lines))
    python = harness.venv_python(build, ["matplotlib"])
    subprocess.run([python, "-c", PLOT, path,
                    os.path.join(folder, "plots.svg")], check=True,
                   timeout=300)
