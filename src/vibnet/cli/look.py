"""`vibnet recipes`, `vibnet plan` and `vibnet report`: look, and change nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch import nn

from vibnet.cli import given, say
from vibnet.cost import Layer, cuttable_time, layers
from vibnet.errors import ArtefactError, ConfigError
from vibnet.graph.sites.branches import fewest
from vibnet.graph.sites.nested import nesting
from vibnet.graph.sites.prices import totals
from vibnet.graph.sites.stock import ready
from vibnet.graph.sites.structure import Graph, Request
from vibnet.graph.trial.probe import analyse
from vibnet.recipes.catalog import RECIPES
from vibnet.report import read, write_page
from vibnet.report.network import picture
from vibnet.report.record import finished
from vibnet.surgery.files import PLAN, write
from vibnet.surgery.plan import Plan, of_graph


def recipes() -> None:
    """List the recipes."""
    say.table(
        ("recipe", "data", "epochs", "gamma", "about"),
        (
            (
                name,
                recipe.data,
                "+".join(
                    str(n)
                    for n in (
                        recipe.settings.dense_epochs,
                        recipe.settings.gate_epochs,
                        recipe.settings.tune_epochs,
                    )
                    if n
                ),
                f"{recipe.settings.gamma:g}",
                recipe.about,
            )
            for name, recipe in RECIPES.items()
        ),
        (2, 3),
    )


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs.")],
) -> None:
    """Write the page of one or several runs again."""
    found = [read(folder) for folder in folders]
    for recorded in found:
        say.line(str(write_page(recorded)))


@dataclass(frozen=True)
class Reach:
    """What cutting could take away at most, in percent of weights and of multiply-adds."""

    weights: float
    macs: float


def reach(graph: Graph) -> Reach:
    """The shares that go when every site is cut to the fewest units that its constraints allow."""
    if not graph.sites:
        return Reach(0.0, 0.0)
    none = np.zeros(graph.total, dtype=np.bool_)
    units = [site.units for site in graph.sites]
    least = fewest(graph, none, np.zeros(graph.total), inner=nesting(graph))
    sited = np.concatenate(units)
    kept = np.ones(graph.total, dtype=np.bool_)
    kept[sited] = least[sited]
    whole, small = totals(graph, np.ones(graph.total, dtype=np.bool_)), totals(graph, kept)
    shares = [100 * (1 - s / w) if w else 0.0 for s, w in zip(small, whole, strict=True)]
    return Reach(shares[0], shares[1])


def plan(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder of a run that is over.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODULE:FACTORY", help="A model before any training.")
    ] = None,
    example: Annotated[
        str | None, typer.Option(metavar="SHAPE", help="Shape of its input: 1,3,32,32.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="MODULE:FACTORY", help="Data whose example is used.")
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Single inputs too.")] = False,
    features: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Single features it reads too.")
    ] = None,
    replace_attention: Annotated[
        bool, typer.Option("--replace-attention", help="As `vibnet run` does.")
    ] = False,
    allow_inexact: Annotated[
        bool, typer.Option("--allow-inexact", help="As `vibnet run` does.")
    ] = False,
    remove_branches: Annotated[
        bool, typer.Option("--remove-branches", help="As `vibnet run` does.")
    ] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Time every layer of a model at batch 1.")
    ] = False,
    picture_in: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.svg", help="Draw the layers and their sites."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what can be cut in a model, or what was cut in a run, and why the rest stays."""
    if (folder is None) == (model is None):
        raise ConfigError("plan: name the folder of a run, or give --model and --example.")
    if folder is not None:
        if latency:
            raise ConfigError("plan: --latency times a model. Give --model and --example.")
        found = _saved(folder)
        _draw(found, (), picture_in)
        _show(found, None, (), as_json)
        return
    assert model is not None
    if (example is None) == (data is None):
        raise ConfigError("plan: give --example or --data, to know what the model is called with.")
    network: nn.Module = given.model(model)
    called = given.example(example) if example is not None else given.data(str(data)).example
    asked = replace_attention, allow_inexact, remove_branches
    request = Request.of(features or (), inputs, (), *asked)
    network = ready(network, request)
    graph = analyse(network, called, request)
    timed = layers(network, called, graph=graph) if latency else []
    found = of_graph(graph, np.ones(graph.total, dtype=np.bool_))
    _draw(found, timed, picture_in)
    _show(found, reach(graph), timed, as_json)


def _draw(plan: Plan, timed: Sequence[Layer], target: Path | None) -> None:
    """Write the picture of a plan."""
    if target is None:
        return
    if target.suffix != ".svg":
        raise ConfigError(
            f"plan: --picture writes SVG. Name a file that ends in .svg, not {target}."
        )
    try:
        write(target, picture(plan, timed).encode())
    except OSError as error:
        raise ConfigError(f"plan: {target} cannot be written ({error}). Name another.") from error


def _saved(folder: Path) -> Plan:
    path = finished(folder).model / PLAN
    try:
        body = json.loads(path.read_text())
        text = json.dumps(body["plan"])
    except FileNotFoundError as error:
        raise ArtefactError(f"there is no {PLAN} in {path.parent}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{path} is truncated or no plan ({error!r}).") from error
    return Plan.from_json(text)


def _show(plan: Plan, share: Reach | None, timed: Sequence[Layer], as_json: bool) -> None:
    if as_json:
        body = json.loads(plan.to_json())
        if share is not None:
            body |= {"reach": {"weights": share.weights, "macs": share.macs}}
        if timed:
            body |= {"layers": [vars(layer) for layer in timed]}
            body["reach"]["latency"] = 100 * cuttable_time(timed)
        print(json.dumps(body, indent=1))
        return
    flows = {
        name: (", ".join(plan.writers[name]), ", ".join(plan.readers[name])) for name in plan.sizes
    }
    lines = [
        (name, f"{len(plan.kept[name]):,}", f"{size:,}", *flows[name], plan.ungated.get(name, ""))
        for name, size in plan.sizes.items()
    ]
    if any(row[-1] for row in lines):
        say.table(("site", "kept", "of", "written by", "read by", "no gate"), lines, (1, 2))
    elif lines:
        cut = [row[:-1] for row in lines]
        say.table(("site", "kept", "of", "written by", "read by"), cut, (1, 2))
    else:
        say.line("Nothing in this model can be cut.")
    if plan.pinned:
        say.line()
        say.table(("kept whole", "why"), plan.pinned.items())
    if plan.unused:
        say.line(f"\nnever used by the example: {', '.join(plan.unused)}")
    if share is not None:
        say.line(
            f"\nCut to the fewest units, {share.weights:.1f} % of the weights and "
            f"{share.macs:.1f} % of the multiply-adds would go."
        )
    if timed:
        _times(timed)


def _times(timed: Sequence[Layer]) -> None:
    """The table of the layers' times."""
    total = sum(layer.seconds for layer in timed)
    say.line()
    say.table(
        ("layer", "class", "weights", "multiply-adds", "in sites %", "ms", "of the time %"),
        (
            (
                layer.name,
                layer.kind,
                *((f"{layer.weights:,}", f"{layer.macs:,.0f}") if layer.macs else ("", "")),
                f"{100 * layer.cuttable:.0f}" if layer.macs else "",
                f"{1000 * layer.seconds:.3f}",
                f"{100 * layer.seconds / total:.1f}",
            )
            for layer in timed
        ),
        range(2, 7),
    )
    say.line(
        f"\n{1000 * total:.3f} ms a forward at batch 1; {100 * cuttable_time(timed):.1f} % of it "
        f"is in rows and columns that sites could give up."
    )
