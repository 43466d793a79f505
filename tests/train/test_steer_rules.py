import copy
import math

import pytest
from states import set_snr
from training import SHORT, Toy, mlp

import vibnet
from vibnet.config import Settings
from vibnet.train import loop, phases
from vibnet.train.budget import Budget
from vibnet.train.loop import fit
from vibnet.train.steer import Steering


def begun(text, **changes):
    made, model = Steering(Budget.parse(text), Settings(**changes), 10_000), gated()
    made.begin(model)
    return made, model.eval()


def gated():
    return vibnet.attach(mlp(), Toy().example)


def scored(model):
    set_snr(model, "0", [0.3] * 2 + [0.5] * 2 + [2.0] * 4 + [50.0] * 8)
    set_snr(model, "4", [80.0] * 12)
    return model


def test_the_last_cut_keeps_half_a_standard_error_below_the_limit():
    made, model = begun("error=10")
    scored(model)
    kept = made.final(model, lambda g: 9.5 if int(g.kept().sum()) < 24 else 5.0, 2.0)
    assert kept.sum() == 24  # at 20 units the error is below the limit, but above 9
    made, model = begun("error=10")
    kept = made.final(scored(model), lambda g: 9.0 if int(g.kept().sum()) == 20 else 50.0, 2.0)
    assert kept.sum() == 20  # 9 is allowed
    assert made.aim(2.0) == 9.0


def test_where_no_unit_can_be_spared_the_closed_ones_stay_closed():
    made, model = begun("error=10")
    scored(model)
    kept = made.final(model, lambda g: 99.0 if int(g.kept().sum()) <= 24 else 5.0, 0.0)
    assert (kept == model.kept()).all()
    assert kept.sum() == 24
    assert made.live == 0


def test_an_error_is_judged_with_its_standard_error(monkeypatch):
    judged, found = [], []
    judge, examine = Steering.judge, loop.examine

    def seen(self, error, spread, epochs):
        judged.append((error, spread))
        judge(self, error, spread, epochs)

    monkeypatch.setattr(Steering, "judge", seen)
    monkeypatch.setattr(loop, "examine", lambda *a: found.append(examine(*a)) or found[-1])
    fit(mlp(), Toy(), None, SHORT.replaced(budget="error=60", lr=1e-5))
    assert judged == found[SHORT.dense_epochs :]
    assert any(spread > 0 for _, spread in judged)


def test_once_cut_no_error_moves_gamma():
    made, _ = begun("error=2")
    made.trimmed = True
    before = copy.deepcopy(made.state())
    made.judge(9.0, 0.2, 10)
    assert made.state() == before


def test_an_error_without_a_spread_is_approached_by_hundredths_of_the_limit():
    made, _ = begun("error=2", gamma=1.0)
    made.judge(2.0 * 0.999, 0.0, 10)  # a tenth of a hundredth below: a tenth of a step
    assert made.gamma == pytest.approx(0.25 * math.exp(0.08))


def test_the_record_of_the_last_cut_has_the_error_of_what_is_left(monkeypatch):
    cut, before = [], []
    validate, examine = loop.validate, loop.examine
    monkeypatch.setattr(loop, "validate", lambda *a: cut.append(validate(*a)) or cut[-1])
    monkeypatch.setattr(loop, "examine", lambda *a: before.append(examine(*a)) or before[-1])
    settings = SHORT.replaced(budget="weights=10%", gate_lr=1e-4, dense_epochs=8, lr=1e-2)
    fitted = fit(mlp(), Toy(), None, settings)
    at = settings.dense_epochs + math.ceil(0.85 * settings.gate_epochs) - 1
    assert cut == [fitted.history[at].validation]
    assert before[at][0] != cut[0]
    assert fitted.history[at + 1].validation == before[at + 1][0]


def test_steps_are_those_of_the_optimiser(monkeypatch):
    seen = []

    def made(budget, settings, steps):
        seen.append(steps)
        return Steering(budget, settings, steps)

    monkeypatch.setattr(phases, "Steering", made)
    settings = SHORT.replaced(budget="weights=50%", gate_epochs=2, dense_epochs=0)
    fit(mlp(), Toy(), None, settings)
    fit(mlp(), Toy(), None, settings.replaced(accumulate=2))
    assert seen == [2 * Toy().steps, Toy().steps]


@pytest.mark.parametrize("text", ["memory=60%", "latency=60%"])
def test_what_is_dear_to_cost_is_looked_at_once_an_epoch(text, monkeypatch):
    made, model = begun(text)
    monkeypatch.setattr(Budget, "cost", lambda *_: pytest.fail("costed within an epoch"))
    made.look(model, 0.5)
    assert made.progress == 0
    monkeypatch.setattr(Budget, "cost", lambda *_: made.base)
    made.look(model, 0.5, whole=True)
    assert made.progress == 0.5


def test_a_size_is_looked_at_two_hundred_times():
    made, model = begun("weights=10%")
    made.look(model, 0.3)
    for progress, seen in ((0.304, 0.3), (0.306, 0.306)):
        made.look(model, progress)
        assert made.progress == seen


def test_haste_is_more_than_a_fifth_of_what_stays_and_of_sizes_only():
    for text, live, said in (
        ("weights=10%", 21, True),
        ("weights=10%", 20, False),
        ("error=10", 100, False),
    ):
        made, _ = begun(text)
        made.live, made.left = live, 100
        assert bool(made.haste()) == said
    made.budget, made.live = Budget.parse("macs=5%"), 30
    assert "macs=5%, 30 units that were in use have been cut; 100 stay" in made.haste()


def test_a_latency_counts_by_the_least_seen_and_its_way_as_that_to_a_half_at_least(monkeypatch):
    for text, way in (("latency=95%", math.log(2)), ("latency=10%", math.log(10))):
        made, model = begun(text, gamma=1.0)
        seen = [2.0, 0.99, 3.0]  # of the dense model's, where nothing has to fall yet
        monkeypatch.setattr(Budget, "cost", lambda *_, m=made, s=seen: s.pop(0) * m.base)
        made.look(model, 0.01, whole=True)
        assert made.gamma == made.settings.gamma
        made.look(model, 0.02, whole=True)
        gap = math.log(0.99) / way
        assert math.log(made.gamma) == pytest.approx(8 * gap + 60 * gap * 0.01)
        made.look(model, 0.03, whole=True)
        assert made.least == made.start == 0.99 * made.base
        assert made.state()["least"] == made.least
        assert made.gamma < made.settings.gamma
        monkeypatch.undo()


def test_an_error_of_another_size_at_the_end_is_told():
    made, _ = begun("weights=10%")
    assert made.worsened(2.0, 10.0) == made.worsened(None, 90.0) == made.worsened(0.0, 90.0) == ""
    assert "the error on validation went from 2 to 10.1" in made.worsened(2.0, 10.1)
    assert not begun("error=5")[0].worsened(2.0, 90.0)
    settings = SHORT.replaced(
        budget="weights=60%", gamma=1e3, dense_epochs=20, lr=2e-2, gate_lr=0.5
    )
    said = []
    fitted = fit(mlp(), Toy(), None, settings, on_warning=said.append)
    dense, small = fitted.history[19].validation, fitted.history[-1].validation
    assert small > 5 * dense > 0 or not dense
    assert any("went from" in text for text in said) == bool(dense)
    assert said == fitted.warnings
