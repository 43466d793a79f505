"""The information theory of a noisy multiplier: pure functions of tensors, no modules."""

from vibnet.information import gamma
from vibnet.information.bounds import (
    best_variance,
    kl_to_best_prior,
    penalised_curvature,
    psi,
    rank_bound,
    rho,
)
from vibnet.information.gamma import from_authors_code, from_equation_9, to_equation_9
from vibnet.information.noise import draw
from vibnet.information.rate import rate, snr
from vibnet.information.unit_information import unit_information

__all__ = [
    "best_variance",
    "draw",
    "from_authors_code",
    "from_equation_9",
    "gamma",
    "kl_to_best_prior",
    "penalised_curvature",
    "psi",
    "rank_bound",
    "rate",
    "rho",
    "snr",
    "to_equation_9",
    "unit_information",
]
