"""The true information in one unit, by quadrature: what the rate only stands for."""

import math

import torch
from torch import Tensor

from vibnet.errors import ConfigError
from vibnet.information import checks

__all__ = ["unit_information"]

REACH = 9.0  # standard deviations of noise looked at; beyond lies 1e-19 of the mass
LOST = 1e-15  # mass of the multiplier given up next to zero
NODES_PER_WIDTH = 6  # nodes per standard deviation of log |multiplier|; 3 leave 1e-8 nats
ELEMENTS = 50_000  # kernel values at once; more fall out of the processor cache, 8 times slower


@torch.no_grad()
def unit_information(mu: Tensor, log_var: Tensor, f: Tensor) -> Tensor:
    """Mutual information I(h_j; h_{i-1}) of every unit ``h = (mu + noise * sigma) * f``.

    The given samples *are* the distribution of ``f``, equally likely. The result then is
    exact to 1e-10 nats for an snr up to 1e8, and loses a digit for every factor of 100
    above. It depends on ``mu`` and ``log_var`` only through the snr, and on ``f`` only up
    to scale. It cannot exceed ``log(samples)``: near that number the samples are too few
    for a continuous ``f``.

    Where ``f`` is exactly 0 (a ReLU), ``h`` is exactly 0, so that a reader knows which
    case holds: the binary entropy of the share of zeros comes on top of the information
    in the rest. A closed gate (``mu`` 0) still tells how large ``|f|`` is; only with a
    constant ``|f|`` it tells nothing.

    How: ``log|h| = log|f| + log|mu + noise * sigma|`` is additive noise of one fixed
    shape, so one even grid in ``log|h|`` serves small and large activations alike, and the
    trapezoidal rule converges exponentially on it. Cost: some 500 kernel values per
    distinct sample and unit; always float64.

    Args:
        mu: Mean of every multiplier, shape ``(units,)``, no unit.
        log_var: ``log sigma^2``, shape ``(units,)``; ``-inf`` means no noise.
        f: Activations before the gate, shape ``(samples, units)``; flatten other axes
            into samples.

    Returns:
        Nats per unit, shape ``(units,)``, float64, no gradient. Without noise it is
        ``inf``, or 0 where ``f`` is constant or ``mu`` is 0: the samples then stand for
        a continuous ``f``.

    Raises:
        ConfigError: Shapes do not fit, ``f`` or ``mu`` is not finite, ``log_var`` is NaN
            or ``inf``, or ``f`` has no sample.

    Source:
        The left side of the bound of Dai et al. 2018, eq. 3 and 7, and of Proposition 1.

    >>> f = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
    >>> unit_information(torch.ones(3), torch.zeros(3), f)  # log 2; constant; sign only
    tensor([0.6931, 0.0000, 0.3368], dtype=torch.float64)
    """
    _check("unit_information(mu, log_var, f)", mu, log_var, f)
    ratios = mu.double().abs() * torch.exp(-0.5 * log_var.double())
    nats = [
        _one_unit(ratio, column)
        for ratio, column in zip(ratios.tolist(), f.double().T, strict=True)
    ]
    return torch.tensor(nats, dtype=torch.float64, device=f.device)


def _check(call: str, mu: Tensor, log_var: Tensor, f: Tensor) -> None:
    checks.same_shape(call, mu, log_var)
    checks.activations(call, f)
    checks.one_column_per_unit(call, mu, f)
    for name, good in (
        ("mu", mu.isfinite()),
        ("log_var", log_var < math.inf),
        ("f", f.isfinite().all(dim=0)),
    ):
        if not good.all():
            units = (~good).nonzero().flatten().tolist()
            raise ConfigError(
                f"{call}: {name} is NaN or infinite in {len(units)} of {len(mu)} units, the "
                f"first {units[:5]}. Give finite numbers (log_var may be -inf: no noise)."
            )


def _one_unit(ratio: float, f: Tensor) -> float:
    """Nats in one unit with ``|mu| / sigma`` the ratio and samples of shape ``(samples,)``."""
    values, counts = torch.unique(f, return_counts=True)
    if len(values) == 1 or math.isnan(ratio):  # NaN is 0 / 0: the multiplier is exactly 0
        return 0.0
    if math.isinf(ratio):
        return math.inf
    alive = values != 0
    share = counts[alive].sum().double() / len(f)
    known_zero = torch.special.entr(share) + torch.special.entr(1 - share)
    shares = counts[alive].double() / counts[alive].sum()
    return float(known_zero + share * _alive_information(ratio, values[alive], shares))


def _alive_information(ratio: float, values: Tensor, shares: Tensor) -> Tensor:
    """Nats in a unit that takes the given distinct non-zero values with the given shares.

    The entropy of (sign, log|h|) less that given f: sums over the same nodes, so that
    their quadrature errors cancel where components do not overlap.
    """
    size, order = values.abs().log().sort()
    positive, shares = (values > 0)[order], shares[order]
    low, nodes, step = _window(ratio)
    base = (size / step).floor()
    offset = size / step - base
    # A component covers `nodes` nodes; wider gaps between neighbours hold nothing.
    gaps = base.diff().clamp(max=nodes).long()
    start = torch.cat([gaps.new_zeros(1), gaps.cumsum(0)])
    half = int(start[-1]) + nodes  # h > 0 fills the first half of the grid, h < 0 the other
    grid = torch.arange(nodes, device=values.device)
    mixture, given_f = values.new_zeros(2 * half), values.new_zeros(())
    for first in range(0, len(values), ELEMENTS // nodes):
        part = slice(first, first + ELEMENTS // nodes)
        log_kernel = _log_kernel(ratio, low + (grid - offset[part, None]) * step)
        weighted = shares[part, None] * log_kernel.exp()
        given_f += (weighted * log_kernel).sum()
        below = torch.stack([~positive[part], positive[part]])[: len(weighted)]
        node = (start[part] + half * below)[..., None] + grid
        mixture.index_add_(0, node.flatten(), weighted.flatten())
    nats: Tensor = step * (given_f + torch.special.entr(mixture).sum())
    return nats


def _window(ratio: float) -> tuple[float, int, float]:
    """First node, number of nodes and step of log(|multiplier| / scale)."""
    step = 1 / (NODES_PER_WIDTH * (ratio + 3))
    if ratio > REACH + 1:
        low, high = math.log1p(-REACH / ratio), math.log1p(REACH / ratio)
    else:
        density = math.exp(-0.5 * min(ratio, 7.0) ** 2) / math.sqrt(2 * math.pi)
        scale = max(ratio, 1.0)
        low = math.log(max(ratio - REACH, LOST / density) / scale)
        high = math.log((ratio + REACH) / scale)
    return low, math.ceil((high - low) / step) + 2, step


def _log_kernel(ratio: float, log_size: Tensor) -> Tensor:
    """Log density of log(|multiplier| / scale), multiplier > 0 first, then < 0 if it occurs.

    In units of sigma the multiplier is ``ratio + noise``, and ``scale = max(ratio, 1)``;
    expm1 keeps the distance to the mean exact at a large ratio.
    """
    scale = max(ratio, 1.0)
    away = scale * torch.expm1(log_size) + (scale - ratio)
    distances = torch.stack([away, away + 2 * ratio] if ratio < REACH else [away])
    return -0.5 * distances.square() + log_size + math.log(scale / math.sqrt(2 * math.pi))
