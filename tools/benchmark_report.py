"""What tools/benchmark.py writes: tables in Markdown, and a plot."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from hybrid_nets import InputError
from hybrid_nets.atomic import replacing

START, END = "<!-- benchmark -->\n", "<!-- end -->"


def markdown(result: dict, parts: list[str]) -> str:
    """All tables."""
    return (
        "\n".join([*goal_rows(result), *network_rows(result), *variant_rows(result), *fact_rows(result, parts)]) + "\n"
    )


def goal_rows(result: dict) -> list[str]:
    if not result["goals"]:
        return []
    rows = ["| goal | at most | measured (quartiles) | reached |", "|---|---|---|---|"]
    for goal in result["goals"]:
        low, high = goal["ratio"]["quartiles"]
        value = f"{goal['ratio']['median']:.3g}" + (f" ({low:.3g} to {high:.3g})" if low < high else "")
        rows.append(f"| {goal['goal']} | {goal['at_most']:g} | {value} | {'yes' if goal['reached'] else 'no'} |")
    return [*rows, ""]


def network_rows(result: dict) -> list[str]:
    rate = (result.get("forward") or {}).get("dense")
    rows = [
        "| network | input | parameters | GMACs | floor, s | forward, s (quartiles) | training, s (quartiles) "
        "| forward, MiB | training, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, costs in result["networks"].items():
        size = f"{costs['input'][0]} × {costs['input'][1]}{'²' if len(costs['input']) == 3 else '³'}"
        floor = f"{costs['GMACs'] / rate['median']:.3g}" if rate else ""
        times = [time_text(result.get(part, {}).get("seconds", {}).get(name)) for part in ("forward", "training")]
        measured = result.get("memory", {}).get("MiB", {}).get(name, {})
        sizes = [measured.get(part, {}).get(str(costs["input"][-1])) for part in ("forward", "training")]
        memory = ["" if value is None else f"{value:,.0f}" for value in sizes]
        cells = [name, size, f"{costs['parameters']:,}", f"{costs['GMACs']:.2f}", floor, *times, *memory]
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def time_text(spread: dict | None) -> str:
    return "" if spread is None else "{:.3g} ({:.3g} to {:.3g})".format(spread["median"], *spread["quartiles"])


def variant_rows(result: dict) -> list[str]:
    """Only where variants were measured."""
    parts = {part: result.get(part, {}).get("seconds", {}) for part in ("forward", "training")}
    names = sorted({name for times in parts.values() for name in times} - set(result["networks"]))
    rows = [f"| {name} | {' | '.join(time_text(times.get(name)) for times in parts.values())} |" for name in names]
    return ["| variant | forward, s | training, s |", "|---|---|---|", *rows, ""] if rows else []


def fact_rows(result: dict, parts: list[str]) -> list[str]:
    rows = []
    for part in parts:
        if part in result:
            dense = result[part].get("dense")
            rate = f"; dense 3³ convolution {dense['median']:.0f} GMAC/s" if dense else ""
            said = ", ".join(f"{name}: {value}" for name, value in result[part]["facts"].items())
            rows.append(f"- {part}: {said}{rate}")
    return rows


def plot(result: dict, path: Path) -> None:
    """Forward time against parameters, and memory against the window's side where several were measured."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    times = result.get("forward", {}).get("seconds", {})
    for name, costs in result["networks"].items():
        if name in times:
            place = costs["parameters"] / 1e6, times[name]["median"]
            left.loglog(*place, "o" if len(costs["input"]) == 4 else "s")
            left.annotate(name, place, fontsize=8, xytext=(4, 4), textcoords="offset points")
    left.set(xlabel="parameters, millions", ylabel="forward, s", title="● 3-D, ■ 2-D")
    left.margins(x=0.25)
    for name, measured in result.get("memory", {}).get("MiB", {}).items():
        if len(result["networks"][name]["input"]) == 4:
            for part, style in (("forward", "o-"), ("training", "^--")):
                line = right.semilogy([int(s) for s in measured[part]], list(measured[part].values()), style)
                line[0].set_color(f"C{list(result['networks']).index(name) % 10}")
                line[0].set_label(name if part == "forward" else None)
    right.set(xlabel="side of the window, voxels", ylabel="peak memory, MiB", title="─ forward, ┄ training step")
    if right.lines:
        right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_between(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a page."""
    page = path.read_text()
    if page.count(START) != 1 or END not in page.split(START)[1]:
        raise InputError(f"{path} needs one line {START.strip()} and a line {END} after it.")
    before, rest = page.split(START)
    with replacing(path) as temporary:
        temporary.write_text(before + START + text + rest[rest.index(END) :])
