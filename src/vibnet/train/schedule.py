"""Learning rates and gamma as functions of the progress: nothing to save, nothing to restore."""

import math


def rate(schedule: str, progress: float) -> float:
    """The factor of a learning rate.

    Args:
        schedule: "cosine" from 1 to 0, "constant", or "halving" ten times in all.
        progress: share of the phase's steps that are done, in [0, 1).

    >>> [round(rate("cosine", p), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "halving":
        return float(0.5 ** int(10 * progress))
    return 1.0


def rise(share: float, progress: float) -> float:
    """The factor of gamma: linear from 0 to 1 over the first `share` of a phase, then 1.

    >>> [rise(0.5, p) for p in (0.0, 0.25, 0.9)], rise(0.0, 0.0)
    ([0.0, 0.5, 1.0], 1.0)
    """
    return 1.0 if progress >= share else progress / share
