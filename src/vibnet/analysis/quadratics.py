"""Local minima of bound (14) for quadratic data terms: Propositions 1 and 3, and rho's shape."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vibnet import information
from vibnet.errors import ConfigError

UNITS, STARTS, GAMMA = 24, 20, 0.05
RANKS = (1, 2, 4, 8, 12, 16, 20)
OMEGAS = (1e-6, 1e-4, 1e-2, 1.0, 100.0)


def minimum(
    factor: Tensor, target: Tensor, gamma: float, start: Tensor, sweeps: int = 5000
) -> Tensor:
    """A local minimum in mu of ``|A mu - t|^2 + gamma * sum rho(mu_j; gamma / a_j)`` (eq. 17).

    Coordinate by coordinate, with the concave rho held by its tangent: every step goes down, and
    multipliers become exactly 0.

    Args:
        factor: A of eq. 13, shape ``(rows, units)``, float64, no column 0.
        target: t, shape ``(rows,)``; b of eq. 13 is ``-2 A' t``.
        gamma: of eq. 9, above 0.
        start: mu to begin with, shape ``(units,)``.
        sweeps: over all units, at most.

    Returns:
        mu, shape ``(units,)``.

    Raises:
        ConfigError: a column of the factor is 0, or the sweeps did not suffice.
    """
    columns = factor.T.numpy()
    curvature = (columns**2).sum(1)
    if not (curvature > 0).all():
        raise ConfigError("minimum(factor, ...): a column of the factor is 0: rho has no omega.")
    mu = start.numpy().copy()
    left = target.numpy() - columns.T @ mu
    for _ in range(sweeps):
        before = mu.copy()
        for j, (column, bend) in enumerate(zip(columns, curvature, strict=True)):
            size = abs(mu[j])
            slope = 4 * gamma / (size + math.sqrt(size * size + 4 * gamma / bend))
            pull = column @ left + bend * mu[j]
            new = math.copysign(max(0.0, abs(pull) - slope / 2), pull) / bend
            left += column * (mu[j] - new)
            mu[j] = new
        if abs(mu - before).max() < 1e-13 * (1 + abs(mu).max()):
            return torch.as_tensor(mu)
    raise ConfigError(f"minimum: not at rest after {sweeps} sweeps. Allow more of them.")


def is_minimum(factor: Tensor, gamma: float, mu: Tensor) -> bool:
    """Whether the curvature is positive in every direction among the open units."""
    open_ = mu != 0
    size, omega = mu[open_].abs(), gamma / factor.square().sum(0)[open_]
    root = torch.sqrt(size.square() + 4 * omega)
    bend = -4 * gamma / (root * (size + root))  # rho''
    hessian = 2 * factor[:, open_].T @ factor[:, open_] + torch.diag(bend)
    return bool((torch.linalg.eigvalsh(hessian) > 0).all()) if len(size) else True


def quadratics(say: Callable[[str], None]) -> dict[str, Any]:
    """Random quadratics of known rank from many starts, and rho beside |mu| and the count."""
    chance = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, dtype=torch.float64)

    samples = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    rows = []
    for rank in RANKS:
        factor = random(rank, UNITS) / rank**0.5
        target = factor @ random(UNITS)
        found = [minimum(factor, target, GAMMA, 3 * random(UNITS)) for _ in range(STARTS)]
        minima = [mu for mu in found if is_minimum(factor, GAMMA, mu)]
        opened = [int((mu != 0).sum()) for mu in minima]
        nats = [_nats(factor, mu, samples) for mu in minima]
        closed = [float(n[mu == 0].max()) for n, mu in zip(nats, minima, strict=True)]
        lively = [float(n[mu != 0].min()) for n, mu in zip(nats, minima, strict=True) if mu.any()]
        rows.append(
            {
                "rank": rank,
                "bound": information.rank_bound(factor),
                "starts": STARTS,
                "minima": len(minima),
                "fewest_open": min(opened),
                "most_open": max(opened),
                "most_nats_of_a_closed_unit": max(closed),
                "least_nats_of_an_open_unit": min(lively, default=None),
            }
        )
        say(f"rank {rank}: {min(opened)} to {max(opened)} of {UNITS} units open")
    return {"units": UNITS, "gamma": GAMMA, "rows": rows, "rho": _shapes()}


def _nats(factor: Tensor, mu: Tensor, samples: Tensor) -> Tensor:
    """The true information in every unit, of a standard normal f, at the best variance."""
    best = information.best_variance(mu, GAMMA / factor.square().sum(0))
    f = samples[:, None].expand(-1, len(mu))
    return information.unit_information(mu, best.log(), f)


def _shapes() -> dict[str, Any]:
    """rho from 0 at 0 to 1 at 1, and how far it is from |mu| and from the count at most."""
    mu = torch.linspace(0, 1, 101, dtype=torch.float64)
    shapes = {}
    for omega in OMEGAS:
        value = information.rho(mu, omega)
        value = (value - value[0]) / (value[-1] - value[0])
        far = mu >= 0.05
        shapes[f"{omega:g}"] = {
            "values": value.tolist(),
            "from_l1": float((value - mu).abs().max()),
            "from_l0": float((1 - value[far]).max()),
        }
    return {"mu": mu.tolist(), "shapes": shapes}
