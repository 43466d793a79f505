import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibnet.graph.labels.labels import MIXED, Labels, merge, plain, unmerge, view

few = settings(max_examples=60, deadline=None)


def carrying(labels, sizes, axis):
    """Dimensions of which one carries new units."""
    dims = [plain(n) for n in sizes]
    dims[axis] = labels.new(sizes[axis])
    return tuple(dims)


def units_of(dims):
    """The unit of every element: the sum of the labels along its axes (one axis carries them)."""
    grid = np.zeros([d.shape[1] for d in dims], dtype=np.int64)
    for k, dim in enumerate(dims):
        shape = [1] * len(dims)
        shape[k] = -1
        grid = grid + dim[0].reshape(shape)
    return grid


def pinned(labels):
    return labels.resolve()[1]


def naive_classes(count, pairs):
    parent = list(range(count))

    def find(x):
        while parent[x] != x:
            x = parent[x]
        return x

    for first, second in pairs:
        a, b = find(first), find(second)
        parent[max(a, b)] = min(a, b)
    return [find(x) for x in range(count)]


def test_new_labels_are_all_different_and_never_the_one_of_no_unit():
    labels = Labels()
    a, b = labels.new(3), labels.new(4)
    joined = np.concatenate([a[0], b[0]])
    assert len(set(joined.tolist())) == 7
    assert 0 not in joined
    assert not a[1].any()
    assert not plain(5).any()


@few
@given(
    st.integers(2, 14).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(1, n - 1), st.integers(1, n - 1)), max_size=20),
            st.lists(st.integers(1, n - 1), max_size=4),
        )
    )
)
def test_classes_and_pins_are_those_of_a_plain_union_find(case):
    count, pairs, pins = case
    labels = Labels()
    labels.new(count - 1)

    def dim(x):
        return np.array([[x], [0]])

    for number, x in enumerate(pins):
        labels.pin(dim(x), f"reason {number}")
    for a, b in pairs:
        labels.same(dim(a), dim(b), "unused")
    roots, reasons = labels.resolve()
    expected = naive_classes(count, pairs)
    assert roots.tolist() == expected
    first = {}
    for number, x in enumerate(pins):
        first.setdefault(expected[x], f"reason {number}")
    assert reasons == first


def test_joining_whole_dimensions_joins_position_by_position():
    labels = Labels()
    a, b, c = labels.new(3), labels.new(3), labels.new(3)
    labels.same(c, b[:, ::-1], "no")
    labels.same(a, b, "no")
    roots, reasons = labels.resolve()
    assert roots[b[0]].tolist() == a[0].tolist()
    assert roots[c[0]].tolist() == a[0][::-1].tolist()
    assert reasons == {}


def test_a_unit_that_meets_no_unit_is_pinned_with_the_reason_and_the_others_join():
    labels = Labels()
    a, b = labels.new(3), labels.new(3)
    b[0, 1] = 0
    labels.same(a, b, "meets space")
    roots, reasons = labels.resolve()
    assert reasons == {a[0, 1]: "meets space"}
    assert roots[b[0, 0]] == a[0, 0]
    assert roots[b[0, 2]] == a[0, 2]


def test_the_first_reason_of_a_class_is_the_one_told():
    labels = Labels()
    a = labels.new(2)
    labels.pin(a[:, :1], "first")
    labels.pin(a, "second")
    assert pinned(labels) == {a[0, 0]: "first", a[0, 1]: "second"}


def test_pinning_positions_that_are_no_units_does_nothing():
    labels = Labels()
    labels.pin(plain(3), "never")
    assert pinned(labels) == {}


@few
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_flattening_is_what_numpy_does_to_the_indices(sizes, data):
    labels = Labels()
    axis = data.draw(st.integers(0, len(sizes) - 1))
    dims = carrying(labels, sizes, axis)
    out = merge(list(dims), labels, "why")
    assert np.array_equal(out[0], units_of(dims).reshape(-1))
    assert pinned(labels) == {}


@few
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_unflattening_undoes_flattening(sizes, data):
    labels = Labels()
    axes = [k for k, n in enumerate(sizes) if n > 1]
    axis = data.draw(st.sampled_from(axes or [len(sizes) - 1]))
    dims = carrying(labels, sizes, axis)
    out = unmerge(merge(list(dims), labels, "why"), sizes, labels)
    for before, after in zip(dims, out, strict=True):
        assert np.array_equal(before, after)


@few
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(st.integers(1, 4), min_size=0, max_size=2),
    st.data(),
)
def test_a_view_that_flattens_round_units_moves_them_as_numpy_does(sizes, more, data):
    """Neighbouring axes are joined, and axes of no unit are taken apart."""
    labels = Labels()
    axis = data.draw(st.integers(0, len(sizes) - 1))
    sizes[axis] += 1  # an axis of one position may be pinned: there is nothing to cut
    dims = (*carrying(labels, sizes, axis), *(plain(n) for n in more))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sizes) - 1)))) if len(sizes) > 1 else []
    parts = np.split(np.array(sizes), cuts)
    shape = (*(int(p.prod()) for p in parts), *([int(np.prod(more))] if more else []))
    out = view(dims, shape, labels, "why")
    roots, reasons = labels.resolve()
    assert tuple(d.shape[1] for d in out) == shape
    assert reasons == {}
    assert np.array_equal(roots[units_of(out)], units_of(dims).reshape(shape))


def test_flattening_two_axes_of_units_pins_both_with_the_reason():
    labels = Labels()
    a, b = labels.new(2), labels.new(3)
    out = merge([a, b], labels, "two axes")
    assert not out[0].any()
    assert pinned(labels) == dict.fromkeys([*a[0].tolist(), *b[0].tolist()], "two axes")


def test_the_batch_stays_known_through_a_flatten_and_a_mixed_one_is_marked():
    labels = Labels()
    batch = plain(2)
    batch[1] = [1, 2]
    assert merge([batch, plain(3)], labels, "why")[1].tolist() == [1, 1, 1, 2, 2, 2]
    assert merge([plain(3), batch], labels, "why")[1].tolist() == [1, 2, 1, 2, 1, 2]
    assert set(merge([batch, batch], labels, "why")[1].tolist()) == {MIXED}


def test_units_viewed_as_blocks_become_one_unit_per_place_of_a_block():
    labels = Labels()
    dim = labels.new(6)
    rows, columns = unmerge(dim, [2, 3], labels)
    roots, reasons = labels.resolve()
    assert not rows[0].any()
    assert roots[columns[0]].tolist() == dim[0, :3].tolist()
    assert roots[dim[0]].tolist() == [*dim[0, :3].tolist()] * 2
    assert reasons == {}


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2, 3, 4, 1), (2, 3, 1, 4)])
def test_axes_of_size_one_come_and_go_without_harm(shape):
    labels = Labels()
    dims = carrying(labels, (2, 3, 4), 1)
    out = view(dims, shape, labels, "why")
    assert [d[0].tolist() for d in out if d[0].any()] == [dims[1][0].tolist()]
    assert pinned(labels) == {}
