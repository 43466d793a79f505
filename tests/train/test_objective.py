import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal, kl_divergence

from vibnet.errors import ConfigError
from vibnet.train.objective import Objective, classification, distilled, function, regression

RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(5, 4, generator=RANDOM, dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 1, 2])


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_classification_is_the_mean_log_probability_and_counts_in_percent():
    objective = classification()
    close(objective.loss(LOGITS, LABELS), -Categorical(logits=LOGITS).log_prob(LABELS).mean())
    wrong = objective.metric(LOGITS, LABELS)
    assert wrong.tolist() == [
        0.0 if row.tolist().index(max(row.tolist())) == y else 100.0
        for row, y in zip(LOGITS, LABELS.tolist(), strict=True)
    ]
    assert 0 < wrong.mean() < 100


def test_classification_of_every_pixel():
    logits, labels = torch.randn(2, 3, 4, 5, generator=RANDOM), torch.zeros(2, 4, 5).long()
    objective = classification()
    close(objective.loss(logits, labels), -logits.log_softmax(1)[:, 0].mean())
    assert objective.metric(logits, labels).shape == (2, 4, 5)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 2, 2)])
@pytest.mark.parametrize("variance", [1.0, 0.3])
def test_regression_is_the_log_density_of_a_gaussian(shape, variance):
    output, target = (torch.randn(shape, generator=RANDOM, dtype=torch.float64) for _ in range(2))
    objective = regression(variance)
    expected = -Normal(output, math.sqrt(variance)).log_prob(target).sum() / 6
    close(objective.loss(output, target), expected)
    errors = objective.metric(output, target)
    assert errors.shape == (6,)
    close(errors.mean(), (output - target).square().mean())


def test_a_wider_gaussian_weighs_the_same_error_less():
    output = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    target = torch.ones(3, 1, dtype=torch.float64)
    grads = [torch.autograd.grad(regression(v).loss(output, target), output)[0] for v in (1.0, 4.0)]
    close(grads[0], 4 * grads[1])
    close(grads[0], torch.full((3, 1), -1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_variance_is_above_zero(variance):
    with pytest.raises(ConfigError, match=r"variance must be a finite number above 0, got"):
        regression(variance)


def test_regression_broadcasts_nothing():
    objective = regression()
    for f in (objective.loss, objective.metric):
        with pytest.raises(ConfigError, match=r"output has shape \(3, 1\), the target \(3,\)"):
            f(torch.zeros(3, 1), torch.zeros(3))


def test_a_function_is_loss_and_metric():
    objective = function(lambda output, target: (output - target).abs().mean())
    assert isinstance(objective, Objective)
    output, target = torch.tensor([1.0, 2.0, 4.0]), torch.zeros(3)
    close(objective.loss(output, target), torch.tensor(7 / 3))
    assert objective.metric(output, target).shape == (3,)
    close(objective.metric(output, target).mean(), torch.tensor(7 / 3).double())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_distillation_is_a_divergence_of_softened_answers(share, temperature):
    teacher = nn.Linear(2, 4).double()
    x = torch.randn(5, 2, generator=RANDOM, dtype=torch.float64)
    student = LOGITS.clone().requires_grad_()
    found = distilled(classification(), teacher, share, temperature)(x, student, LABELS)
    p, q = (Categorical(logits=y / temperature) for y in (teacher(x), student))
    truth = nn.functional.cross_entropy(student, LABELS)
    close(found, (1 - share) * truth + share * temperature**2 * kl_divergence(p, q).mean())
    found.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_by_hand():
    """Teacher (0.8, 0.2), student (0.5, 0.5): 0.8 ln 1.6 + 0.2 ln 0.4 = 0.192745 nats."""
    teacher = lambda _x: torch.tensor([[math.log(4.0), 0.0]], dtype=torch.float64)  # noqa: E731
    student, label = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    found = distilled(classification(), teacher, 0.5, 1.0)(None, student, label)
    assert float(found) == pytest.approx(0.5 * math.log(2) + 0.5 * 0.1927447, abs=1e-7)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2], [-100, 0]])
def test_labels_beyond_the_classes_are_refused(labels):
    with pytest.raises(ConfigError, match=f"from {labels[0]} to {labels[1]}, but .* 3 classes"):
        classification().metric(torch.randn(2, 3), torch.tensor(labels))
