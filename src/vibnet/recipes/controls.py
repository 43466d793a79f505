"""What a finished run is compared with: the same data, epochs and widths, by other means."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vibnet.cost import measure
from vibnet.errors import ConfigError, NoSitesError
from vibnet.graph.sites.constraints import Mask
from vibnet.recipes.run import Job
from vibnet.surgery.attach import attach
from vibnet.surgery.gated import Gated
from vibnet.surgery.prune import prune
from vibnet.train.evaluate import call, validate
from vibnet.train.loop import Fit, fit
from vibnet.train.phases import optimizer
from vibnet.train.schedule import rate
from vibnet.train.shrink import shrink

DRAWS = (1, 8, 32)
RENEWED = 10_000  # added to the seed of a run for new weights


def trained(model: nn.Module, job: Job, epochs: int, lr: float, first: int = 0) -> nn.Module:
    """Train a model as it is, under a cosine, in place; gates keep their noise and stay.

    Args:
        model: plain or gated.
        job: data, loss, optimiser and weight decay.
        epochs: how many.
        lr: at the start.
        first: epochs that the data have been gone over before: those to come have other orders.
    """
    settings = job.settings
    if isinstance(model, Gated):
        model.gates.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    group = {"params": parameters, "lr": lr, "weight_decay": settings.weight_decay}
    steps = optimizer(settings, [group])
    for epoch in range(epochs):
        model.train()
        for step, (x, y) in enumerate(job.data.train(first + epoch)):
            progress = (epoch + step / job.data.steps) / epochs
            steps.param_groups[0]["lr"] = lr * rate("cosine", progress)
            steps.zero_grad()
            torch.autograd.backward(job.objective.loss(call(model, x), y))
            steps.step()
    return model.eval()


def _epochs(job: Job) -> int:
    """Of the whole run."""
    settings = job.settings
    return settings.dense_epochs + settings.gate_epochs + settings.tune_epochs


def _tuning(job: Job) -> int:
    """Epochs of fine-tuning where the run has none: a tenth of those with gates."""
    return job.settings.tune_epochs or max(1, job.settings.gate_epochs // 10)


def scratch(job: Job, fitted: Fit) -> nn.Module:
    """The small network's shape from new weights, trained as long as the whole run."""
    model = copy.deepcopy(_small(fitted))
    torch.manual_seed(job.settings.seed + RENEWED)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return trained(model, job, _epochs(job), job.settings.lr)


def tuned(job: Job, fitted: Fit) -> nn.Module:
    """The small network, trained on without noise."""
    model = copy.deepcopy(_small(fitted))
    return trained(model, job, _tuning(job), job.settings.tune_lr, _epochs(job))


def tuned_with_noise(job: Job, fitted: Fit) -> nn.Module:
    """The small network, trained on under its gates' noise, the gates as they are; then cut."""
    if fitted.gated is None:
        raise ConfigError("tuned-with-noise: the run ended without gates (tune_epochs above 0).")
    gated = copy.deepcopy(fitted.gated)
    shrink(gated)
    trained(gated, job, _tuning(job), job.settings.tune_lr, _epochs(job))
    return prune(gated)[0].eval()


def magnitude(job: Job, fitted: Fit) -> nn.Module:
    """The dense network cut to the run's widths by weights' sizes, trained for the rest.

    Units with the largest mean of absolute weights stay: of the weights that write them; of those
    that read them where they are single inputs or features.

    Source:
        Li et al. 2017, "Pruning filters for efficient ConvNets", to given widths.
    """
    assert fitted.report is not None
    wanted = {name: len(positions) for name, positions in fitted.report.plan.kept.items()}
    gated = attach(fitted.dense, job.data.example, **job.options)
    kept = gated.legal(_largest(gated, wanted))
    with torch.no_grad():
        for site, gate in gated.all_gates():
            gate.mu.copy_(torch.as_tensor(kept[site.units]).to(gate.mu))
    model, _ = prune(gated)
    rest = job.settings.gate_epochs + job.settings.tune_epochs
    return trained(model, job, rest, job.settings.lr, job.settings.dense_epochs)


def _largest(gated: Gated, wanted: dict[str, int]) -> Mask:
    """As many units of every site as are wanted: those of the largest mean absolute weights."""
    graph = gated.graph
    kept = np.ones(graph.total, dtype=np.bool_)
    nested = gated.nesting
    parent = dict(zip(nested.children.tolist(), nested.parents.tolist(), strict=True))
    for site in sorted(gated.sites, key=lambda s: s.nested):
        score = np.zeros(graph.total)
        names = site.readers if site.nested or not site.writers else site.writers
        for name in names:
            weight = gated.model.get_parameter(f"{name}.weight").detach().abs().double()
            for dim, units in enumerate(graph.parameters[f"{name}.weight"]):
                if np.isin(units, site.units).any():
                    other = [d for d in range(weight.ndim) if d != dim]
                    np.add.at(score, units[units >= 0], weight.mean(other).numpy()[units >= 0])
        owner = np.asarray([parent.get(unit, unit) for unit in site.units.tolist()])
        best = np.argsort(-score[site.units], kind="stable")
        first = best[np.unique(owner[best], return_index=True)[1]]  # one of every channel's own
        later = np.ones(site.size, dtype=np.bool_)
        later[first] = not site.nested
        order = site.units[np.lexsort((-score[site.units], later, ~kept[owner]))]
        kept[order[wanted[site.name] :]] = False
    return kept


def second_round(job: Job, fitted: Fit) -> nn.Module:
    """The small network, gated anew, trained with gates for as many epochs, and cut again.

    At the run's own gamma, not to its budget, which the small network keeps already. Where nothing
    of it can be gated any more, it is what it was.
    """
    changed = {"seed": job.settings.seed + RENEWED, "dense_epochs": 0, "budget": ""}
    settings = job.settings.replaced(**changed)
    small = _small(fitted)
    try:
        again = fit(small, job.data, job.objective, settings, options=job.options)
    except NoSitesError:
        return copy.deepcopy(small)
    return _small(again).eval()


def sampled(job: Job, fitted: Fit, batches: Iterable[tuple[Any, Any]], draws: int) -> float:
    """The error, in percent, of the mean of the class probabilities over draws of the noise.

    It costs `draws` forwards of the small network, and its gates.
    """
    if fitted.gated is None:
        raise ConfigError("sampled: the run ended without gates (tune_epochs above 0).")
    gated = copy.deepcopy(fitted.gated)
    shrink(gated)
    gated.eval()
    gated.training = True  # the gates draw; the model's own layers stay in evaluation
    wrong = count = 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        for x, y in batches:
            total: Tensor | float = 0.0
            for _ in range(draws):
                total = total + F.softmax(call(gated, x), 1)
            assert isinstance(total, Tensor)
            wrong, count = wrong + int((total.argmax(1) != y).sum()), count + len(y)
    return 100.0 * wrong / count


def _small(fitted: Fit) -> nn.Module:
    if fitted.small is None:
        raise ConfigError("a control needs a run that is over; resume it first.")
    return fitted.small


CONTROLS: dict[str, Callable[[Job, Fit], nn.Module]] = {
    "scratch": scratch,
    "tuned": tuned,
    "tuned-with-noise": tuned_with_noise,
    "magnitude": magnitude,
    "second-round": second_round,
}


def control(name: str, job: Job, fitted: Fit) -> dict[str, Any]:
    """Make one control of a finished run; the test set is opened when its last epoch is over.

    Args:
        name: of `CONTROLS`, or "sampled".
        job: of the run.
        fitted: what it gave.

    Returns:
        Errors on test and validation, weights, multiply-adds and neurons; for "sampled" the errors
        by the number of draws.

    Raises:
        ConfigError: an unknown name, or a run that does not have what the control starts from.
    """
    if name == "sampled":
        opened, held = list(job.data.test()), list(job.data.validation())
        return {
            "test": {str(n): sampled(job, fitted, opened, n) for n in DRAWS},
            "validation": {str(n): sampled(job, fitted, held, n) for n in DRAWS},
        }
    if name not in CONTROLS:
        known = ", ".join([*CONTROLS, "sampled"])
        raise ConfigError(f"there is no control {name!r}. There are: {known}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        model = CONTROLS[name](job, fitted)
    assert fitted.report is not None
    plan = fitted.report.plan
    cost = measure(model, job.data.example, inputs=plan.inputs, features=plan.features)
    return {
        "test": validate(model, job.data.test(), job.objective),
        "validation": validate(model, job.data.validation(), job.objective),
        "weights": cost.weights,
        "macs": cost.macs,
        "neurons": cost.neurons,
    }
