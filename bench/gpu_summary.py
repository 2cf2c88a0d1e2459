"""A report of bench/gpu.py as Markdown: ratios, shares of the roofs, and what was missed."""

from __future__ import annotations

from functools import partial
from typing import Any

Facts = dict[str, Any]
# By the beginning of a cell's name: the share of which roof is asked for, and how much of it.
TARGETS = (
    ("topk-1-", "bytes_share", 0.88, "memory bandwidth"),
    ("topk-4096-d384", "operations_share", 0.55, "the peak of products"),
    ("topk-4096-d768", "operations_share", 0.55, "the peak of products"),
    ("topk-4096-d1536", "operations_share", 0.55, "the peak of products"),
    ("bags-cold-", "bytes_share", 0.80, "memory bandwidth"),
)


def summarise(report: Facts) -> str:
    """The whole report, for a person to read."""
    environment = report["environment"]
    lines = [f"# {environment['gpu']}", ""]
    if report["dry_run"]:
        lines += ["**A dry run without a GPU: tiny cells on a CPU. No figure means anything.**", ""]
    if not report["complete"]:
        lines += ["**The run is not complete.**", ""]
    lines += ["Made by `python bench/gpu.py`, from the JSON beside it. Times are medians.", ""]
    lines += section_of_environment(report)
    lines += section_of_times(report)
    lines += section_of_misses(report)
    lines += section_of_absentees(report)
    return "\n".join(lines) + "\n"


def section_of_environment(report: Facts) -> list[str]:
    facts = {n: v for n, v in report["environment"].items() if not isinstance(v, dict)}
    facts |= {f"version of {n}": v for n, v in report["environment"]["versions"].items()}
    lines = ["## Machine", "", "| | |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    lines += ["", "## Roofs", "", "| | measured | datasheet |", "| --- | ---: | ---: |"]
    sheet = report["sheet"]
    for name, value in report["roofs"].items():
        told = told_of(sheet, name) or ""
        lines.append(f"| {name.replace('_', ' ')} | {rate(value)} | {rate(told)} |")
    lines += ["", *low_roofs(report)]
    return [*lines, *([f"{sheet}.", ""] if isinstance(sheet, str) else [])]


def low_roofs(report: Facts) -> list[str]:
    """Measured roofs below half of the datasheet's: a share of them is no praise."""
    lines = []
    for name, value in report["roofs"].items():
        told = told_of(report["sheet"], name)
        if not isinstance(value, str) and told and value < told / 2:
            what = name.replace("_", " ")
            lines.append(f"- **{what}: {value / told:.0%} of the datasheet's were measured.**")
    return [*lines, ""] if lines else []


def told_of(sheet: Facts | str, name: str) -> float | None:
    """What the datasheet has for a measured roof."""
    if isinstance(sheet, str):
        return None
    return sheet.get(name if "operations" in name else "bytes_per_second")


def rate(value: Any) -> str:
    return value if isinstance(value, str) else f"{value / 1e9:,.1f} G"


def section_of_times(report: Facts) -> list[str]:
    """A row for each cell: the fastest of our backends that ran, and the best of the others."""
    lines = [
        "## Times",
        "",
        "Of our backend: milliseconds on the device, with quartiles, and of the whole call; the",
        "share of the roof that binds, measured, and by the datasheet. Beside it the fastest exact",
        "peer, the fastest that is not exact, and our other backends: their time / ours (above 1",
        "we are faster), with quartiles. A \\* cell is cold: nothing is in the GPU's cache.",
        "",
        "| cell | ours | ms | quartiles | call ms | roof | binds | datasheet | best exact peer "
        "| best inexact peer | our others |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- | --- | --- |",
    ]
    lines += [row_of(cell) for cell in report["cells"] if cell["ours"] is not None]
    reduced = [cell for cell in report["cells"] if cell["reduced"]]
    lines += ["", *(f"- {title(cell)} has {cell['reduced']}." for cell in reduced)]
    return [*lines, "", *throttled(report)]


def row_of(cell: Facts) -> str:
    rows = cell["contestants"]
    mine = rows[cell["ours"]]
    seconds, roof = mine["seconds"], mine["roof"]
    sheet = max((roof[key] for key in roof if key.startswith("sheet_")), default=None)
    peers = {name: row for name, row in rows.items() if row["kind"] == "peer"}
    others = {n: r for n, r in rows.items() if r["kind"] == "ours" and n != cell["ours"]}
    cells = [
        title(cell) + (" \\*" if cell["cold"] else ""),
        cell["ours"],
        f"{1e3 * seconds['median']:.3f}",
        f"{1e3 * seconds['low']:.3f} to {1e3 * seconds['high']:.3f}",
        f"{1e3 * mine['call_seconds']['median']:.3f}",
        f"{roof['share']:.0%}",
        "memory" if roof["share"] == roof["bytes_share"] else f"{roof['kind']} products",
        "" if sheet is None else f"{sheet:.0%}",
        *(
            beside(*best) if best else "none"
            for best in map(partial(fastest, peers), (True, False))
        ),
        ", ".join(beside(name, row) for name, row in others.items()),
    ]
    return f"| {' | '.join(cells)} |"


def fastest(peers: Facts, exact: bool) -> tuple[str, Facts] | None:
    """The fastest peer that is exact, or that is not."""
    rows = {name: row for name, row in peers.items() if row["exact"] == exact}
    return min(rows.items(), key=lambda entry: entry[1]["ratio"]["median"], default=None)


def beside(name: str, row: Facts) -> str:
    """A contestant's time over ours."""
    ratio = row["ratio"]
    told = f"{name} {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return told if row["agreement"] == 1 else f"{told}, {row['agreement']:.2%} as the reference"


def title(cell: Facts) -> str:
    return f"{cell['name']}, {cell['job']}"


def throttled(report: Facts) -> list[str]:
    """Cells in which the SM clock fell by more than a twentieth."""
    lines = []
    for cell in report["cells"]:
        before, after = (cell.get("clocks", {}).get(when) for when in ("before", "after"))
        if isinstance(before, dict) and isinstance(after, dict):
            first, last = before["sm_mhz"], after["sm_mhz"]
            if last < 0.95 * first:
                lines.append(f"- {title(cell)}: the clock fell from {first} to {last} MHz.")
    return ["Clocks that fell while a cell ran:", "", *lines, ""] if lines else []


def misses(report: Facts) -> list[str]:
    """What was asked for and not reached, a sentence each."""
    found = []
    for cell in report["cells"]:
        found += [f"{title(cell)}: {name} is wrong or failed" for name in cell["wrong"]]
        if cell["ours"] is None:
            found.append(f"{title(cell)}: none of our backends ran")
            continue
        rows = cell["contestants"]
        roof = rows[cell["ours"]]["roof"]
        for beginning, key, asked, what in TARGETS:
            share, whose = lower_share(roof, key)
            if cell["name"].startswith(beginning) and share < asked:
                found.append(f"{title(cell)}: {share:.0%} of {what}{whose}, of {asked:.0%}")
        peers = {name: row for name, row in rows.items() if row["kind"] == "peer"}
        found += [
            f"{title(cell)}: {beside(*best)} of our time{what}"
            for best, what in (
                (fastest(peers, exact=True), ""),
                (fastest(peers, exact=False), ", and is not exact"),
            )
            if best is not None and best[1]["ratio"]["median"] < 1
        ]
    return found


def lower_share(roof: Facts, key: str) -> tuple[float, str]:
    """The smaller of the shares of the measured roof and of the datasheet's, and a word on it."""
    kinds = ((key, ""), (f"sheet_{key}", " by the datasheet"))
    return min(((roof[each], whose) for each, whose in kinds if each in roof), default=(0.0, ""))


def section_of_misses(report: Facts) -> list[str]:
    lines = [
        "## Missed targets",
        "",
        "A share counts by the measured roof or the datasheet's, whichever makes it smaller.",
        "",
    ]
    return [*lines, *(f"- {each}" for each in misses(report) or ["none"]), ""]


def section_of_absentees(report: Facts) -> list[str]:
    """Who did not take part: each reason once, with its cells."""
    cells: dict[tuple[str, str], list[str]] = {}
    for cell in report["cells"]:
        for name, why in cell["left_out"].items():
            cells.setdefault((name, why), []).append(title(cell))
    lines = ["## Not measured", ""]
    for (name, why), where in cells.items():
        which = "every cell" if len(where) == len(report["cells"]) else f"{len(where)} cells"
        which = which if len(where) > 3 else "; ".join(where)
        lines.append(f"- {name}: {why} ({which})")
    return [*lines, *([] if cells else ["- nobody"])]
