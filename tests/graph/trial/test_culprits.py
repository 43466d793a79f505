"""The search for the sites that a trial cut fails on."""

import numpy as np
import pytest

from vibnet.graph.sites.structure import Site
from vibnet.graph.trial.culprits import Complaint, bisected, culprits


def site(name):
    return Site(name, 2, np.arange(2), (name,), ())


SITES = [site(f"s{k}") for k in range(12)]


class Model:
    """Fails on some sites, in their order; counts its trials. `line` of a site may be shared."""

    def __init__(self, bad, line=lambda name: name, touches=lambda name: [name]):
        self.bad, self.line, self.touches = bad, line, touches
        self.trials = 0

    def __call__(self, sites):
        self.trials += 1
        present = [s.name for s in sites]
        for step, name in enumerate(self.bad):
            if name in present:
                line = self.line(name)
                alike = tuple(
                    (t, f"{b} fails")
                    for b in self.bad
                    if self.line(b) == line
                    for t in self.touches(b)
                )
                return Complaint(
                    f"{name} fails", step, None, line, frozenset(self.touches(name)), alike
                )
        return None


def search(model, sites=SITES):
    first = model(sites)
    return culprits(model, sites, first)


def test_every_failing_site_is_found_with_its_own_text():
    model = Model(["s3", "s7"])
    assert search(model) == {"s3": "s3 fails", "s7": "s7 fails"}


def test_sites_that_fail_on_one_line_cost_three_trials_together():
    model = Model([f"s{k}" for k in range(10)], line=lambda _: "view of Attention")
    assert search(model) == {f"s{k}": f"s{k} fails" for k in range(10)}
    assert model.trials == 3


def test_a_lone_failure_on_a_shared_line_costs_its_own_site_only():
    model = Model(["s4"], line=lambda _: "view of Attention")
    assert search(model) == {"s4": "s4 fails"}


def test_a_site_that_a_failing_call_only_touches_is_given_back():
    model = Model(["s5"], touches=lambda _: ["s4", "s5", "s6"])
    assert search(model) == {"s5": "s5 fails"}


def test_calls_that_lead_to_the_wrong_sites_do_not_hide_the_right_one():
    model = Model(["s5"], touches=lambda _: ["s1"])
    assert search(model) == {"s5": "s5 fails"}


def test_calls_that_lead_nowhere_leave_it_to_bisection():
    model = Model(["s2", "s9"], touches=lambda _: [])
    assert search(model) == {"s2": "s2 fails", "s9": "s9 fails"}


def test_all_sites_may_fail():
    assert search(Model(["s0"]), SITES[:1]) == {"s0": "s0 fails"}
    assert len(search(Model([s.name for s in SITES]))) == len(SITES)


@pytest.mark.parametrize("seed", range(20))
def test_bisection_leaves_sites_that_pass_together(seed):
    random = np.random.default_rng(seed)
    pairs = [tuple(random.choice(12, 2, replace=False)) for _ in range(3)]

    def trial(sites):
        present = {int(s.name[1:]) for s in sites}
        clash = next((p for p in pairs if present >= set(p)), None)
        return Complaint(f"{clash} clash") if clash else None

    first = trial(SITES)
    for found in (bisected(trial, [], SITES, first), culprits(trial, SITES, first)):
        left = [s for s in SITES if s.name not in found]
        assert trial(left) is None
        assert all(trial([*left, s]) is not None for s in SITES if s.name in found)
