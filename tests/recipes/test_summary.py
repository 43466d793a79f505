import pytest
from scipy import stats

from vibnet.recipes.summary import cell, paired, summary


def run(seed, r_w, error, held=100):
    return {
        "settings": {"seed": seed},
        "notes": {"images": {"validation": held}},
        "ratios": {"r_W": r_w, "macs": 2_000_000, "r_N": 10.0},
        "validation": {"small": error + 1},
        "test": {"small": error, "dense": 2.0},
    }


def test_a_cell_is_mean_spread_best_worst_and_how_many():
    found = cell([1.0, 2.0, 6.0])
    assert found == {
        "mean": 3.0,
        "spread": pytest.approx(7**0.5),
        "best": 1.0,
        "worst": 6.0,
        "n": 3,
    }
    assert cell([4.0])["spread"] == 0.0


def test_figures_are_means_over_seeds():
    found = summary([run(0, 3.0, 1.5), run(1, 5.0, 1.7)])
    assert (found["seeds"], found["n"]) == ([0, 1], 2)
    assert found["r_W"]["mean"] == 4.0
    assert found["macs"]["mean"] == 2.0
    assert found["test"]["best"] == 1.5
    assert found["validation"]["worst"] == pytest.approx(2.7)
    assert found["dense_test"]["mean"] == 2.0


def test_runs_on_all_images_have_no_validation_figure():
    final = run(0, 3.0, 1.5, held=0)
    assert "validation" not in summary([final])
    assert "validation" not in summary([final, run(1, 3.0, 1.5)])  # nor has a mix of both


@pytest.mark.parametrize("n", range(2, 13))
def test_paired_differences_have_student_s_interval(n):
    values = [0.1 * k * k - 1 for k in range(n)]
    found = paired(values)
    df = min(n, 11) - 1  # beyond eleven the wider interval of eleven
    half = stats.t.ppf(0.975, df) * stats.sem(values)
    assert found == {
        "mean": pytest.approx(sum(values) / n),
        "half": pytest.approx(half, rel=2e-4),
        "n": n,
    }


def test_one_pair_has_no_interval():
    assert paired([0.5]) == {"mean": 0.5, "half": None, "n": 1}
