import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibnet.graph.sites.constraints import EqualBlocks, Nesting, legal

few = settings(max_examples=80, deadline=None)


@st.composite
def problems(draw):
    """Sites that share out all units, and blocks over some of them, pinned positions included."""
    total = draw(st.integers(1, 16))
    owner = np.array(draw(st.lists(st.integers(0, 3), min_size=total, max_size=total)))
    sites = [np.flatnonzero(owner == k) for k in range(4) if (owner == k).any()]
    blocks = []
    for _ in range(draw(st.integers(0, 3))):
        number, size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        units = draw(
            st.lists(st.integers(-1, total - 1), min_size=number * size, max_size=number * size)
        )
        blocks.append(EqualBlocks(np.array(units), number, "blocks"))
    wanted = np.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    score = np.random.default_rng(draw(st.integers(0, 99))).permutation(total).astype(float)
    return wanted, score, sites, blocks, draw(st.integers(1, 3)), draw(st.integers(1, 4))


def equal_counts(block, kept):
    """A plain count of the positions that stay in every block."""
    rows = [r.tolist() for r in block.units.reshape(block.blocks, -1)]
    return [sum(u < 0 or bool(kept[u]) for u in row) for row in rows]


@few
@given(problems())
def test_a_legal_set_holds_what_was_wanted_and_satisfies_all_constraints(problem):
    wanted, score, sites, blocks, floor, multiple = problem
    before = wanted.copy()
    kept = legal(wanted, score, sites, blocks, floor, multiple)
    assert kept.dtype == np.bool_
    assert kept[wanted].all()
    assert np.array_equal(wanted, before)
    for units in sites:
        count = int(kept[units].sum())
        assert count >= min(floor, len(units))
        assert count % multiple == 0 or count == len(units)
    for block in blocks:
        counts = equal_counts(block, kept)
        assert counts[0] > 0
        assert len(set(counts)) == 1


@few
@given(problems())
def test_a_legal_set_stays_as_it_is(problem):
    wanted, score, *rest = problem
    kept = legal(wanted, score, *rest)
    assert np.array_equal(legal(kept, score, *rest), kept)


@few
@given(problems(), st.data())
def test_without_blocks_wanting_more_units_never_keeps_fewer(problem, data):
    wanted, score, sites, _, floor, multiple = problem
    more = wanted.copy()
    more[data.draw(st.integers(0, len(wanted) - 1))] = True
    a = legal(wanted, score, sites, [], floor, multiple)
    b = legal(more, score, sites, [], floor, multiple)
    assert b.sum() >= a.sum()


@few
@given(problems())
def test_counts_and_broken_are_those_of_a_plain_count(problem):
    wanted, _, _, blocks, *_ = problem
    for block in blocks:
        counts = equal_counts(block, wanted)
        assert block.counts(wanted).tolist() == counts
        assert block.broken(wanted) == (len(set(counts)) > 1 or counts[0] == 0)


def test_nothing_is_opened_where_nothing_forces_it():
    wanted = np.array([True, False, True, False])
    assert np.array_equal(legal(wanted, np.ones(4), [np.arange(4)], []), wanted)


def test_an_empty_site_opens_its_best_unit():
    kept = legal(np.zeros(4, bool), np.array([0.1, 0.3, 0.9, 0.2]), [np.arange(4)], [])
    assert kept.tolist() == [False, False, True, False]


@pytest.mark.parametrize(("multiple", "count"), [(1, 3), (2, 4), (4, 4), (5, 5), (8, 7)])
def test_a_multiple_is_reached_upwards_or_all_stay(multiple, count):
    wanted = np.arange(7) < 3
    kept = legal(wanted, -np.arange(7.0), [np.arange(7)], [], multiple=multiple)
    assert kept.tolist() == [k < count for k in range(7)]


def test_a_short_block_opens_its_best_units_and_no_more():
    wanted = np.array([True, True, False, False, False, False])
    score = np.array([9, 8, 0, 0.1, 0.3, 0.2])
    block = EqualBlocks(np.arange(6), 2, "halves")
    kept = legal(wanted, score, [np.arange(6)], [block])
    assert kept.tolist() == [True, True, False, False, True, True]


def test_positions_that_always_stay_count_as_kept():
    block = EqualBlocks(np.array([-1, -1, 0, 1]), 2, "halves")
    assert block.counts(np.array([False, False])).tolist() == [2, 0]
    assert legal(np.zeros(2, bool), np.ones(2), [], [block]).all()


@st.composite
def nestings(draw):
    """A site of parents, some of which others read too, and a site of their children."""
    parents = draw(st.integers(1, 5))
    above = np.array(draw(st.lists(st.integers(0, parents - 1), min_size=1, max_size=12)))
    children = np.arange(parents, parents + len(above))
    read = np.array(draw(st.lists(st.booleans(), min_size=parents, max_size=parents)))
    with_child = np.isin(np.arange(parents), above)
    nesting = Nesting(children, above, np.flatnonzero(~read & with_child))
    total = parents + len(above)
    wanted = np.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    score = np.random.default_rng(draw(st.integers(0, 99))).permutation(total).astype(float)
    return wanted, score, [np.arange(parents), children], nesting


@few
@given(nestings(), st.integers(1, 3), st.integers(1, 3))
def test_nested_units_live_only_together(problem, floor, multiple):
    wanted, score, sites, nesting = problem
    kept = legal(wanted, score, sites, [], floor, multiple, nesting)
    for child, parent in zip(nesting.children, nesting.parents, strict=True):
        assert kept[parent] or not kept[child]
    for parent in nesting.dependent:
        assert not kept[parent] or kept[nesting.children[nesting.parents == parent]].any()
    assert all(kept[units].sum() >= min(floor, len(units)) for units in sites)
    assert np.array_equal(legal(kept, score, sites, [], floor, multiple, nesting), kept)


@few
@given(nestings())
def test_nesting_closes_no_more_than_it_must(problem):
    wanted, score, sites, nesting = problem
    kept = legal(wanted, score, sites, [], 0, 1, nesting)
    assert not (kept & ~wanted).any()
    gone = wanted & ~kept
    for parent in np.flatnonzero(gone[sites[0]]):
        assert parent in nesting.dependent
        assert not wanted[nesting.children[nesting.parents == parent]].any()
    for unit in nesting.children[gone[nesting.children]]:
        assert not kept[nesting.parents[nesting.children == unit]].any()


def test_broken_names_the_orphans():
    nesting = Nesting(np.array([2, 3]), np.array([0, 1]), np.arange(0))
    assert nesting.broken(np.array([False, True, True, True])).tolist() == [2]


def test_a_parent_that_must_open_opens_its_best_child():
    nesting = Nesting(np.arange(2, 8), np.array([0, 0, 1, 1, 1, 0]), np.arange(2))
    wanted = np.array([True, False, True, True, False, False, False, False])
    score = np.array([1.0, 1.0, 9.0, 8.0, 0.2, 0.7, 0.5, 7.0])
    kept = legal(wanted, score, [np.arange(2), np.arange(2, 8)], [], 2, 1, nesting)
    assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3, 5]
