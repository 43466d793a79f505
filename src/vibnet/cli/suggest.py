"""`vibnet suggest`: a gamma to begin with, from a short run in which gamma rises."""

from typing import Annotated

import torch
import typer

from vibnet.cli import given, jobs, say
from vibnet.cli.run import (
    Branches,
    Data,
    Device,
    Download,
    Features,
    Inexact,
    Inputs,
    Model,
    Recipe,
    Replace,
    Sets,
    Threads,
    Weights,
)
from vibnet.errors import ConfigError
from vibnet.train.loop import fit
from vibnet.train.suggest import check, suggest_gamma


def suggest(
    recipe: Recipe = None,
    changes: Sets = None,
    close: Annotated[
        float, typer.Option(help="Share of the units that should begin to close.")
    ] = 0.5,
    steps: Annotated[int, typer.Option(help="Of the probe, after the dense epochs.")] = 400,
    download: Download = False,
    device: Device = "cpu",
    threads: Threads = None,
    model: Model = None,
    data: Data = None,
    inputs: Inputs = False,
    features: Features = None,
    weights: Weights = None,
    replace_attention: Replace = False,
    allow_inexact: Inexact = False,
    remove_branches: Branches = False,
) -> None:
    """Train the dense phase, then probe: at which gamma do units begin to close?"""
    wanted = given.changes(changes or [])
    if "gamma" in wanted:
        raise ConfigError("suggest looks for gamma itself: leave --set gamma= out.")
    check(close, steps)
    asked = jobs.Asked(
        recipe,
        model,
        data,
        {**wanted, "gate_epochs": "0", "tune_epochs": "0", "budget": ""},
        False,
        download,
        device,
        inputs,
        tuple(features or ()),
        weights,
        threads,
        *(replace_attention, allow_inexact, remove_branches),
    )
    if threads is not None:
        torch.set_num_threads(threads)
    job = asked.job()
    if device == "cpu":
        torch.set_flush_denormal(True)
    say.line(f"{job.name}: {job.settings.dense_epochs} dense epochs, then {steps} steps")
    fitted = fit(job.model, job.data, job.objective, job.settings, options=job.options)
    assert fitted.gated is not None
    gamma = suggest_gamma(
        fitted.gated, job.data, job.objective, job.settings, close=close, steps=steps
    )
    say.line(
        f"At gamma {gamma:.2g} about {100 * close:g} % of the units begin to close. A long "
        f"training closes more at the same gamma: take it as an order of magnitude."
    )
    say.line(f"  --set gamma={gamma:.2g}")
