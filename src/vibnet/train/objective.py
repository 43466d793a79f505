"""What training minimises beside the penalty, and what validation counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vibnet.errors import ConfigError

Function = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss and a metric; smaller is better for both.

    Attributes:
        loss: of the model's output and the target, a scalar in nats, the mean over the batch.
        metric: of the same, one number an example, shape ``(batch,)``; validation shows its mean.
        name: of the metric, with its unit.
    """

    loss: Function
    metric: Function
    name: str


def _wrong(output: Tensor, target: Tensor) -> Tensor:
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= output.shape[1]:
        raise ConfigError(
            f"classification: the labels go from {low} to {high}, but the model gives "
            f"{output.shape[1]} classes. Labels count from 0."
        )
    return 100.0 * (output.argmax(1) != target).double()


def classification() -> Objective:
    """Mean cross-entropy of logits ``(batch, classes, ...)`` and labels; error in percent.

    Source:
        Dai et al. 2018, eq. 9 with a categorical q.
    """
    return Objective(F.cross_entropy, _wrong, "error (%)")


def regression(variance: float = 1.0) -> Objective:
    """Mean negative log-likelihood under a Gaussian q of fixed variance; squared error.

    The loss is ``(output - target)^2 / (2 variance) + 0.5 * log(2 pi variance)``, summed over all
    but the first dimension.

    Source:
        Dai et al. 2018, eq. 9 with a Gaussian q.
    """
    if not 0 < variance < float("inf"):
        raise ConfigError(
            f"regression: variance must be a finite number above 0, got {variance!r}."
        )

    def loss(output: Tensor, target: Tensor) -> Tensor:
        _same_shape(output, target)
        given = torch.full_like(output, variance)
        nats = F.gaussian_nll_loss(output, target, given, full=True, eps=0.0, reduction="none")
        return nats.reshape(len(nats), -1).sum(1).mean()

    def metric(output: Tensor, target: Tensor) -> Tensor:
        _same_shape(output, target)
        return (output - target).square().reshape(len(output), -1).mean(1).double()

    return Objective(loss, metric, "squared error")


def function(loss: Function) -> Objective:
    """Any loss of output and target, a mean over the batch; it is the metric too."""

    def metric(output: Any, target: Any) -> Tensor:
        examples = next(len(x) for x in tree_leaves(target) if isinstance(x, Tensor))
        return loss(output, target).detach().double().expand(examples)

    return Objective(loss, metric, "loss")


def _same_shape(output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise ConfigError(
            f"regression: the model's output has shape {tuple(output.shape)}, the target "
            f"{tuple(target.shape)}. Make them equal; broadcasting would compare the wrong pairs."
        )


def distilled(
    objective: Objective, teacher: Callable[..., Any], share: float, temperature: float
) -> Callable[[Any, Any, Any], Tensor]:
    """A loss of (input, output, target): part truth, part the answers of a teacher.

    ``(1 - share) * loss + share * temperature^2 * KL(teacher || student)``, both softened by the
    temperature, the mean over examples.

    Source:
        Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """

    def loss(x: Any, output: Tensor, target: Any) -> Tensor:
        with torch.no_grad():
            answer = F.log_softmax(teacher(x) / temperature, 1)
        student = F.log_softmax(output / temperature, 1)
        distance = F.kl_div(student, answer, log_target=True, reduction="batchmean")
        return (1 - share) * objective.loss(output, target) + share * temperature**2 * distance

    return loss
