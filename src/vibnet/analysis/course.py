"""What the units of a trained network let through, over its epochs: rate, bound and truth."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vibnet import information
from vibnet.config import Settings
from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import Job, job
from vibnet.surgery.attach import attach, parameter_groups, penalty
from vibnet.surgery.gated import Gated
from vibnet.surgery.multiply import Multiply
from vibnet.train.evaluate import call, validate
from vibnet.train.phases import optimizer
from vibnet.train.schedule import rate

RECIPE, DELTA = "digits-mlp", 1e-3
EPOCHS = (0, 1, 2, 4, 8, 15, 25, 40, 60, 80, 100)
FORCED = 20  # units whose reader is held at zero
SEEDS = (0, 1, 2)
Quantities = dict[str, dict[str, list[float]]]


def prepared(seed: int, settings: Settings | None = None) -> tuple[Job, nn.Module]:
    """The recipe's data and its network, trained without gates."""
    settings = settings or recipe(RECIPE).settings
    made = job(recipe(RECIPE), {**_fields(settings), "seed": seed})
    model = copy.deepcopy(made.model)
    torch.manual_seed(seed)
    group = {"params": list(model.parameters()), "lr": settings.lr, "weight_decay": 0.0}
    steps = optimizer(made.settings, [group])
    for epoch in range(settings.dense_epochs):
        for x, y in made.data.train(epoch):
            steps.zero_grad()
            torch.autograd.backward(made.objective.loss(call(model, x), y))
            steps.step()
    return made, model


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in ("dense_epochs", "gate_epochs", "gamma")}


def gate_epochs(made: Job, gated: Gated, first: int, hold: Tensor | None = None) -> Iterator[int]:
    """Train with gates; yields the number of epochs that are over, 0 first.

    Args:
        made: data, loss and settings.
        gated: trained in place, nothing is cut.
        first: epochs that the data have been gone over before.
        hold: columns of the second layer that are held at zero.
    """
    settings = made.settings
    groups = parameter_groups(gated, settings.lr, settings.gate_lr)
    bases = [group["lr"] for group in groups]
    steps = optimizer(settings, groups)
    weight = _reader(gated).weight
    yield 0
    for epoch in range(settings.gate_epochs):
        gated.train()
        for k, (x, y) in enumerate(made.data.train(first + epoch)):
            progress = (epoch + k / made.data.steps) / settings.gate_epochs
            for group, base in zip(steps.param_groups, bases, strict=True):
                group["lr"] = base * rate(settings.gate_schedule, progress)
            steps.zero_grad()
            loss = made.objective.loss(call(gated, x), y) + penalty(gated, settings.gamma)
            torch.autograd.backward(loss)
            steps.step()
            if hold is not None:
                with torch.no_grad():
                    weight[:, hold] = 0.0
        yield epoch + 1


def _reader(gated: Gated) -> nn.Linear:
    """The layer that reads the first site."""
    module = gated.model.get_submodule(gated.sites[0].readers[0])
    assert isinstance(module, nn.Linear)
    return module


@contextmanager
def activations(gated: Gated) -> Iterator[dict[str, Tensor]]:
    """What every site's units are before their gate, by site, filled by the next forward."""
    out: dict[str, Tensor] = {}
    handles = []
    for site in gated.sites:
        for place in gated.places:
            if isinstance(place, Multiply) and place.at in site.readers:

                def keep(_module: nn.Module, args: Any, name: str = site.name) -> None:
                    out[name] = args[0].detach()

                handles.append(place.register_forward_pre_hook(keep))
    try:
        yield out
    finally:
        for handle in handles:
            handle.remove()


def quantities(gated: Gated, x: Tensor) -> Quantities:
    """Rate, rate + psi / 2, true information and snr of every unit, by site, in nats.

    Activations are those under the gates' noise, as in training.
    """
    mode = gated.training
    with activations(gated) as found, torch.no_grad():
        gated.train()(x)
    gated.train(mode)
    out = {}
    for site, gate in gated.all_gates():
        f, (mu, log_var) = found[site.name].double(), (c.detach().double() for c in gate.columns())
        out[site.name] = {
            "rate": information.rate(mu, log_var).tolist(),
            "bound": information.kl_to_best_prior(mu, log_var, f, delta=DELTA).tolist(),
            "truth": information.unit_information(mu, log_var, f).tolist(),
            "snr": information.snr(mu, log_var).tolist(),
        }
    return out


def course(say: Callable[[str], None]) -> dict[str, Any]:
    """The digits network over its epochs with gates; its readers' columns; columns held at zero."""
    snapshots, columns, held = [], [], []
    for seed in SEEDS:
        made, model = prepared(seed)
        x = torch.cat([x for x, _ in made.data.validation()])
        dense = made.settings.dense_epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gated = attach(model, made.data.example, **made.options)
            for epoch in gate_epochs(made, gated, dense):
                if epoch in EPOCHS:
                    error = validate(gated, made.data.validation(), made.objective)
                    snapshots.append(
                        {"seed": seed, "epoch": epoch, "validation": error}
                        | {"sites": quantities(gated, x)}
                    )
            columns.append({"seed": seed, "sites": reader_columns(gated)})
        held.append(held_at_zero(made, model, seed))
        say(f"seed {seed}: {snapshots[-1]['validation']:.2f} % on validation")
    return {
        "recipe": RECIPE,
        "delta": DELTA,
        "snapshots": snapshots,
        "columns": columns,
        "held": held,
    }


def reader_columns(gated: Gated) -> dict[str, dict[str, list[float]]]:
    """The norm of every unit's column in the weight that reads it, and its snr, by site."""
    out = {}
    for site, gate in gated.all_gates():
        weight = gated.model.get_parameter(f"{site.readers[0]}.weight").detach()
        norms = torch.linalg.vector_norm(weight, dim=0)
        out[site.name] = {"norm": norms.tolist(), "snr": gate.score().detach().tolist()}
    return out


def held_at_zero(made: Job, model: nn.Module, seed: int) -> dict[str, Any]:
    """Proposition 2: the course of snr where the reader's columns are held at zero, and of others.

    The units held are the `FORCED` that the reader weighs most.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gated = attach(model, made.data.example, **made.options)
        weight = _reader(gated).weight
        hold = torch.linalg.vector_norm(weight.detach(), dim=0).argsort(descending=True)[:FORCED]
        rest = torch.ones(weight.shape[1], dtype=torch.bool)
        rest[hold] = False
        with torch.no_grad():
            weight[:, hold] = 0.0
        rows = []
        for epoch in gate_epochs(made, gated, made.settings.dense_epochs, hold):
            if epoch in EPOCHS:
                snr = gated.gate(gated.sites[0].name).score().detach()
                largest = float(snr[hold].max())
                rows.append(
                    {
                        "epoch": epoch,
                        "largest_held": largest,
                        "others_open": int((snr[rest] > 1).sum()),
                        "largest_other": float(snr[rest].max()),
                    }
                )
    return {"seed": seed, "held": FORCED, "rows": rows}
