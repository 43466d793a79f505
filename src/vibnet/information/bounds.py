"""The paper's bounds: psi (eq. 8), rho (eq. 18), Proposition 3. For analysis and tests."""

import math

import torch
from torch import Tensor

from vibnet.errors import ConfigError
from vibnet.information import checks
from vibnet.information.rate import rate

__all__ = [
    "best_variance",
    "kl_to_best_prior",
    "penalised_curvature",
    "psi",
    "rank_bound",
    "rho",
]


def psi(f: Tensor, *, delta: float) -> Tensor:
    """How unequal the powers of a unit are: ``log mean f^2 - mean log f^2``.

    The part of eq. 7 that the penalty leaves out. It does not depend on the gate, nor on
    the scale of ``f`` (with ``delta`` scaled likewise), and is zero when ``|f|`` is
    constant. A single exact zero, common after a ReLU, makes it infinite, so every
    ``f^2`` is raised by ``delta^2``. The result then depends on ``delta`` (about
    ``-2 * log(delta)`` for each unit share of zeros): state it with the number.

    Args:
        f: Activations before the gate, shape ``(samples, units)``; flatten other axes
            into samples.
        delta: Floor on ``|f|``, in units of ``f``, at least 0; 0 is eq. 8 as printed.

    Returns:
        Nats per unit, shape ``(units,)``, never negative; 0 for a unit that is always 0.

    Raises:
        ConfigError: ``f`` is no floating-point table with a row, or ``delta`` is
            negative or not finite.

    Source:
        Dai et al. 2018, eq. 8 and footnote 2.

    >>> psi(torch.tensor([[1.0, 2.0], [3.0, -2.0]]), delta=0.0)  # log 5 - log 3, and 0
    tensor([0.5108, 0.0000])
    """
    checks.activations("psi(f, delta=...)", f)
    checks.at_least_zero("psi(f, delta=...)", delta=delta)
    log_power = 2 * torch.hypot(f, torch.full_like(f, delta)).log()
    peak = log_power.detach().amax(dim=0)  # drops out; keeps exp and the difference tame
    dead = peak == -math.inf
    centred = log_power - torch.where(dead, torch.zeros_like(peak), peak)
    gap = centred.logsumexp(dim=0) - math.log(len(f)) - centred.mean(dim=0)
    return torch.where(dead, torch.zeros_like(gap), gap).clamp(min=0)


def kl_to_best_prior(mu: Tensor, log_var: Tensor, f: Tensor, *, delta: float) -> Tensor:
    """Mean KL from a unit to the best zero-mean normal: ``rate + psi / 2``.

    Averages ``KL[N(mu f, sigma^2 f^2) || N(0, xi)]`` over the samples and puts in the best
    ``xi = mean(f^2) * (mu^2 + sigma^2)``. With ``delta`` 0 it is an upper bound on
    `unit_information`. A positive ``delta`` makes it smaller, and it bounds nothing.

    Args:
        mu: Mean of every multiplier, shape ``(units,)``, no unit.
        log_var: ``log sigma^2``, shape ``(units,)``.
        f: Activations before the gate, shape ``(samples, units)``.
        delta: As for `psi`.

    Returns:
        Nats per unit, shape ``(units,)``. Eq. 7 prints twice this number.

    Raises:
        ConfigError: As for `rate` and `psi`, or ``f`` has other units than ``mu``.

    Source:
        Dai et al. 2018, eq. 7.

    >>> f = torch.tensor([[1.0], [3.0]])
    >>> kl_to_best_prior(torch.ones(1), torch.zeros(1), f, delta=0.0)  # log(2 * 5 / 3) / 2
    tensor([0.6020])
    """
    checks.activations("kl_to_best_prior(mu, log_var, f, delta=...)", f)
    checks.one_column_per_unit("kl_to_best_prior(mu, log_var, f, delta=...)", mu, f)
    return rate(mu, log_var) + 0.5 * psi(f, delta=delta)


def rho(mu: Tensor, omega: float | Tensor) -> Tensor:
    """The penalty on ``mu`` that is left once sigma is at its best: eq. 18.

    Non-decreasing and concave in ``|mu|``. Up to constants it is the l1 norm for a large
    ``omega`` (flat data term) and the l0 norm for a small one (curved data term). Its
    slope in ``|mu|`` is ``4 / (|mu| + sqrt(mu^2 + 4 * omega))``.

    Args:
        mu: Means, any shape, no unit.
        omega: ``gamma / curvature``, positive; a number or a tensor that broadcasts.

    Returns:
        Nats, the shape of ``mu``; ``log(2 * omega)`` at ``mu`` 0, so it may be negative.

    Raises:
        ConfigError: ``omega`` is not positive and finite.

    Source:
        Dai et al. 2018, eq. 17 and 18.

    >>> rho(torch.tensor([0.0, -1.0]), 0.5)  # log 1, and by hand below
    tensor([0.0000, 2.0490])
    >>> round(2 / (1 + 3**0.5) + math.log(2 + 3**0.5), 4)
    2.049
    """
    checks.above_zero("rho(mu, omega)", omega=omega)
    size = mu.abs()
    root = torch.sqrt(mu.square() + 4 * omega)
    return 2 * size / (size + root) + torch.log(2 * omega + mu.square() + size * root)


def best_variance(mu: Tensor, omega: float | Tensor) -> Tensor:
    """The sigma^2 that minimises `penalised_curvature`, from eq. 17.

    ``(|mu| sqrt(mu^2 + 4 omega) - mu^2) / 2``, written as a quotient so that nothing
    cancels when ``mu^2`` is far above ``omega``.

    Args:
        mu: Means, any shape, no unit.
        omega: ``gamma / curvature``, positive; a number or a tensor that broadcasts.

    Returns:
        Variances, the shape of ``mu``, between 0 and ``omega``; 0 at ``mu`` 0.

    Raises:
        ConfigError: ``omega`` is not positive and finite.

    Source:
        Dai et al. 2018, the infimum in eq. 17.

    >>> best_variance(torch.tensor([0.0, 1.0]), 2.0)
    tensor([0., 1.])
    """
    checks.above_zero("best_variance(mu, omega)", omega=omega)
    size = mu.abs()
    return 2 * omega * size / (size + torch.sqrt(mu.square() + 4 * omega))


def penalised_curvature(
    mu: Tensor, variance: Tensor, curvature: float | Tensor, gamma: float | Tensor
) -> Tensor:
    """What sigma costs in bound (14): ``curvature * s + gamma * log(1 + mu^2 / s)``.

    Over ``s`` it is smallest at ``best_variance(mu, gamma / curvature)`` and is there
    ``gamma * (rho(mu, gamma / curvature) - log(2 * gamma / curvature))``.

    Args:
        mu: Means, any shape, no unit.
        variance: ``s = sigma^2``, the shape of ``mu``, at least 0.
        curvature: Diagonal of A'A (eq. 13), loss per unit of variance, at least 0.
        gamma: gamma of eq. 9, at least 0 (our gamma is this one times ``2 / layers``).

    Returns:
        Loss, the shape of ``mu``; ``inf`` at variance 0, except 0 where ``mu`` is 0 too.

    Raises:
        ConfigError: A number is negative or not finite.

    Source:
        Dai et al. 2018, eq. 14 and 17.

    >>> penalised_curvature(torch.ones(1), torch.ones(1), 0.5, 1.0)  # 0.5 + log 2
    tensor([1.1931])
    """
    checks.at_least_zero(
        "penalised_curvature(mu, variance, curvature, gamma)",
        variance=variance,
        curvature=curvature,
        gamma=gamma,
    )
    closed = mu == 0  # 0 / 0 is 0 here: a closed unit costs nothing at any variance
    ratio = mu.square() / torch.where(closed, torch.ones_like(variance), variance)
    return curvature * variance + gamma * torch.log1p(ratio)


def rank_bound(factor: Tensor) -> int:
    """How many units a local minimum of bound (14) can keep at most: ``rank[A] + 1``.

    Says nothing when it reaches the number of columns.

    Args:
        factor: A of eq. 13, shape ``(rows, units)``, of the quadratic ``z' A'A z + b'z + c``.

    Returns:
        A count of units.

    Raises:
        ConfigError: ``factor`` is no floating-point matrix.

    Source:
        Dai et al. 2018, Proposition 3.

    >>> rank_bound(torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]))
    2
    """
    if factor.ndim != 2 or not factor.is_floating_point():
        raise ConfigError(
            f"rank_bound(factor): factor has shape {tuple(factor.shape)} and dtype "
            f"{factor.dtype}. Give the floating-point matrix A of eq. 13, (rows, units)."
        )
    return int(torch.linalg.matrix_rank(factor)) + 1
