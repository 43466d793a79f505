"""The training loop: dense epochs, epochs with gates, the cut, fine-tuning."""

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.graph import checks
from vibnet.surgery.attach import attach, penalty
from vibnet.surgery.gated import Gated
from vibnet.surgery.prune import Report, prune
from vibnet.train import checkpoint, saved, watch
from vibnet.train.budget import Budget
from vibnet.train.clock import Clock
from vibnet.train.evaluate import Batches, call, examine, validate
from vibnet.train.layout import Formats, put_back, put_channels_last
from vibnet.train.objective import Function, Objective, classification, distilled, function
from vibnet.train.phases import Record, State
from vibnet.train.schedule import rate


class Data(Protocol):
    """Training and validation examples.

    Attributes:
        example: what the model is called with, for tracing; small.
        steps: batches in an epoch.
    """

    example: Any
    steps: int

    def train(self, epoch: int) -> Batches:
        """Batches of (inputs, targets): a function of the epoch, counted over all phases."""

    def validation(self) -> Batches:
        """Batches that are never trained on."""


@dataclass
class Fit:
    """What training gave.

    Attributes:
        dense: the model after the dense phase.
        gated: the model after the phase with gates; None before that phase and in fine-tuning.
        small: the model after the cut and fine-tuning.
        report: of the cut, against the dense model.
        snr: per gated site the signal-to-noise ratio of every unit, as it left or at the end.
        history: a record per epoch.
        budget: what the small model was allowed to cost, and how that was kept; None without one.
        warnings: what looked wrong.
        seconds: of wall time, of this call and those that it goes on from.
        cpu_seconds: the same of the processor's time, over all threads.
        done: whether all phases are over, or the time was.
    """

    dense: nn.Module
    gated: Gated | None
    small: nn.Module | None
    report: Report | None
    snr: dict[str, list[float]]
    history: list[Record]
    budget: dict[str, Any] | None
    warnings: list[str]
    seconds: float
    cpu_seconds: float
    done: bool


def fit(
    model: nn.Module,
    data: Data,
    objective: Objective | Function | None = None,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    options: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    seconds: float = float("inf"),
    save_every: float = 20.0,
    on_epoch: Callable[[Record], None] = lambda _record: None,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> Fit:
    """Train a model, close its useless units, take them out.

    The random state of the process is left as it was.

    Args:
        model: any module, on its device; a copy is trained.
        data: training and validation batches.
        objective: loss and metric, or a function of output and target that is the loss;
            classification by default.
        settings: epochs, rates, gamma and the rest.
        options: of `vibnet.attach`.
        folder: for checkpoints; without it there are none.
        resume: go on from the newest whole checkpoint in the folder.
        seconds: save and stop before this time is over.
        save_every: seconds between checkpoints, at least; one is written at the end of an epoch.
        on_epoch: called with every record.
        on_warning: called with what looks wrong.

    Returns:
        The models and the history.

    Raises:
        TrainingError: the loss is not finite.
        NoSitesError: the model has nothing to gate.
        ConfigError: the checkpoint was made with other settings; the folder holds checkpoints that
            are not to be resumed; or `data.train` gives another number of batches than it says.
        ArtefactError: all checkpoints are damaged.
    """
    clock = Clock(seconds, save_every)
    objective = objective or classification()
    if not isinstance(objective, Objective):
        objective = function(objective)
    where = checkpoint.place(folder, resume)
    if where is not None:
        checks.only_tensors("fit", model)
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(settings.seed)
        inner = copy.deepcopy(model)
        formats = put_channels_last(inner) if settings.channels_last else {}
        state = State(settings, data.example, dict(options or {}), inner, data.steps)
        if where is not None and resume and (found := checkpoint.load(where)):
            saved.restore(state, *found)
            checkpoint.tidy(where)  # the run may have been stopped before it did
            clock.go_on(found[1]["took"])
        else:
            with torch.random.fork_rng(cuda):  # what it refuses, it refuses before training
                check(state.model, state.example, settings, state.options)
        while True:
            for record in _phase(state, data, objective, on_warning):
                on_epoch(record)
                clock.tick()
                if where is not None and (clock.due or clock.over or state.finished):
                    body = saved.body(state) | {"took": clock.took}
                    checkpoint.save(where, len(state.history), saved.tensors(state), body)
                    clock.saved()
                if clock.over and not state.finished:
                    return _result(state, clock, formats, done=False)
            if state.phase == state.last_phase:
                return _result(state, clock, formats, done=True)
            state.advance()


def check(model: nn.Module, example: Any, settings: Settings, options: Mapping[str, Any]) -> None:
    """Refuse what could only fail after the dense phase: no gates, or a budget out of reach.

    Raises:
        NoSitesError: the model has nothing to gate.
        ConfigError: bad options, or a budget that is not one or cannot be met.
    """
    budget = Budget.parse(settings.budget)
    gated = attach(model, example, **options)
    if budget is not None:
        if not settings.gate_epochs:
            raise ConfigError(
                f"the budget {settings.budget} is kept by epochs with gates, and gate_epochs is 0."
            )
        if not settings.gamma:
            raise ConfigError(
                f"the budget {settings.budget} is kept by a multiple of gamma, and gamma is 0. "
                f"Leave gamma as it is, or name one to start from."
            )
        budget.check(gated)


def _result(state: State, clock: Clock, formats: Formats, done: bool) -> Fit:
    small, report = None, state.report
    state.put_modes_back()
    gated = state.result if isinstance(state.result, Gated) else None
    if gated is not None:
        if done:
            state.note_snr(gated)
            small, report = prune(gated)
    elif state.phase == "tune":
        small = state.result
    dense = state.dense if state.dense is not None else state.result
    for handed_out in (dense, small, gated.model if gated is not None else None):
        if handed_out is not None:
            put_back(handed_out, formats)
    if report is not None:
        whole = all(len(report.plan.kept[n]) == size for n, size in report.plan.sizes.items())
        before = sum(p.numel() for p in dense.parameters())
        report = replace(report, weights=(before, report.weights[1]), unchanged=whole)
    kept = state.steering.outcome() if state.steering is not None else None
    parts = report, state.snr, state.history, kept, state.warnings
    return Fit(dense, gated, small, *parts, *clock.took, done)


def _phase(
    state: State, data: Data, objective: Objective, on_warning: Callable[[str], None]
) -> Iterator[Record]:
    """The epochs that are left of a phase."""
    settings, model = state.settings, state.model
    if isinstance(model, Gated) and state.epochs and state.epoch == 0:
        steps = max(1, state.epochs * -(-data.steps // settings.accumulate))
        texts = [watch.out_of_reach(model, settings, steps)]
        if state.steering is not None:
            last = state.history[-1].validation if state.history else None
            texts.append(state.steering.warning(last))
        for text in texts:
            state.tell(text, on_warning)
    while state.epoch < state.epochs:
        loss, nats = _epoch(state, data, objective)
        state.epoch += 1
        error, spread = examine(state.result, data.validation(), objective)
        steering = state.steering
        if steering is not None and isinstance(state.result, Gated):
            steering.look(state.result, state.epoch / state.epochs, whole=True)
            steering.judge(error, spread, state.epochs)
            if steering.due(state.epoch, state.epochs):
                state.trim(lambda g: validate(g, data.validation(), objective), spread)
                state.tell(steering.haste(), on_warning)
                error = validate(state.result, data.validation(), objective)
            if state.epoch == state.epochs:
                dense = [r.validation for r in state.history if r.phase == "dense"]
                state.tell(steering.worsened(dense[-1] if dense else None, error), on_warning)
        record = state.record(loss, nats, error)
        if settings.shrink:
            state.shrink()
        yield record


def _epoch(state: State, data: Data, objective: Objective) -> tuple[float, float]:
    """One pass over the training data; the mean loss and the mean nats of the gates."""
    model, settings = state.model.train(), state.settings
    gated = isinstance(model, Gated)
    schedule = settings.gate_schedule if state.phase != "dense" else settings.dense_schedule
    loss_of = _loss(state, objective)
    device = next(model.parameters()).device.type
    total, nats, step, x = 0.0, 0.0, -1, None
    where = f"{state.phase} epoch {state.epoch + 1}"
    for step, (x, y) in enumerate(data.train(len(state.history))):
        if step >= data.steps:
            raise ConfigError(f"fit: data.train gave more than the {data.steps} batches it states.")
        progress = (state.epoch + step / data.steps) / state.epochs
        for group in state.optimizer.param_groups:
            group["lr"] = group["base"] * rate(schedule, progress)
        automatic = torch.autocast(device, torch.bfloat16, enabled=bool(settings.autocast))
        with automatic:
            loss = loss_of(x, call(model, x), y)
        if state.steering is not None and isinstance(state.result, Gated):
            state.steering.look(state.result, progress)
        gamma = state.gamma(progress)
        price = penalty(model, gamma or 1.0) if gated else loss.new_zeros(())
        charged = loss + price if gamma else loss
        now = float(charged.detach())
        if not math.isfinite(now):
            with automatic:
                raise watch.diverged(model, x, f"{where}, step {step + 1}")
        first = step - step % settings.accumulate  # the batches that make one step
        torch.autograd.backward(charged / min(settings.accumulate, data.steps - first))
        if (step + 1) % settings.accumulate == 0 or step + 1 == data.steps:
            _step(state, settings.clip)
        total += float(loss.detach())
        nats += float(price.detach()) / (gamma or 1.0)
    if step + 1 != data.steps or not data.steps:
        raise ConfigError(
            f"fit: data.train gave {step + 1} batches, but states {data.steps}. It must give as "
            f"many as it states, at least one."
        )
    if not watch.finite(list(model.parameters())):
        raise watch.diverged(model, x, f"{where}, after its last step")
    return total / data.steps, nats / data.steps


def _step(state: State, clip: float) -> None:
    if clip:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip)
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.average is not None:
        state.average.update_parameters(state.model)


def _loss(state: State, objective: Objective) -> Callable[[Any, Any, Any], Tensor]:
    """The loss of (inputs, outputs, targets)."""
    settings, teacher = state.settings, state.dense
    if not settings.distil or teacher is None:
        return lambda _x, output, y: objective.loss(output, y)
    teacher.eval()
    answers = functools.partial(call, teacher)
    return distilled(objective, answers, settings.distil, settings.temperature)
