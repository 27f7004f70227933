"""Pictures and tables of bench/results/*.json: `python bench/plots.py` writes bench/results/README.md and its PNGs.

    time grows as (number)^a      a: slope of the least-squares line through the logarithms of the larger sizes

The page says of every figure which machine, commit and load it comes from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

RESULTS = Path(os.environ.get("SDAS_RESULTS", Path(__file__).resolve().parent / "results"))
COLORS = {
    "ours": "#0b5fff",
    "reference": "#8a8a8a",
    "e3nn": "#d1495b",
    "nequip": "#e08e0b",
    "mace": "#3b8e5a",
    "cuequivariance": "#76448a",
    "sphericart": "#1b9aaa",
}
TASK_COLORS = {"forward": "#0b5fff", "forces": "#3b8e5a", "training": "#d1495b"}
AXES = {"side": "edges", "neighbors": "edges", "channels": "channels", "lmax": "lmax"}
COUNT_STYLES = {10_000: "o-", 100_000: "s--", 1_000_000: "^:"}
UNSHOWN = ("commit", "date", "load_average", "least_bytes")
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.markersize": 4,
}
Record = dict[str, Any]


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y over log x by least squares; the smallest sizes, where calls cost more than work, are left out."""
    kept = max(2, (len(x) + 1) // 2 + 1)
    logs = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
    return float(np.polyfit(logs[0][-kept:], logs[1][-kept:], 1)[0])


def growth(record: Record, along: str, task: str) -> list[dict[str, Any]]:
    """The cases of one curve, smallest first."""
    cases = [c for c in record["cases"] if c.get("what") == f"growth with {along}" and c["task"] == task]
    return sorted(cases, key=lambda case: case[along])


def growth_figure(record: Record) -> Figure | None:
    """Time over edges, channels and lmax, and peak memory over atoms, each with its exponent."""
    panels = [
        ("side", "edges", "ours_ms", "atoms added: ms"),
        ("neighbors", "edges", "ours_ms", "neighbors added: ms"),
        ("channels", "channels", "ours_ms", "ms"),
        ("lmax", "lmax", "ours_ms", "ms"),
        ("side", "atoms", "ours_peak_mib", "peak memory, MiB"),
    ]
    if not any(growth(record, along, task) for along, *_ in panels for task in TASK_COLORS):
        return None
    figure = Figure(figsize=(12.5, 2.9), layout="constrained")
    for axes, (along, horizontal, vertical, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for task, color in TASK_COLORS.items():
            cases = growth(record, along, task)
            if len(cases) < 2:
                continue
            x, y = ([case[name] for case in cases] for name in (horizontal, vertical))
            name = task if horizontal == "lmax" else f"{task}: {exponent(x, y):.2f}"
            axes.plot(x, y, marker="o", color=color, label=name)
        axes.set(xlabel=horizontal, ylabel=label)
        axes.set_yscale("log")
        if horizontal != "lmax":
            axes.set_xscale("log")
        if axes.lines:
            low, high = axes.get_ylim()
            axes.set_ylim(low, high * 6)  # room for the legend
            axes.legend(loc="upper left")
    return figure


def layer_figure(record: Record) -> Figure | None:
    """Milliseconds of the layer: ours, the reference and e3nn's modules."""
    cases = [case for case in record["cases"] if case.get("what") == "layer"]
    if not cases:
        return None
    sizes = sorted({_size(case): case["edges"] for case in cases}.items(), key=lambda item: item[1])
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for axes, task in zip(figure.subplots(1, 3, sharey=True), TASK_COLORS, strict=True):
        for offset, name in enumerate(("ours", "e3nn", "reference")):
            values = [
                next((c[f"{name}_ms"] for c in cases if c["task"] == task and _size(c) == s), np.nan) for s, _ in sizes
            ]
            axes.bar(np.arange(len(sizes)) + 0.27 * (offset - 1), values, 0.25, color=COLORS[name], label=name)
        axes.set_yscale("log")
        axes.set_title(task)
        axes.set_xticks(range(len(sizes)), [f"{edges}\n{size}" for size, edges in sizes], fontsize=6.5)
    figure.axes[0].set_ylabel("ms")
    figure.axes[0].legend()
    return figure


def models_figure(record: Record) -> Figure | None:
    """Atoms per second of whole models over atoms, energies and forces, and training."""
    cases = [case for case in record["cases"] if case["channels"] == 32]
    if not cases:
        return None
    figure = Figure(figsize=(8.5, 3.1), layout="constrained")
    for axes, step in zip(figure.subplots(1, 2, sharey=True), ("forces", "training"), strict=True):
        chosen = sorted((case for case in cases if case["step"] == step), key=lambda case: case["atoms"])
        for name in dict.fromkeys(name for case in chosen for name in case["models"]):
            points = [(c["atoms"], c["models"][name].get("atoms_per_second")) for c in chosen if name in c["models"]]
            points = [(x, y) for x, y in points if y]
            if points:
                style = {"compiled": "s--", "scripted": "^:"}.get(name.split()[-1], "o-")
                axes.plot(*zip(*points, strict=True), style, color=COLORS[name.split()[0]], label=name)
        axes.set(xscale="log", yscale="log", xlabel="atoms", title={"forces": "energies and forces"}.get(step, step))
    figure.axes[0].set_ylabel("atoms per second")
    figure.axes[0].legend(fontsize=7, loc="lower left")
    return figure


def models_table(record: Record) -> list[str]:
    """A row per case and model."""
    rows = []
    for case in record["cases"]:
        for name, found in case["models"].items():
            setting = f"{case['step']} | {case['system']} | {case['edges']} | {case['channels']} | {name}"
            if "skipped" in found:
                rows.append(f"| {setting} | skipped: {found['skipped'].splitlines()[0]} | | | | | |")
                continue
            against = " | ".join(_quartiles(found.get(f"cpu_over_{ours}")) for ours in ("ours", "ours_compiled"))
            times = f"{found['ms']:.4g} | {found['cpu_ms']:.4g} | {found['atoms_per_second']:.4g}"
            rows.append(f"| {setting} | {times} | {against} | {found['peak_mib']:.0f} |")
    head = "| step | system | edges | channels | model | ms | CPU ms | atoms/s | CPU, / ours | / ours compiled | MiB |"
    return [head, "|---|---|---|---|---|---|---|---|---|---|---|", *rows]


def dynamics_table(record: Record) -> list[str]:
    """A row per system and model; nanoseconds per day are of all replicas together."""
    head = "| system | replicas | model | CPU ms per step | ns/day | CPU, / ours through ASE |"
    lines = [head, "|---|---|---|---|---|---|"]
    for case in record["cases"]:
        for name, found in case["models"].items():
            row = f"| {case['system']} | {case['replicas']} | {name} |"
            if "skipped" in found:
                lines.append(f"{row} skipped: {found['skipped']} | | |")
            else:
                ratios = _quartiles(found.get("cpu_over_ours"))
                lines.append(f"{row} {found['cpu_ms']:.4g} | {found['ns_per_day']:.4g} | {ratios} |")
    return lines


def attention_tables(record: Record) -> list[str]:
    """The layer against its rivals, the operators' rates, and the exponents."""
    lines = [
        "| layer | edges | ms | reference / ours | e3nn / ours | peak MiB: ours, reference, e3nn |",
        "|---|---|---|---|---|---|",
    ]
    for case in (c for c in record["cases"] if c.get("what") == "layer"):
        peaks = ", ".join(f"{case[f'{name}_peak_mib']:.0f}" for name in COLORS if f"{name}_peak_mib" in case)
        against = " | ".join(_quartiles(case[f"{name}_over_ours"]) for name in ("reference", "e3nn"))
        lines.append(
            f"| {case['task']}, {_size(case)} | {case['edges']} | {case['ours_ms']:.4g} | {against} | {peaks} |"
        )
    lines += ["", "| operator | edges | ms | e3nn / ours | GFLOP/s | of a matrix product | least GB/s | of a copy |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for case in (c for c in record["cases"] if c.get("what") == "operator"):
        rates = f"{case['gflop_per_s']} | {case['share_of_matrix_product']:.0%}"
        rates += f" | {case['gbyte_per_s']} | {case['share_of_copy']:.0%}"
        against = _quartiles(case["e3nn_over_ours"])
        lines.append(
            f"| {case['task']}, {_size(case)} | {case['edges']} | {case['ours_ms']:.4g} | {against} | {rates} |"
        )
    slopes_of = []
    for vertical, name in (("ours_ms", "time"), ("ours_peak_mib", "peak memory")):
        for along, horizontal in AXES.items():
            curves = [growth(record, along, task) for task in TASK_COLORS]
            if along == "lmax" or any(len(curve) < 2 for curve in curves):
                continue
            slopes = [exponent([c[horizontal] for c in curve], [c[vertical] for c in curve]) for curve in curves]
            what = f"{horizontal} ({'atoms' if along == 'side' else along} added)" if horizontal == "edges" else along
            slopes_of.append(f"| {name} | {what} | {', '.join(f'{slope:.2f}' for slope in slopes)} |")
    if not slopes_of:
        return lines
    return [*lines, "", "| growth of | with | exponent: forward, forces, training |", "|---|---|---|", *slopes_of]


def ratios_figure(record: Record) -> Figure | None:
    """How much longer rivals take, a panel for each order of derivatives."""
    whats, dtypes = (list(dict.fromkeys(case[name] for case in record["cases"])) for name in ("what", "dtype"))
    several_sizes = len({case["edges"] for case in record["cases"]}) > 1

    def label(case: dict[str, Any]) -> str:
        name = case["case"].removeprefix("convolution, ").replace(", ", "\n")
        return f"{name}\n{case['edges']} edges" if several_sizes else name

    labels = list(dict.fromkeys(label(case) for case in record["cases"]))
    bars = [(rival, dtype) for rival in COLORS for dtype in dtypes]
    bars = [(r, d) for r, d in bars if any(f"{r}_over_ours" in c and c["dtype"] == d for c in record["cases"])]
    figure = Figure(figsize=(12.5, 3.1), layout="constrained")
    for axes, what in zip(figure.subplots(1, len(whats), sharey=True, squeeze=False)[0], whats, strict=True):
        for number, (rival, dtype) in enumerate(bars):
            found = {label(c): c for c in record["cases"] if (c["what"], c["dtype"]) == (what, dtype)}
            ratios = [found.get(name, {}).get(f"{rival}_over_ours", [np.nan] * 3) for name in labels]
            low, middle, high = np.array(ratios).T
            x = np.arange(len(labels)) + (number - (len(bars) - 1) / 2) * 0.8 / len(bars)
            style: dict[str, Any] = {"color": COLORS[rival], "alpha": 1.0 if dtype == dtypes[0] else 0.55}
            spread = {"yerr": [middle - low, high - middle], "error_kw": {"elinewidth": 0.6, "ecolor": "#333333"}}
            axes.bar(x, middle, 0.75 / len(bars), label=f"{rival}, {dtype}", **style, **spread)
        axes.axhline(1, color="#333333", linewidth=0.8)
        axes.set(yscale="log", title=what)
        axes.set_xticks(range(len(labels)), labels, fontsize=6)
    figure.axes[0].set_ylabel("time / ours")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    return figure


def harmonics_figure(record: Record) -> Figure | None:
    """How much longer rivals take, over lmax, for each number of vectors; float32."""
    cases = [case for case in record["cases"] if case["dtype"] == "float32"]
    whats = list(dict.fromkeys(case["what"] for case in cases))
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, what in zip(figure.subplots(1, len(whats), sharey=True, squeeze=False)[0], whats, strict=True):
        for rival in COLORS:
            for count, style in COUNT_STYLES.items():
                chosen = [c for c in cases if (c["what"], c["count"]) == (what, count) and f"{rival}_over_ours" in c]
                points = sorted((case["lmax"], case[f"{rival}_over_ours"][1]) for case in chosen)
                if points:
                    name = f"{rival}, {count:.0e} vectors".replace("e+0", "e")
                    axes.plot(*zip(*points, strict=True), style, color=COLORS[rival], label=name)
        axes.axhline(1, color="#333333", linewidth=0.8)
        axes.set(yscale="log", xlabel="lmax", title=what)
    figure.axes[0].set_ylabel("time / ours")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    return figure


def cases_table(record: Record) -> list[str]:
    """A row per case, a column for everything that was measured."""
    names = list(dict.fromkeys(name for case in record["cases"] for name in case if name not in UNSHOWN))
    titles = [name.replace("_over_", " / ").replace("_", " ").replace("mib", "MiB") for name in names]
    rows = [" | ".join(_cell(case.get(name)) for name in names) for case in record["cases"]]
    return [f"| {' | '.join(titles)} |", "|---" * len(names) + "|", *(f"| {row} |" for row in rows)]


def extremes_table(record: Record) -> list[str]:
    """The least, the median and the greatest of the medians of each rival's ratios."""
    lines = ["| what | rival | cases | least | median | greatest |", "|---|---|---|---|---|---|"]
    for what in dict.fromkeys(case["what"] for case in record["cases"]):
        for rival in COLORS:
            name = f"{rival}_over_ours"
            found = [case[name][1] for case in record["cases"] if case["what"] == what and name in case]
            if found:
                three = " | ".join(f"{value:.3g}" for value in (min(found), np.median(found), max(found)))
                lines.append(f"| {what} | {rival} | {len(found)} | {three} |")
    return lines


PAGES: dict[str, tuple[str, dict[str, Callable[[Record], Figure | None]], Callable[[Record], list[str]]]] = {
    "models": ("Whole models", {"models": models_figure}, models_table),
    "md": ("Dynamics at 0.5 fs", {}, dynamics_table),
    "neighbor_attention": (
        "The attention layer",
        {"layer": layer_figure, "growth": growth_figure},
        attention_tables,
    ),
    "tensor_product": ("Tensor products", {"ratios": ratios_figure}, cases_table),
    "tensor_product_conv": ("Convolutions of tensor products", {"ratios": ratios_figure}, cases_table),
    "spherical_harmonics": ("Spherical harmonics", {"ratios": harmonics_figure}, extremes_table),
    "accelerate": ("MACE before and after `accelerate`", {}, cases_table),
    "training_step": ("Steps against the reference backend", {}, cases_table),
}


def page() -> str:
    """The page's text; its pictures are written beside it."""
    lines = ["# Results", "", "Written by `python bench/plots.py` from the JSON files of this folder; do not edit.", ""]
    lines += ["Ratios are medians of rounds taken in turn, quartiles in brackets; above 1, ours is faster."]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if record["benchmark"] not in PAGES:
            continue
        title, figures, table = PAGES[record["benchmark"]]
        threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
        commits = sorted({case.get("commit", record["commit"])[:10] for case in record["cases"]})
        loads = [case.get("load_average", record["load_average_at_end"]) for case in record["cases"]]
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines += ["", f"## {title}: {record['machine']}, {threads}", ""]
        lines += [f"{record['date']}, {record['simd']}, {versions}. Commit {', '.join(commits)}. "]
        lines[-1] += f"Load average {min(loads):.1f} to {max(loads):.1f}. [JSON]({path.name})"
        for name, draw in figures.items():
            picture = f"{path.stem}-{name}.png" if name != "models" else f"{path.stem}.png"
            with mpl.rc_context(STYLE):
                figure = draw(record)
                if figure is None:
                    continue
                _plain_ticks(figure)
                figure.savefig(RESULTS / picture, dpi=110, metadata={"Software": None})
            lines += ["", f"![{title}: {name}]({picture})"]
        lines += ["", *table(record)]
    return "\n".join(lines) + "\n"


def _plain_ticks(figure: Figure) -> None:
    """Logarithmic axes with numbers as people write them: powers of ten, and 2 and 5 between where decades are few."""
    for axes in figure.axes:
        for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
            if scale == "log":
                low, high = axis.get_view_interval()
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 20 * low else (1,), numticks=9))
                axis.set_major_formatter(
                    FuncFormatter(lambda value, _: f"{value:g}" if value < 1e5 else f"{value:.0e}")
                )
                axis.set_minor_formatter(NullFormatter())


def _size(case: dict[str, Any]) -> str:
    return f"{case['channels']} channels, lmax {case['lmax']}"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return _quartiles(value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _quartiles(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[1]:.3g} [{values[0]:.3g}, {values[2]:.3g}]"


def main() -> None:
    text = page()
    (RESULTS / "README.md").write_text(text)
    print(RESULTS / "README.md")


if __name__ == "__main__":
    main()
