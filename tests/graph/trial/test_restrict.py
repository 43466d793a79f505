import dataclasses

import numpy as np
import pytest
from networks import NETWORKS, lively
from training import CASES, UNGATED, case

from vibnet import attach
from vibnet.errors import NoSitesError
from vibnet.graph.sites.nested import nesting
from vibnet.graph.trial.cut import cut
from vibnet.graph.trial.probe import analyse
from vibnet.graph.trial.restrict import restrict
from vibnet.surgery.fold import bare

every_case = pytest.mark.parametrize("name", CASES)


def plain(tree):
    """Dataclasses and arrays as dicts and lists, which compare by value."""
    if dataclasses.is_dataclass(tree):
        return {f.name: plain(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
    if isinstance(tree, np.ndarray):
        return tree.tolist()
    if isinstance(tree, dict):
        return {k: plain(v) for k, v in tree.items()}
    return [plain(x) for x in tree] if isinstance(tree, (list, tuple)) else tree


def cut_copy(model, graph, kept):
    small = bare(model)
    cut(small, graph, kept)
    return small


def legal_cut(gated, share, seed):
    """A legal set without about a share of the units, and with two units of every site."""
    random = np.random.default_rng(seed)
    wanted = random.random(gated.graph.total) >= share
    for site in gated.graph.sites:
        wanted[site.units[random.permutation(site.size)[:2]]] = True
    return gated.legal(wanted)


class Names:
    """Which unit of one graph is which of another: that of the same rows of the same weights."""

    def __init__(self, a, b):
        self.forth, self.back = {-1: -1}, {-1: -1}
        for name, dims in a.parameters.items():
            for ours, theirs in zip(dims, b.parameters[name], strict=True):
                self.match(ours, theirs, name)

    def match(self, ours, theirs, what):
        for x, y in zip(ours.tolist(), theirs.tolist(), strict=True):
            assert self.forth.setdefault(x, y) == y, what
            assert self.back.setdefault(y, x) == x, what


@every_case
def test_a_restricted_graph_is_that_of_the_cut_model(name):
    gated, _, example = case(name)
    graph, kept = gated.graph, legal_cut(gated, 0.4, 3)
    for nested in graph.nested:  # whole layers, so that the cut model can be looked at as usual
        kept[nested.units] = np.where(nested.parents < 0, True, kept[nested.parents])
    assert not kept.all()
    ours = restrict(graph, kept)
    theirs = analyse(cut_copy(gated.model, graph, kept), example, graph.request)
    names = Names(ours, theirs)
    assert ours.total == theirs.total
    for a, b in zip(ours.sites, theirs.sites, strict=True):
        assert (a.name, a.size, a.nested, a.ungated) == (b.name, b.size, b.nested, b.ungated)
        assert set(a.writers) == set(b.writers)
        assert set(a.readers) == set(b.readers)
    for a, b in zip(ours.sites, theirs.sites, strict=True):
        names.match(a.units, b.units, a.name)
    assert [(r.parameter, r.dim, r.groups, r.foldable) for r in ours.readers] == [
        (r.parameter, r.dim, r.groups, r.foldable) for r in theirs.readers
    ]
    for a, b in zip(ours.readers, theirs.readers, strict=True):
        names.match(a.units, b.units, a.parameter)
    assert len(ours.places) == len(theirs.places)
    for a, b in zip(ours.places, theirs.places, strict=True):
        assert (a.module, a.argument, a.dim, a.repeat) == (b.module, b.argument, b.dim, b.repeat)
        names.match(a.units, b.units, a.module)
    for a, b in zip(ours.blocks, theirs.blocks, strict=True):
        assert (a.blocks, a.why) == (b.blocks, b.why)
        names.match(a.units, b.units, a.why)
    for a, b in zip(ours.nested, theirs.nested, strict=True):
        names.match(a.units, b.units, a.module)
        names.match(a.parents, b.parents, a.module)
    for what in ("widths", "remaps", "within_group"):
        a, b = getattr(ours, what), getattr(theirs, what)
        assert a.keys() == b.keys()
        for k, units in a.items():
            one, other = (units, b[k]) if what != "within_group" else (units[0], b[k][0])
            names.match(one, other, k)
    assert {k: g for k, (_, g) in ours.within_group.items()} == {
        k: g for k, (_, g) in theirs.within_group.items()
    }
    assert ours.depthwise == theirs.depthwise
    assert ours.uses == theirs.uses
    assert ours.request == theirs.request
    assert ours.unused == theirs.unused


def two_cuts(gated):
    """Two legal sets, the second a smaller part of the first."""
    for seed in range(50):
        first, other = legal_cut(gated, 0.3, seed), legal_cut(gated, 0.5, seed + 100)
        then = gated.legal(first & other)
        if not (then & ~first).any() and then.sum() < first.sum() < len(first):
            return first, then
    return pytest.fail("no two cuts were found")


@every_case
def test_two_cuts_are_one(name):
    gated, _, _ = case(name)
    graph = gated.graph
    first, then = two_cuts(gated)
    half, inside = restrict(graph, first), then[first]
    twice = restrict(half, inside)
    assert plain(twice) == plain(restrict(graph, then))
    small = cut_copy(cut_copy(gated.model, graph, first), half, inside)
    once = cut_copy(gated.model, graph, then)
    assert str(small) == str(once)
    for (a, x), (b, y) in zip(small.state_dict().items(), once.state_dict().items(), strict=True):
        assert a == b
        assert x.tolist() == y.tolist(), a
    for site, old in zip(twice.sites, graph.sites, strict=True):
        assert site.positions.tolist() == np.flatnonzero(then[old.units]).tolist()
        assert (site.first, site.weight) == (old.size, old.weight)


@every_case
def test_nothing_is_changed_in_the_graph_and_keeping_all_is_the_graph_itself(name):
    gated, _, _ = case(name)
    before = plain(gated.graph)
    whole = restrict(gated.graph, np.ones(gated.graph.total, dtype=np.bool_))
    restrict(gated.graph, legal_cut(gated, 0.4, 0))
    assert plain(gated.graph) == before
    sites = [
        dataclasses.replace(s, original=t.original, first=t.first)
        for s, t in zip(whole.sites, gated.graph.sites, strict=True)
    ]
    assert plain(dataclasses.replace(whole, sites=sites)) == before


def test_a_feature_that_is_gone_binds_nobody():
    gated, _, _ = case("flat_conv", share=0.0)
    graph = gated.graph
    features = next(s for s in graph.sites if s.nested)
    kept = np.ones(graph.total, dtype=np.bool_)
    kept[features.units[[0, 1, 5]]] = False
    inner = nesting(restrict(graph, kept))
    assert (inner.children >= 0).all()
    assert len(inner.children) == 9
    assert np.bincount(inner.parents).tolist() == [2, 3, 4]


def test_the_networks_that_cannot_be_gated_are_these():
    refused = set()
    for name, build in NETWORKS.items():
        if name not in UNGATED:
            continue
        model, example = build(0)
        with pytest.raises(NoSitesError, match=r"has no site that can be gated"):
            attach(lively(model, example, 0), tuple(x.double() for x in example))
        refused.add(name)
    assert refused == UNGATED
