"""Put the frontiers of both tables into docs/tables.md: error against size, and the least sizes.

    vibnet sweep table1-vibnet --final --gammas 1.2e-4,3e-4 --out runs/frontier1
    python benchmarks/recipes/keep.py frontier1 runs/frontier1
    python benchmarks/recipes/frontier.py

A sweep at other prices is kept beside it as frontier1-NAME. Reads what `keep.py` has kept of the
sweeps and of the tables: nobody types a number into a table.
"""

import json
from pathlib import Path
from typing import Any

from vibnet.recipes.summary import FIGURES, cell
from vibnet.recipes.tables import MAIN, OURS, ROUNDING, TABLES, Table, at_most
from vibnet.report import charts
from vibnet.report.frontier import brief, read_frontier, short, text
from vibnet.report.tables import COLUMNS, check_place

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
SIZES = {"r_W": "r_W", "macs": "multiply-adds", "r_N": "r_N"}
UNITS = {"r_W": "%", "macs": "M", "r_N": "%"}
LARGER = {"table1": "lenet300-mnist", "table2": "lenet5-mnist"}  # recipes of the same networks


def mark(table: Table) -> str:
    """Of its frontier: the folder among the results, and the place in the page."""
    return table.name.replace("table", "frontier")


def prices(weights: str | dict[str, float | str]) -> str:
    """Those of a sweep's own, in words."""
    if isinstance(weights, str):
        return f" at prices {weights}"
    each = [f"{k} {v if isinstance(v, str) else brief(v)}" for k, v in weights.items()]
    return f" at {', '.join(each)}" if each else ""


def figures(folder: Path) -> list[dict[str, float]]:
    """Sizes and test error of the runs of a recipe, a seed each."""
    bodies = [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*.json"))]
    return [{name: FIGURES[name](body) for name in (*SIZES, "test")} for body in bodies]


def settings(table: Table) -> dict[str, list[dict[str, float]]]:
    """The runs of every point by its name: a larger recipe, the sweeps, and the table's own row."""
    larger = LARGER[table.name]
    found = {f"recipe {larger}": figures(RESULTS / f"{larger},final")}
    for folder in sorted(RESULTS.glob(f"{larger},final,budget=*%")):
        asked = folder.name.rpartition("budget=")[2].replace("=", " ")
        found[f"{larger} steered to {asked}"] = figures(folder)
    for folder in sorted(RESULTS.glob(f"{mark(table)}*")):
        sweep = read_frontier(folder)
        at = prices(sweep.get("options", {}).get("weights", {}))
        found |= {f"gamma {brief(row['gamma'])}{at}": row["runs"] for row in sweep["rows"]}
    rows = json.loads((RESULTS / table.name / f"{table.name}.json").read_text())["rows"]
    found["the row vibnet"] = list(rows[MAIN]["runs"].values())
    return found


def least(points: dict[str, list[dict[str, float]]], table: Table) -> list[str]:
    """Of every size the least mean at the printed error, rounded as that is; and the least run."""
    printed = table.published[OURS]
    wanted, half = printed[-1], ROUNDING[-1]
    assert wanted is not None
    lines = []
    for place, (size, name) in enumerate(SIZES.items()):
        if printed[place] is None:
            continue
        means = [
            (cell([run[size] for run in runs]), point, cell([run["test"] for run in runs]))
            for point, runs in points.items()
        ]
        good = [each for each in means if at_most(each[2]["mean"], wanted, half)]
        single = [
            (run[size], run["test"])
            for runs in points.values()
            for run in runs
            if at_most(run["test"], wanted, half)
        ]
        unit, parts = UNITS[size], [f"in print {printed[place]:g} {UNITS[size]}"]
        if good:
            best, point, error = min(good, key=lambda each: each[0]["mean"])
            runs = f"in the mean of {best['n']}" if best["n"] > 1 else "in one run"
            parts.append(f"{best['mean']:#.3g} {unit} {runs} ({point}, error {short(error)} %)")
        else:
            parts.append("no point's mean error")
        if single:
            run = min(single)
            parts.append(f"the least of a single run {run[0]:#.3g} {unit} at {run[1]:.2f} %")
        lines.append(f"- {name}: {'; '.join(parts)}")
    return lines


def section(table: Table) -> str:
    """The points as a table, the picture, and the least sizes."""
    points = settings(table)
    lines = [f"| point | n | {' | '.join(COLUMNS.values())} |", "| --- " * 6 + "|"]
    drawn: list[dict[str, Any]] = []
    for point, runs in points.items():
        cells = [text(cell([run[name] for run in runs])) for name in COLUMNS]
        lines.append(f"| {point} | {len(runs)} | {' | '.join(cells)} |")
        drawn.append({size: [run[size] for run in runs] for size in SIZES})
        drawn[-1]["error"] = [run["test"] for run in runs]
    picture = PAGE.parent / "tables" / f"{table.name}.svg"
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(charts.frontier(drawn, table.published))
    where = picture.relative_to(PAGE.parent)
    error = table.published[OURS][-1]
    lines += ["", f"![error against size, {table.about}]({where})", ""]
    lines += [f"The least sizes of these points where the error rounds to {error:g} % or less:", ""]
    return "\n".join([*lines, *least(points, table)])


def main() -> None:
    """Write the sections between their marks."""
    for table in TABLES.values():
        before, _, after = check_place(PAGE, mark(table))
        PAGE.write_text(f"{before}\n\n{section(table)}\n\n{after}")


if __name__ == "__main__":
    main()
