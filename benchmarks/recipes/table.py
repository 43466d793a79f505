"""Make docs/results.md from the JSON of `seeds.py`: nobody types a number into a table."""

import json
import math
from pathlib import Path
from typing import Any

from vibnet.recipes import summary
from vibnet.recipes.summary import FIGURES, cell
from vibnet.report.frontier import text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "results.md"
HEAD = """# Results

Made by `python benchmarks/recipes/table.py` from JSON in `benchmarks/recipes/results`; every run of
a recipe is made by `python benchmarks/recipes/seeds.py`. A cell holds the mean over seeds, its
standard deviation, and [best, worst]. `final` runs train on all training images, `held-out` ones
keep the validation images out. The test set is opened once, after the last epoch. Seconds are wall
time of the training on the threads named, and depend on the machine and on what else ran on it;
seconds of the processor do so less. A run's name says what was changed in its recipe as the recipe
was then; all settings and prices stand under `settings` and `options` in its JSON. `t1-a`, `t1-b`,
`table2-d`, `-h` and `-i` are `table1-vibnet` and `table2-vibnet` at other prices; both
`table2-vibnet,held-out,ema=0.999` rows are of a recipe with prices area, area, 20, 20 and a gate
rate of 1e-2. Choices were made by sizes and the validation error of `held-out` runs, which `final`
ones lack, but for two of `lenet5-mnist` that looked at test errors too ([lab notes](lab-notes.md)).

"""


def held_out(run: dict[str, Any]) -> float:
    """The small network's error on images held out of training; NaN where there were none."""
    return FIGURES["validation"](run) if run["notes"]["images"]["validation"] else math.nan


COLUMNS = {
    "r_W (%)": FIGURES["r_W"],
    "MACs (M)": FIGURES["macs"],
    "r_N (%)": FIGURES["r_N"],
    "dense test error (%)": FIGURES["dense_test"],
    "small validation error (%)": held_out,
    "small test error (%)": FIGURES["test"],
    "seconds": lambda run: run["timing"]["seconds"],
    "seconds of the processor": lambda run: run["timing"].get("cpu_seconds", math.nan),
}


def runs(kind: Path) -> list[dict[str, Any]]:
    """The finished runs of a kind, by seed."""
    return [json.loads(path.read_text()) for path in sorted(kind.glob("seed-*.json"))]


def cells(values: list[float]) -> str:
    """Mean, spread, best and worst; of one run its value; nothing where a run has none."""
    return "" if any(map(math.isnan, values)) else text(cell(values))


def interval(differences: list[float]) -> str:
    """Mean of paired differences with a 95 % interval (Student's t)."""
    found = summary.paired(differences)
    wide = "" if found["half"] is None else f" ± {found['half']:.3f}"
    return f"{found['mean']:+.3f}{wide} (n = {found['n']})"


def paired(kind: Path) -> str:
    """Shrinking against the same seeds without, where both have been run."""
    other = kind.with_name(f"{kind.name},shrink=false")
    a = {run["settings"]["seed"]: run for run in runs(kind)}
    b = {run["settings"]["seed"]: run for run in runs(other)}
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return ""
    lines = [f"Shrinking against not shrinking, {kind.name}, paired by seed, 95 % interval:\n"]
    for name in ("r_W (%)", "small test error (%)"):
        read = COLUMNS[name]
        lines.append(f"- {name}: {interval([read(a[s]) - read(b[s]) for s in seeds])}")
    for name in ("seconds", "cpu_seconds"):
        faster = [b[s]["timing"][name] / a[s]["timing"][name] for s in seeds]
        lines.append(f"- times fewer {name}, whole run: {cells(faster)} (n = {len(seeds)})")
    lines.append("")
    return "\n".join(lines)


def beside_scratch(kind: Path) -> str:
    """The small networks against the same shapes trained from new weights, where that was done."""
    found = [run for run in runs(kind) if "scratch" in run]
    if not found:
        return ""
    small = [run["test"]["small"] for run in found]
    new = [run["scratch"]["test"] for run in found]
    dense = [run["test"]["dense"] for run in found]
    return "\n".join(
        [
            f"The same shapes trained from new weights (`scratch.py`), {kind.name}, as many epochs "
            f"in all, test error in percent, paired by seed, 95 % interval:\n",
            f"- from new weights: {cells(new)}",
            f"- small less new: {interval([a - b for a, b in zip(small, new, strict=True)])}",
            f"- small less dense: {interval([a - b for a, b in zip(small, dense, strict=True)])}\n",
        ]
    )


def budgets(kinds: list[Path]) -> str:
    """How budgets were kept: a size by how many units of the coarsest site, an error on the test.

    An error that was promised on validation images is held when the test error is not above it by
    more than two standard errors.
    """
    rows = []
    for kind in kinds:
        for run in runs(kind):
            budget = run.get("budget")
            if not budget:
                continue
            limit, reached, test = budget["limit"], budget["reached"], run["test"]["small"]
            if budget["kind"] == "error":
                share = test / 100
                wide = 200 * (share * (1 - share) / run["test_examples"]) ** 0.5
                held = "no success claimed"
                if budget["met"]:
                    held = "holds" if test <= limit + wide else "does not hold"
                below = f"test {test:.2f} against {limit:g} + {wide:.2f}: {held}"
            else:
                below = f"{limit - reached:,.6g} below"
                if budget.get("unit"):
                    below += (
                        f", {(limit - reached) / budget['unit']:.2f} units of the coarsest site"
                    )
            made = kind.name, run["settings"]["seed"], budget["asked"], f"{limit:,.6g}"
            rows.append((*made, f"{reached:,.6g}", "yes" if budget["met"] else "no", below, test))
    if not rows:
        return ""
    head = "run", "seed", "budget", "limit", "reached", "met", "how near", "test error (%)"
    lines = ["Budgets, run by run:\n", f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    kinds = sorted(path for path in RESULTS.iterdir() if path.is_dir() and runs(path))
    lines = [
        HEAD,
        f"| run | n | {' | '.join(COLUMNS)} | threads |",
        "| --- " * (len(COLUMNS) + 3) + "|",
    ]
    for kind in kinds:
        found = runs(kind)
        row = [cells([read(run) for run in found]) for read in COLUMNS.values()]
        threads = sorted({run["host"]["threads"] for run in found})
        lines.append(f"| {kind.name} | {len(found)} | {' | '.join(row)} | {threads} |")
    lines += [
        "",
        *filter(None, (part(kind) for kind in kinds for part in (beside_scratch, paired))),
        budgets(kinds),
    ]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
