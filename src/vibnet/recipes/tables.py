"""The paper's tables as sets of runs: VIBNet's row, its controls, and the figures in print."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import recipe
from vibnet.recipes.grid import Point
from vibnet.recipes.published import LENET5, LENET300, Row
from vibnet.recipes.run import check_settings
from vibnet.recipes.summary import cell, paired

MAIN, STEERED, OURS = "vibnet", "vibnet-steered", "VIBNet"
ROUNDING = (0.005, 0.0005, 0.005, 0.05)  # half of the last printed digit
_EXACT = 1e-9  # 1.6 + 0.05 is a little more than 1.65


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        about: what it is, for a reader.
        changes: settings that differ from the recipe's.
        options: of `vibnet.attach` that do.
        control: of `vibnet.recipes.controls`, made from every run of `vibnet`; "" for runs.
        extra: beside the conventional protocol: never in the headline.
        dense: without gates: the epochs of the whole run on the dense network, under a cosine.
        against: the row whose errors its own are compared with, seed by seed.
    """

    about: str
    changes: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    extra: bool = False
    dense: bool = False
    against: str = MAIN


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: as on the command line.
        about: what it shows.
        recipe: of the row `vibnet`.
        published: its rows in print.
        entries: our rows, by name; `vibnet` first.
    """

    name: str
    about: str
    recipe: str
    published: Mapping[str, Row]
    entries: Mapping[str, Entry]


def _entries(size: str) -> dict[str, Entry]:
    """All rows; those with a budget are steered to a size, so that errors can be compared."""
    budget = {"budget": f"weights={size}"}
    twin = "the deterministic twin (eq. 16), steered to"
    return {
        MAIN: Entry("the recipe"),
        "dense": Entry("the dense network, as many epochs", dense=True),
        "scratch": Entry("the small shape from new weights, as many epochs", control="scratch"),
        "tuned": Entry("tuned after the cut, without noise", control="tuned", extra=True),
        "tuned-with-noise": Entry(
            "tuned before the cut, gates fixed, with noise", control="tuned-with-noise", extra=True
        ),
        "magnitude": Entry("the dense network cut to the same widths by magnitude, trained on",
                           control="magnitude"),
        "second-round": Entry("its network gated anew, trained and cut a second time",
                              control="second-round", extra=True),
        "sampled": Entry("the mean of 1, 8 and 32 draws at test", control="sampled", extra=True),
        STEERED: Entry(f"the recipe, steered to {size} of the weights", budget),
        "twin-l1": Entry(f"{twin} {size}, |mu|", budget, {"method": "twin-l1"},
                         against=STEERED),
        "twin-rho": Entry(f"{twin} {size}, rho of eq. 18", budget, {"method": "twin-rho"},
                          against=STEERED),
        "distilled": Entry("half of the loss from the dense network's answers",
                           {"distil": "0.5"}, extra=True),
    }  # fmt: skip


TABLES = {
    table.name: table
    for table in (
        Table("table1", "LeNet-300-100 on MNIST", "table1-vibnet", LENET300, _entries("3.6%")),
        Table("table2", "LeNet-5-Caffe on MNIST", "table2-vibnet", LENET5, _entries("0.9%")),
    )
}


def table(name: str) -> Table:
    """A table by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TABLES:
        raise ConfigError(f"there is no table {name!r}. There are: {', '.join(TABLES)}.")
    return TABLES[name]


def points(
    of: Table,
    rows: Sequence[str],
    seeds: Sequence[int],
    changes: Mapping[str, str],
    *,
    final: bool = True,
    device: str = "cpu",
    download: bool = False,
) -> dict[str, list[Point]]:
    """The runs of some rows, by row, a point for every seed.

    Controls need the runs of `vibnet`, so that row is added where one is asked for.

    Args:
        of: the table.
        rows: their names.
        seeds: a run each.
        changes: settings of all runs, none that a row sets.
        final: train on all training images.
        device: where.
        download: fetch data that are missing.

    Raises:
        ConfigError: an unknown row, or a setting that the recipe, or a final run, does not take.
    """
    unknown = [row for row in rows if row not in of.entries]
    if unknown:
        known = ", ".join(of.entries)
        raise ConfigError(f"{of.name} has no row {', '.join(unknown)}. It has: {known}.")
    wanted = list(dict.fromkeys(rows))
    if MAIN not in wanted and any(of.entries[row].control for row in wanted):
        wanted.insert(0, MAIN)
    out: dict[str, list[Point]] = {}
    for row in wanted:
        entry = of.entries[row]
        both = sorted(set(entry.changes) & set(changes))
        if both:
            raise ConfigError(
                f"{of.name}: the row {row} sets {', '.join(both)} itself. Leave that row out, or "
                f"the setting."
            )
        settings = {**changes, **entry.changes}
        if entry.dense:
            alone = _without_gates(recipe(of.recipe).settings.replaced(**changes))
            settings = {"dense_schedule": "cosine", **settings, **alone}
        for seed in seeds:
            check_settings(recipe(of.recipe).settings.replaced(**settings, seed=str(seed)), final)
        out[row] = [
            Point(
                f"{row},seed={seed}",
                of.recipe,
                {**settings, "seed": str(seed)},
                dict(entry.options),
                final=final,
                device=device,
                download=download,
                control=entry.control,
                of=f"{MAIN},seed={seed}" if entry.control else "",
            )
            for seed in seeds
        ]
    return out


def _without_gates(settings: Settings) -> dict[str, str]:
    """What makes a run one of the dense network alone, as long as the whole."""
    epochs = settings.dense_epochs + settings.gate_epochs + settings.tune_epochs
    made = {"dense_epochs": epochs, "gate_epochs": 0, "tune_epochs": 0}
    return {name: str(n) for name, n in made.items()} | {"budget": ""}


def figures(body: Mapping[str, Any], main: Mapping[str, Any]) -> dict[str, float] | None:
    """r_W, multiply-adds in millions, r_N and the test error of one run or control.

    Args:
        body: what the run or the control gave.
        main: the run of `vibnet` with that seed, for a control.

    Returns:
        None where a control gives several errors, not one network.
    """
    if not body.get("control"):
        ratios = body["ratios"]
        sizes = ratios["r_W"], ratios["macs"] / 1e6, ratios["r_N"]
        return dict(zip(("r_W", "macs", "r_N"), sizes, strict=True)) | {
            "test": body["test"]["small"]
        }
    if "weights" not in body:
        return None
    before = main["before"]
    share = main["ratios"]["r_N"]  # of the widths that the run left, unless others were counted
    if "neurons" in body:
        share = 100.0 * body["neurons"] / before["neurons"]
    return {
        "r_W": 100.0 * body["weights"] / before["weights"],
        "macs": body["macs"] / 1e6,
        "r_N": share,
        "test": body["test"],
    }


def structure(body: Mapping[str, Any]) -> str:
    """Kept units, site after site: 97-71-33."""
    return "-".join(str(site["after"]) for site in body["sites"])


def at_most(value: float, printed: float, half: float) -> bool:
    """Whether a value would be printed as that or less. `half`: of the last printed digit.

    >>> at_most(1.64, 1.6, 0.05), at_most(1.65, 1.6, 0.05)
    (True, False)
    """
    return value < printed + half - _EXACT


def reaches(found: Mapping[str, float], row: Row) -> bool:
    """Whether one network is at least as good as a printed row in every figure, rounded as it."""
    values = found["r_W"], found["macs"], found["r_N"], found["test"]
    return all(
        wanted is None or at_most(value, wanted, half)
        for value, wanted, half in zip(values, row, ROUNDING, strict=True)
    )


def _against(
    each: Mapping[int, Mapping[str, float]], other: str, rows: Mapping[str, Any]
) -> dict[str, Any]:
    """How a row's test errors differ from another's, over the seeds that both have."""
    theirs = rows.get(other, {}).get("runs", {})
    both = [found["test"] - theirs[str(n)]["test"] for n, found in each.items() if str(n) in theirs]
    return {"against": {"row": other} | paired(both)} if both else {}


def result(of: Table, bodies: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """A table's figures, of finished runs by row and seed; rows without one are left out."""
    mains, printed = bodies.get(MAIN, {}), of.published[OURS]
    rows: dict[str, Any] = {}
    for name, entry in of.entries.items():
        runs = bodies.get(name, {})
        if entry.control:  # a control without its run says nothing
            runs = {seed: body for seed, body in runs.items() if seed in mains}
        each = {
            seed: found
            for seed, body in sorted(runs.items())
            if (found := figures(body, mains.get(seed, {}))) is not None
        }
        row: dict[str, Any] = {"about": entry.about, "extra": entry.extra, "seeds": sorted(runs)}
        if each:
            row["runs"] = {str(seed): found for seed, found in each.items()}
            row |= {k: cell([f[k] for f in each.values()]) for k in next(iter(each.values()))}
            row["mean_reaches"] = reaches({k: row[k]["mean"] for k in row["runs"][str(min(each))]},
                                          printed)  # fmt: skip
            row["seeds_that_reach"] = sum(reaches(found, printed) for found in each.values())
            row |= _against(each, entry.against, rows)
        elif runs:
            draws = next(iter(runs.values()))["test"]
            row["draws"] = {n: cell([body["test"][n] for body in runs.values()]) for n in draws}
        else:
            continue
        if not entry.control:
            row["structures"] = {str(seed): structure(body) for seed, body in sorted(runs.items())}
            seconds = [body["timing"]["cpu_seconds"] for body in runs.values()]
            row["cpu_seconds"] = statistics.mean(seconds)
            cut = {n: body["budget"]["live_units_cut"] for n, body in sorted(runs.items())
                   if body.get("budget")}  # fmt: skip
            row |= {"live_units_cut": cut} if cut else {}
        rows[name] = row
    body = {"name": of.name, "about": of.about, "recipe": of.recipe, "rows": rows}
    body["published"] = {name: list(row) for name, row in of.published.items()}
    return dict(json.loads(json.dumps(body)))
