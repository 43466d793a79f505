"""Orders are permutations that depend on their arguments alone."""

import hashlib
from collections import Counter

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.zoo.data.shuffle import order, permutation, splitmix64

MASK = 2**64 - 1


def slow(start, n):
    """SplitMix64 in Python's own integers."""
    found = []
    for _ in range(n):
        start = (start + 0x9E3779B97F4A7C15) & MASK
        z = ((start ^ (start >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        found.append(z ^ (z >> 31))
    return found


def test_splitmix64_gives_its_published_numbers():
    # Test vector of the generator, start 1234567, as in Rosetta Code, "Pseudo-random
    # numbers/Splitmix64".
    assert splitmix64(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("start", [0, 1, 2**63, MASK])
def test_splitmix64_is_the_slow_loop(start):
    assert splitmix64(start, 100).tolist() == slow(start, 100)


@pytest.mark.parametrize("n", [1, 2, 97, 60_000])
def test_an_order_visits_everyone_once(n):
    found = order(n, seed=3, epoch=1)
    assert found.dtype == torch.int64
    assert torch.equal(found.sort().values, torch.arange(n))


def test_an_order_sorts_by_keys_from_the_digest_of_its_arguments():
    start = int.from_bytes(hashlib.sha256(b"order 7 12").digest()[:8], "little")
    keys = slow(start, 50)
    assert order(50, 7, 12).tolist() == sorted(range(50), key=keys.__getitem__)


def test_seeds_and_epochs_give_other_orders_and_no_global_state_matters():
    torch.manual_seed(1)
    first = order(100, 0, 1)
    torch.manual_seed(2)
    assert torch.equal(first, order(100, 0, 1))
    others = [order(100, 1, 0), order(100, 0, 0), order(100, 0, 11), order(100, 10, 1)]
    others += [order(100, -1, 1), permutation(100, "split 0")]
    assert all(not torch.equal(first, other) for other in others)


def test_all_orders_of_three_are_equally_likely():
    counts = Counter(tuple(order(3, 0, epoch).tolist()) for epoch in range(6000))
    assert len(counts) == 6
    chi_squared = sum((c - 1000) ** 2 / 1000 for c in counts.values())
    assert chi_squared < 20.5  # the 0.999 quantile with 5 degrees of freedom; seeds are fixed


def test_an_order_of_nobody_is_refused():
    with pytest.raises(ConfigError, match="an order of 0 examples"):
        order(0, 0, 0)
