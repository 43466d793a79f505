"""The scalings of gamma: the paper's (eq. 9), the authors' code, and ours.

Ours is the loss for one nat of `rate`::

    loss = mean cross-entropy + gamma * sum_i weight_i * sum_j 0.5 * log(1 + snr_ij)

The paper's eq. 9 has no 0.5 (folded into its gamma) and multiplies the cross-entropy by
the number L of gated layers::

    L * mean cross-entropy + sum_i gamma_i * sum_j log(1 + snr_ij)

The authors' released code has the 0.5, no L, and weighs a convolution by the width of its
output map (height * width * kl_mult, with kl_mult = 1 / height) and a dense layer by 1::

    mean cross-entropy + kl_fac * sum_i 0.5 * width_i * sum_j log(1 + snr_ij)
"""

import operator

from vibnet.errors import ConfigError
from vibnet.information import checks

__all__ = ["from_authors_code", "from_equation_9", "to_equation_9"]


def from_equation_9(gamma_eq9: float, layers: int) -> float:
    """Our gamma for a gamma_i of the paper: ``2 * gamma_eq9 / layers``.

    Eq. 9 divided by L charges ``gamma_i / L`` for ``log(1 + snr)``, which is two of our
    nats. Ours includes the site's weight: with a weight other than 1, divide by it.

    Args:
        gamma_eq9: gamma_i of eq. 9, at least 0.
        layers: L, the number of gated layers, at least 1.

    Returns:
        Loss per nat of `rate`, beside a cross-entropy of weight 1.

    Raises:
        ConfigError: ``gamma_eq9`` is negative or not finite, or ``layers`` is no count.

    Source:
        Dai et al. 2018, eq. 9; see `vibnet.information.gamma` for all three scalings.

    >>> from_equation_9(1e-3, layers=4)
    0.0005
    """
    call = "from_equation_9(gamma_eq9, layers)"
    checks.at_least_zero(call, gamma_eq9=gamma_eq9)
    return 2 * gamma_eq9 / _count(call, layers)


def to_equation_9(gamma: float, layers: int) -> float:
    """The paper's gamma_i for our gamma: ``gamma * layers / 2``.

    For a site of weight w, give ``w * gamma``.

    Args:
        gamma: Loss per nat of `rate`, beside a cross-entropy of weight 1, at least 0.
        layers: L, the number of gated layers, at least 1.

    Returns:
        gamma_i of eq. 9.

    Raises:
        ConfigError: ``gamma`` is negative or not finite, or ``layers`` is no count.

    Source:
        Dai et al. 2018, eq. 9.

    >>> to_equation_9(0.0005, layers=4)
    0.001
    """
    call = "to_equation_9(gamma, layers)"
    checks.at_least_zero(call, gamma=gamma)
    return gamma * _count(call, layers) / 2


def from_authors_code(kl_fac: float) -> float:
    """Our gamma for the authors' ``kl_fac``: the same number, with site weights ``width``.

    Both charge for nats with the 0.5 and leave the cross-entropy alone. Only the weights
    must match: ``width`` for the published VGG settings; ``uniform`` for their variant
    D5 (kl_mult = 1 / width^2) and ``area`` for D0 (kl_mult = 1).

    Args:
        kl_fac: The option of that name of the authors' VGG code, at least 0.

    Returns:
        Loss per nat of `rate`, to be used with site weights ``width``.

    Raises:
        ConfigError: ``kl_fac`` is negative or not finite.

    Source:
        github.com/zhuchen03/VIBNet, the loss of the CIFAR script; eq. 9 without L.

    >>> from_authors_code(1.4e-5)
    1.4e-05
    """
    checks.at_least_zero("from_authors_code(kl_fac)", kl_fac=kl_fac)
    return float(kl_fac)


def _count(call: str, layers: int) -> int:
    try:
        count = operator.index(layers)
    except TypeError:
        count = 0
    if count < 1:
        raise ConfigError(
            f"{call}: layers must be a whole number, at least 1, found {layers!r}. "
            f"Give the number of gated layers."
        )
    return count
