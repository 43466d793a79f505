"""Which units trial cuts take: legal, the same every time, and of every site where any may go."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vibnet.graph.sites.constraints import Mask, legal
from vibnet.graph.sites.structure import Graph, Site

Scores = npt.NDArray[np.float64]
TRIES = 8  # orders of the units, until a trial cuts every site
LEFT = 2  # units of a site in the narrowest trial: of one, axes cannot be told apart


def third(graph: Graph, sites: Sequence[Site]) -> Mask:
    """A legal cut of about a third of the units of some sites; more where less is illegal."""
    return _cut(graph, sites, (1 / 3,), 0)


def unequal(graph: Graph, sites: Sequence[Site]) -> Mask:
    """Other units than a third's, and unequal shares, so that no two widths agree by chance."""
    return _cut(graph, sites, (1 / 2, 1 / 4, 3 / 4), 1)


def two(graph: Graph, sites: Sequence[Site]) -> Mask:
    """A legal cut that leaves two units of some sites, or of each of their blocks, or few more."""
    score = np.random.default_rng(0).random(graph.total)
    wanted = np.ones(graph.total, dtype=np.bool_)
    rank, among = _ranks(graph, score)
    for site in sites:
        place, last = np.maximum(np.round(rank * among), 1)[site.units], among[site.units]
        wanted[site.units] = place > last - LEFT
    return legal(wanted, score, [s.units for s in graph.sites], graph.blocks)


def _cut(graph: Graph, sites: Sequence[Site], firsts: Sequence[float], seed: int) -> Mask:
    score = np.random.default_rng(seed).random(graph.total)
    wanted = np.ones(graph.total, dtype=np.bool_)
    every = [s.units for s in graph.sites]
    rank, _ = _ranks(graph, score)
    kept = wanted
    uncut = [(s.units, firsts[k % len(firsts)]) for k, s in enumerate(sites)]
    for least in (0, 2 / 3, 1.0):
        for units, first in uncut:
            wanted[units[rank[units] <= max(first, least)]] = False
        kept = legal(wanted, score, every, graph.blocks)
        uncut = [(units, first) for units, first in uncut if kept[units].all()]
    for other_seed in range(2, 2 + TRIES):  # a constraint may have opened just what was closed
        whole = sum(bool(kept[site.units].all()) for site in sites)
        if not whole:
            break
        score = np.random.default_rng(other_seed).random(graph.total)
        other = legal(wanted, score, every, graph.blocks)
        if sum(bool(other[site.units].all()) for site in sites) < whole:
            kept = other
    return kept


def _ranks(graph: Graph, score: Scores) -> tuple[Scores, Scores]:
    """The place of every unit by score in its site or block, from 0 (first) to 1; of how many."""
    rank, among = np.zeros_like(score), np.zeros_like(score)
    blocks = sorted(graph.blocks, key=lambda block: block.blocks)
    rows = [s.units for s in graph.sites]
    for units in (*rows, *(row for b in blocks for row in b.units.reshape(b.blocks, -1))):
        if not len(own := np.unique(units[units >= 0])):
            continue
        order = np.arange(len(own))
        rank[own[np.argsort(score[own])]] = np.where(order > 0, (order + 1) / len(own), 0)
        among[own] = len(own)
    return rank, among
