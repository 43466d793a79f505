import math

import pytest

from vibnet.analysis import prices as module
from vibnet.analysis.prices import LEVELS, equal_error, one, prices, size_at


def test_a_size_is_read_off_the_line_between_neighbours():
    line = [(1.0, 4.0), (100.0, 2.0), (1000.0, 3.0)]
    assert size_at(line, 4.0) == 1.0
    assert size_at(line, 3.0) == pytest.approx(10.0)
    assert size_at(line, 2.0) == 100.0
    assert size_at(line, 1.0) == math.inf


def test_the_product_of_the_prices_does_not_change(monkeypatch):
    seen = []

    def caught(*_args, options):
        seen.append(options["weights"])
        raise StopIteration

    monkeypatch.setattr(module, "fit", caught)
    for ratio in module.RATIOS:
        with pytest.raises(StopIteration):
            one(ratio, 1e-3, 0)
    for ratio, found in zip(module.RATIOS, seen, strict=True):
        first, second = (found[name] for name in module.SITES)
        assert first / second == pytest.approx(ratio)
        assert first * second == pytest.approx(1.0)


def test_a_dearer_layer_keeps_less(monkeypatch):
    monkeypatch.setattr(module, "SEEDS", (0,))
    monkeypatch.setattr(module, "RATIOS", (0.5, 2.0))
    monkeypatch.setattr(module, "GAMMAS", (1e-3, 1e-1))
    real = module.job
    short = {"dense_epochs": "2", "gate_epochs": "10", "gate_lr": "0.05"}
    monkeypatch.setattr(module, "job", lambda r, changes: real(r, {**changes, **short}))
    body = prices(lambda _: None)
    assert [(row["ratio"], row["gamma"]) for row in body["rows"]] == [
        (0.5, 1e-3), (0.5, 1e-1), (2.0, 1e-3), (2.0, 1e-1),
    ]  # fmt: skip
    sizes = {row["gamma"]: row["r_W"]["mean"] for row in body["rows"] if row["ratio"] == 2.0}
    assert sizes[1e-1] < sizes[1e-3] < 100
    for level in body["equal_error"]:
        assert set(level["r_W"]) == {"0.5", "2"}
        assert all(math.isfinite(size) for size in level["r_W"].values())


def test_errors_are_equal_where_all_ratios_reach_them():
    def row(ratio, size, error):
        return {"ratio": ratio, "r_W": {"mean": size}, "validation": {"mean": error}}

    rows = [row(1.0, 100.0, 1.0), row(1.0, 1.0, 9.0), row(2.0, 100.0, 2.0), row(2.0, 1.0, 3.0)]
    found = equal_error(rows)
    assert [level["validation"] for level in found] == [2.0 * p for p in LEVELS if 2.0 * p <= 3.0]
    assert found[0]["r_W"]["2"] == 100.0
    assert found[-1]["r_W"]["2"] == 1.0
    assert all(math.isfinite(size) for level in found for size in level["r_W"].values())
