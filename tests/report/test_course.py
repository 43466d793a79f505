import pytest

from vibnet.report.course import _ranks, course

SITE = {
    "rate": [1.0, 2.0, 0.0],
    "bound": [1.5, 2.5, 0.5],
    "truth": [0.5, 1.0, 0.25],
    "snr": [5.0, 9.0, 0.5],
}


def body():
    snapshots = [
        {"seed": seed, "epoch": epoch, "validation": 2.0, "sites": {"fc": SITE}}
        for seed in (0, 1)
        for epoch in (0, 3)
    ]
    columns = [{"sites": {"fc": {"norm": [0.5, 1.0, 0.1], "snr": [5.0, 9.0, 0.5]}}}] * 2
    held = [
        {"held": 2, "rows": [{"epoch": e, "largest_held": 10.0 ** (seed - e - 1), "others_open": 3,
                              "largest_other": 50.0} for e in (0, 3)]}
        for seed in (0, 1)
    ]  # fmt: skip
    return {
        "recipe": "toy",
        "delta": 1e-3,
        "snapshots": snapshots,
        "columns": columns,
        "held": held,
    }


def test_the_chapter_sums_units_and_tells_open_from_closed(tmp_path):
    text = course(body(), tmp_path, "base")
    assert "| fc | 3 | 3.0 | 4.5 | 1.8 | 2.0 | 0.75 | 0.25 |" in text
    assert "| 3 | 0.001 | 50 | 3.0 |" in text  # the largest of both seeds
    assert "| fc | 4 | 2 | 0.75 | 0.1 | 1.00 |" in text
    for name in ("course", "columns"):
        assert (tmp_path / f"{name}.svg").exists()
        assert f"](base/{name}.svg)" in text


def test_ranks_are_correlated_whatever_the_values_are():
    assert _ranks([1.0, 2.0, 30.0], [0.1, 0.2, 1e9]) == pytest.approx(1.0)
    assert _ranks([1.0, 2.0, 3.0], [3.0, 2.0, -1.0]) == pytest.approx(-1.0)
