"""`vibnet run`: train, cut, test, write it down."""

import shlex
import signal
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from vibnet.cli import given, jobs, say
from vibnet.cli.progress import Watch
from vibnet.errors import ConfigError
from vibnet.recipes.run import Job
from vibnet.recipes.run import run as run_job
from vibnet.report import read, write_page
from vibnet.train.budget import shown
from vibnet.train.loop import check

INTERRUPTED = 128  # and the number of the signal
OVER_BUDGET = 3

Recipe = Annotated[str | None, typer.Argument(help="A name from `vibnet recipes`.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; as often as you like."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/<name>-<n>.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Final = Annotated[bool, typer.Option("--final", help="Train on all images, hold none out.")]
Limit = Annotated[
    str | None, typer.Option(metavar="TIME", help="Save and stop in time: 90s, 30m, 2h.")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch missing data.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Of PyTorch on the CPU; small networks are fastest on 1.")
]
NoShrink = Annotated[bool, typer.Option("--no-shrink", help="Take no units out while training.")]
Model = Annotated[
    str | None, typer.Option(metavar="MODULE:FACTORY", help="Your own model, instead of a recipe.")
]
Data = Annotated[
    str | None, typer.Option(metavar="MODULE:FACTORY", help="Your own data, for --model.")
]
Inputs = Annotated[
    bool, typer.Option("--inputs", help="Gate the single inputs that linear layers read too.")
]
Features = Annotated[
    list[str] | None,
    typer.Option(metavar="LAYER", help="Gate the single features that this linear layer reads."),
]
Replace = Annotated[
    bool,
    typer.Option("--replace-attention", help="Stock attentions by one that can hold fewer heads."),
]
Inexact = Annotated[
    bool, typer.Option("--allow-inexact", help="Gate units under layer norms: outputs move.")
]
Branches = Annotated[
    bool, typer.Option("--remove-branches", help="Residual branches may go whole.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="KIND|SITE=PRICE,...",
        help="Price of a unit: uniform, width, area, macs, params or memory; or of sites by name.",
    ),
]
TargetMacs = Annotated[
    str | None, typer.Option(metavar="SIZE", help="At most these multiply-adds: 5% or 115k.")
]
TargetWeights = Annotated[
    str | None, typer.Option(metavar="SIZE", help="At most these weights: 5% or 3k.")
]
TargetMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Model and activations, at most: 20% or 200kB.")
]
TargetLatency = Annotated[
    str | None, typer.Option(metavar="TIME", help="One example, at most, measured: 50% or 2ms.")
]
MaxError = Annotated[
    str | None, typer.Option(metavar="ERROR", help="The largest error on validation: 1.6.")
]


def run(
    recipe: Recipe = None,
    changes: Sets = None,
    out: Out = None,
    resume: Resume = False,
    final: Final = False,
    time_limit: Limit = None,
    download: Download = False,
    device: Device = "cpu",
    threads: Threads = None,
    no_shrink: NoShrink = False,
    model: Model = None,
    data: Data = None,
    inputs: Inputs = False,
    features: Features = None,
    weights: Weights = None,
    replace_attention: Replace = False,
    allow_inexact: Inexact = False,
    remove_branches: Branches = False,
    target_macs: TargetMacs = None,
    target_weights: TargetWeights = None,
    target_memory: TargetMemory = None,
    target_latency: TargetLatency = None,
    max_error: MaxError = None,
) -> None:
    """Train a network, close its useless units, cut them out, test, and write a report."""
    wanted = given.changes(changes or [])
    if no_shrink:
        if wanted.get("shrink", "false").lower() != "false":
            raise ConfigError(f"--no-shrink and --set shrink={wanted['shrink']} contradict.")
        wanted["shrink"] = "false"
    targets = {
        "macs": target_macs,
        "weights": target_weights,
        "memory": target_memory,
        "latency": target_latency,
        "error": max_error,
    }
    wanted, limit = wanted | given.budget(targets, wanted), given.seconds(time_limit)
    asked = jobs.Asked(
        recipe,
        model,
        data,
        wanted,
        final,
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
    if not resume:
        check(job.model, job.data.example, job.settings, job.options)  # before there is a folder
    folder = jobs.folder(asked, out, resume)
    jobs.start(asked, job, folder)
    _run(asked, job, folder, limit, resume)


def _stop(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def _run(asked: jobs.Asked, job: Job, folder: Path, limit: float, resume: bool) -> None:
    say.line(f"{job.name} -> {folder}")
    if job.notes.get("about") and asked.recipe:
        say.line(job.notes["about"])
    if asked.device == "cpu" and torch.set_flush_denormal(True):
        say.line("On the CPU, numbers below 1.2e-38 count as zero from here on: it is faster.")
    again = f"{asked.command} --out {shlex.quote(str(folder))} --resume"
    held_out = bool(job.notes.get("images", {}).get("validation", 1))
    watch = Watch(say.out, job.settings, job.objective.name, held_out)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with watch:
            body = run_job(
                job,
                folder,
                resume=resume,
                seconds=limit,
                command=asked.command,
                on_epoch=watch,
                on_warning=say.warning,
            )
    except KeyboardInterrupt as stop:
        kept = any((folder / "checkpoint").glob("*.json"))
        state = "The last checkpoint is kept." if kept else "There was no checkpoint yet."
        say.line(f"Stopped. {state} Go on with:\n  {again}")
        raise typer.Exit(INTERRUPTED + (stop.args or (signal.SIGINT,))[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    recorded = read(folder)
    if not body["done"]:
        say.line(f"The time is over; a checkpoint is kept. Go on with:\n  {again}")
    else:
        say.line()
        say.before_and_after(recorded)
        say.line()
        say.line(f"small model: {recorded.model}")
    try:
        say.line(f"report:      {write_page(recorded)}")
    except ConfigError as error:
        say.warning(str(error))
    if body.get("budget"):
        _budget(body["budget"])


def _budget(budget: dict[str, Any]) -> None:
    """Say whether the budget was kept; the exit status says it too."""
    limit, reached = (shown(budget["kind"], budget[name]) for name in ("limit", "reached"))
    met = "kept" if budget["met"] else "NOT kept"
    say.line(f"budget:      {budget['asked']}, at most {limit}: {met}, with {reached}")
    if not budget["met"]:
        raise typer.Exit(OVER_BUDGET)
