"""Two claims of the paper that our penalty rests on: the bound of eq. 3, and Proposition 3.

The first is enumerated on a network of finite variables, where every information is a sum;
the second is tried on quadratics of known rank, from random starts.
"""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from vibnet.information import best_variance, penalised_curvature, rank_bound, rate


class FiniteNetwork:
    """y - x - h1 - h2 with 3, 6, 4 and 5 values: every distribution is a random table."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.xy = self.random.dirichlet(np.full(18, 0.5)).reshape(6, 3)
        first, second = self.table(6, 4), self.table(4, 5)  # p(h1|x), p(h2|h1)
        self.channels = [first, second]
        with_first = first[:, :, None] * self.xy[:, None, :]  # p(x, h1, y)
        self.before = [self.xy.sum(1), with_first.sum((0, 2))]  # p(x), p(h1)
        first_y = with_first.sum(0)
        self.with_y = [first_y, second.T @ first_y]  # p(h1, y), p(h2, y)

    def table(self, rows: int, columns: int) -> np.ndarray:
        """A distribution over the columns for every row."""
        return self.random.dirichlet(np.ones(columns), size=rows)

    def true_loss(self, layer: int, gamma: float) -> float:
        """Eq. 2: gamma * I(h_i; h_{i-1}) - I(h_i; y)."""
        joint = self.before[layer][:, None] * self.channels[layer]
        return gamma * information(joint) - information(self.with_y[layer])

    def bound(self, layer: int, gamma: float, prior: np.ndarray, reader: np.ndarray) -> float:
        """Eq. 3, with q(h_i) the prior and q(y|h_L) the reader, summed case by case."""
        total = 0.0
        for before, channel in zip(self.before[layer], self.channels[layer], strict=True):
            total += gamma * before * np.sum(channel * np.log(channel / prior))
        return total - np.sum(self.with_y[-1] * np.log(reader))

    def best_prior(self, layer: int) -> np.ndarray:
        return self.before[layer] @ self.channels[layer]

    def best_reader(self) -> np.ndarray:
        return self.with_y[-1] / self.with_y[-1].sum(1, keepdims=True)


def information(joint: np.ndarray) -> float:
    """Mutual information of a table of joint probabilities, from three entropies."""
    return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint.ravel())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("layer", [0, 1])
def test_equation_3_is_never_below_equation_2(seed, layer):
    network = FiniteNetwork(seed)
    for gamma in (0.0, 0.1, 3.0):
        least = network.true_loss(layer, gamma)
        prior, reader = network.best_prior(layer), network.best_reader()
        at_best = network.bound(layer, gamma, prior, reader)
        assert at_best >= least
        for weight in (1e-3, 0.1, 1.0):
            some_prior = (1 - weight) * prior + weight * network.table(1, len(prior))[0]
            some_reader = (1 - weight) * reader + weight * network.table(5, 3)
            assert network.bound(layer, gamma, some_prior, some_reader) > at_best


@pytest.mark.parametrize("seed", range(5))
def test_equation_3_is_tight_at_the_best_q_up_to_the_entropy_of_the_labels(seed):
    network, gamma = FiniteNetwork(seed), 0.3
    labels = entropy(network.xy.sum(0))
    gaps = [
        network.bound(layer, gamma, network.best_prior(layer), network.best_reader())
        - network.true_loss(layer, gamma)
        for layer in (0, 1)
    ]
    # eq. 2 holds -I(h;y) = H(y|h) - H(y), and eq. 3 leaves the constant H(y) out; before the
    # last layer it also pays for what the later layers lose about y
    lost = information(network.with_y[0]) - information(network.with_y[1])
    assert lost > 0
    assert gaps == pytest.approx([labels + lost, labels], rel=1e-12)


def random_quadratic(units: int, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A and b of eq. 13, with b in the row space of A: else the loss has no lower end."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    factor = normal(rank + 2, rank) @ normal(rank, units)
    return factor, 6 * factor.T @ normal(rank + 2)


def bound_14(mu: torch.Tensor, variance: torch.Tensor, quadratic: tuple, gamma: float):
    """Eq. 14 for rows of mu: the expected quadratic plus the penalty, from `rate`."""
    factor, linear = quadratic
    curvature = factor.square().sum(0)
    smooth = (mu @ factor.T).square().sum(-1) + mu @ linear + variance @ curvature
    return smooth + 2 * gamma * rate(mu, variance.log()).sum(-1)


def minimise(quadratic: tuple, gamma: float, starts: torch.Tensor) -> torch.Tensor:
    """Rows of mu at local minima of (14): two steps in turn, neither of which goes up.

    The best sigma for the present mu; then the best mu of a quadratic above (14): the
    penalty is concave in mu^2, so that its tangent, of slope gamma / (mu^2 + s), is above.
    """
    factor, linear = quadratic
    omega = gamma / factor.square().sum(0)
    unit_matrix = torch.eye(len(linear), dtype=torch.float64)
    mu = starts
    for _ in range(2000):
        root = ((mu.square() + best_variance(mu, omega)) / gamma).sqrt()
        scaled = factor * root[:, None, :]
        system = unit_matrix + scaled.mT @ scaled
        mu = -0.5 * root * torch.linalg.solve(system, root * linear)
    # a closing unit shrinks by a constant factor a step
    return torch.where(mu.abs() < 1e-9, 0.0, mu)


@pytest.mark.parametrize(("units", "rank"), [(6, 1), (8, 2), (10, 4)])
@pytest.mark.parametrize("gamma", [1e-2, 0.3])
def test_a_local_minimum_of_bound_14_keeps_at_most_rank_plus_one_units(units, rank, gamma):
    quadratic = random_quadratic(units, rank, seed=units)
    generator = torch.Generator().manual_seed(0)
    starts = 3 * torch.randn(64, units, dtype=torch.float64, generator=generator)
    mu = minimise(quadratic, gamma, starts)
    kept = (mu != 0).sum(1)
    assert kept.max() <= rank_bound(quadratic[0]) < units
    # the penalty is strictly concave, so the sharper bound without the one holds here too
    assert 1 <= kept.max() <= rank
    # and these are local minima of (14) itself, in mu and in sigma
    omega = gamma / quadratic[0].square().sum(0)
    variance = best_variance(mu, omega)
    least = bound_14(mu, variance.clamp(min=1e-300), quadratic, gamma)
    for size in (1e-2, 1e-4):
        noise = torch.randn(200, 2, 1, units, dtype=torch.float64, generator=generator) * size
        near = mu + noise[:, 0]
        near_variance = best_variance(near, omega) * noise[:, 1].exp()
        assert (bound_14(near, near_variance, quadratic, gamma) >= least - 1e-9).all()


def test_bound_14_falls_apart_into_the_quadratic_and_the_penalised_curvature():
    quadratic = random_quadratic(5, 2, seed=3)
    generator = torch.Generator().manual_seed(1)
    mu, log_var = torch.randn(2, 7, 5, dtype=torch.float64, generator=generator)
    curvature = quadratic[0].square().sum(0)
    apart = penalised_curvature(mu, log_var.exp(), curvature, 0.3).sum(-1)
    smooth = (mu @ quadratic[0].T).square().sum(-1) + mu @ quadratic[1]
    together = bound_14(mu, log_var.exp(), quadratic, 0.3)
    torch.testing.assert_close(smooth + apart, together, rtol=1e-12, atol=1e-12)


def test_the_expected_quadratic_charges_the_variance_with_the_diagonal_of_its_curvature():
    (factor, linear), gamma = random_quadratic(3, 2, seed=4), 0.3
    generator = torch.Generator().manual_seed(2)
    mu, variance = torch.randn(3, dtype=torch.float64, generator=generator), torch.ones(3).double()
    # the mean over +-1 noise is the mean over normal noise: both have variance one
    noise = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    drawn = mu + noise * variance.sqrt()
    mean = ((drawn @ factor.T).square().sum(-1) + drawn @ linear).mean()
    penalty = gamma * torch.log(1 + mu**2 / variance).sum()
    got = bound_14(mu, variance, (factor, linear), gamma)
    torch.testing.assert_close(got, mean + penalty, rtol=1e-12, atol=1e-12)
