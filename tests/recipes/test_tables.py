import math

import pytest

from vibnet.errors import ConfigError
from vibnet.recipes.catalog import recipe
from vibnet.recipes.controls import CONTROLS
from vibnet.recipes.published import LENET300
from vibnet.recipes.tables import MAIN, TABLES, figures, points, reaches, result, table

PRINTED = LENET300["VIBNet"]


def run(r_w, error, r_n=16.0, seed=0):
    return {
        "settings": {"seed": seed},
        "ratios": {"r_W": r_w, "macs": 9560, "r_N": r_n},
        "before": {"weights": 1000},
        "test": {"small": error, "dense": 2.0},
        "sites": [{"name": "inputs", "after": 97}, {"name": "fc1", "after": 71 + seed}],
        "timing": {"cpu_seconds": 10.0 + seed},
    }


def control(weights, error):
    return {"control": True, "weights": weights, "macs": 5000, "test": error}


@pytest.mark.parametrize("of", TABLES.values(), ids=lambda t: t.name)
def test_every_row_of_a_table_can_be_run(of):
    runs = points(of, list(of.entries), [0, 3], {})
    assert list(runs) == list(of.entries)
    for row, entry in of.entries.items():
        names = [point.name for point in runs[row]]
        assert names == [f"{row},seed=0", f"{row},seed=3"]
        for point in runs[row]:
            assert point.final
            assert point.control in ("", "sampled", *CONTROLS)
            assert point.of == (f"{MAIN},{point.name.split(',')[1]}" if entry.control else "")
    methods = {row: runs[row][0].options.get("method", "vib") for row in runs}
    assert (methods["twin-l1"], methods["twin-rho"], methods[MAIN]) == (
        "twin-l1",
        "twin-rho",
        "vib",
    )
    budgets = {runs[row][0].changes.get("budget") for row in STEERED_TO_A_SIZE}
    size = math.ceil(10 * of.published["VIBNet"][0]) / 10  # a twin and what it is beside have one
    assert budgets == {f"weights={size}%"}
    assert "budget" not in runs[MAIN][0].changes
    assert VIBNET_ROW[of.name] == of.published["VIBNet"]


STEERED_TO_A_SIZE = "vibnet-steered", "twin-l1", "twin-rho"
VIBNET_ROW = {"table1": (3.59, None, 16.98, 1.6), "table2": (0.83, 0.094, 15.55, 1.0)}


@pytest.mark.parametrize("of", TABLES.values(), ids=lambda t: t.name)
def test_rows_say_how_they_are_made_and_what_they_are_beside(of):
    made = {row: (e.control, e.extra, e.against) for row, e in of.entries.items()}
    assert made == {
        "vibnet": ("", False, "vibnet"),
        "dense": ("", False, "vibnet"),
        "scratch": ("scratch", False, "vibnet"),
        "tuned": ("tuned", True, "vibnet"),
        "tuned-with-noise": ("tuned-with-noise", True, "vibnet"),
        "magnitude": ("magnitude", False, "vibnet"),
        "second-round": ("second-round", True, "vibnet"),
        "sampled": ("sampled", True, "vibnet"),
        "vibnet-steered": ("", False, "vibnet"),
        "twin-l1": ("", False, "vibnet-steered"),
        "twin-rho": ("", False, "vibnet-steered"),
        "distilled": ("", True, "vibnet"),
    }
    (point,) = points(of, ["distilled"], [0], {})["distilled"]
    assert point.changes == {"distil": "0.5", "seed": "0"}  # half of the loss, as it says


def test_all_runs_are_where_they_are_asked_for_and_may_fetch_their_data():
    runs = points(table("table1"), ["magnitude"], [0], {}, device="cuda", download=True)
    assert [(p.device, p.download) for (p,) in runs.values()] == [("cuda", True)] * 2
    runs = points(table("table1"), ["magnitude"], [0], {})
    assert [(p.device, p.download) for (p,) in runs.values()] == [("cpu", False)] * 2


def test_a_control_brings_the_runs_it_is_made_from():
    runs = points(table("table1"), ["magnitude"], [1], {"gamma": "1e-5"}, final=False)
    assert list(runs) == [MAIN, "magnitude"]
    assert runs["magnitude"][0].of == runs[MAIN][0].name
    assert not runs[MAIN][0].final
    settings = [row[0].changes for row in runs.values()]
    assert settings[0] == settings[1] == {"gamma": "1e-5", "seed": "1"}
    assert list(points(table("table1"), ["twin-l1"], [1], {})) == ["twin-l1"]


def test_the_dense_network_is_a_run_by_itself_as_long_as_the_recipe_with_its_changes():
    (point,) = points(table("table1"), ["dense"], [1], {"gate_epochs": "7", "lr": "1e-2"})["dense"]
    assert (point.control, point.of) == ("", "")
    settings = recipe(point.recipe).settings.replaced(**point.changes)
    assert (settings.dense_epochs, settings.gate_epochs, settings.tune_epochs) == (57, 0, 0)
    assert (settings.dense_schedule, settings.lr, settings.seed) == ("cosine", 1e-2, 1)
    tuned = {"tune_epochs": "3", "budget": "macs=5%"}
    (point,) = points(table("table2"), ["dense"], [0], tuned)["dense"]
    settings = recipe(point.recipe).settings.replaced(**point.changes)
    assert settings.dense_epochs == 5 + 120 + 3
    assert settings.budget == ""
    (point,) = points(table("table2"), ["dense"], [0], {"dense_schedule": "halving"})["dense"]
    assert point.changes["dense_schedule"] == "halving"


def test_what_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"no table 'table3'. There are: table1, table2"):
        table("table3")
    with pytest.raises(ConfigError, match=r"table1 has no row twins. It has: vibnet, dense"):
        points(table("table1"), ["twins"], [0], {})
    with pytest.raises(ConfigError, match=r"the row twin-l1 sets budget itself"):
        points(table("table1"), ["twin-l1"], [0], {"budget": ""})
    with pytest.raises(ConfigError, match=r"seed must be a number of 64 bits"):
        points(table("table1"), ["vibnet"], [0, 2**64], {})
    with pytest.raises(ConfigError, match=r"'nonsense' is not a kind"):
        points(table("table1"), ["vibnet"], [0], {"budget": "nonsense"})
    with pytest.raises(ConfigError, match=r"error=2 is kept on held-out images"):
        points(table("table1"), ["vibnet"], [0], {"budget": "error=2"})
    assert points(table("table1"), ["vibnet"], [0], {"budget": "error=2"}, final=False)
    with pytest.raises(ConfigError, match=r"no setting 'gama'"):
        points(table("table1"), ["vibnet"], [0], {"gama": "1"})


def test_a_run_and_a_control_have_the_same_figures():
    main = run(3.5, 1.6)
    assert figures(main, {}) == {"r_W": 3.5, "macs": 0.00956, "r_N": 16.0, "test": 1.6}
    small = figures(control(35, 1.9), main)
    assert small == {"r_W": 3.5, "macs": 0.005, "r_N": 16.0, "test": 1.9}
    assert figures({"control": True, "test": {"1": 2.0}}, main) is None


@pytest.mark.parametrize(
    ("r_w", "r_n", "error", "good"),
    [
        (3.59, 16.98, 1.6, True),
        (3.594, 16.98, 1.64, True),  # they print as 3.59 and 1.6
        (3.6, 16.98, 1.6, False),
        (3.59, 16.99, 1.6, False),
        (3.59, 16.98, 1.65, False),
        (3.595, 16.98, 1.6, False),
        (0.1, 0.1, 0.1, True),
    ],
)
def test_a_network_reaches_a_row_in_every_printed_figure_at_once(r_w, r_n, error, good):
    found = {"r_W": r_w, "macs": 99.0, "r_N": r_n, "test": error}  # no multiply-adds in print
    assert reaches(found, PRINTED) is good


def test_multiply_adds_are_rounded_as_they_are_printed():
    row = table("table2").published["VIBNet"]
    good = {"r_W": 0.83, "macs": 0.0944, "r_N": 15.5, "test": 1.0}
    assert reaches(good, row)
    assert not reaches(good | {"macs": 0.0946}, row)


def test_a_control_that_counted_its_neurons_has_a_share_of_its_own():
    main = run(3.0, 1.5)
    main["before"]["neurons"] = 50
    found = figures(control(40, 2.0) | {"neurons": 10}, main)
    assert found["r_N"] == 20.0
    assert figures(control(40, 2.0), main)["r_N"] == main["ratios"]["r_N"] != 20.0


def test_a_control_whose_run_is_gone_stands_in_no_row():
    bodies = {
        MAIN: {0: run(3.0, 1.5)},
        "scratch": {0: control(30, 1.8), 1: control(40, 2.0)},
        "magnitude": {1: control(40, 2.0)},
        "sampled": {0: {"control": True, "test": {"1": 2.0}}, 1: {"test": {"1": 9.0}}},
        "twin-l1": {1: run(3.0, 1.9)},
    }
    rows = result(table("table1"), bodies)["rows"]
    assert list(rows) == [MAIN, "scratch", "sampled", "twin-l1"]
    assert (rows["scratch"]["seeds"], rows["scratch"]["test"]["n"]) == ([0], 1)
    assert (rows["sampled"]["seeds"], rows["sampled"]["draws"]["1"]["mean"]) == ([0], 2.0)
    assert "twin-l1" in result(table("table1"), {"twin-l1": bodies["twin-l1"]})["rows"]


def test_a_result_holds_means_what_reaches_and_only_rows_that_were_run():
    bodies = {
        MAIN: {0: run(3.0, 1.5), 1: run(4.0, 1.7, seed=1)},
        "scratch": {0: control(30, 1.8), 1: control(40, 2.0)},
        "sampled": {n: {"control": True, "test": {"1": 2.0, "8": 1.5 + n}} for n in (0, 1)},
    }
    body = result(table("table1"), bodies)
    assert list(body["rows"]) == [MAIN, "scratch", "sampled"]
    main, scratch, sampled = body["rows"].values()
    assert main["r_W"] == {"mean": 3.5, "spread": pytest.approx(0.5**0.5), "best": 3.0,
                           "worst": 4.0, "n": 2}  # fmt: skip
    assert (main["seeds_that_reach"], main["mean_reaches"]) == (1, True)
    assert main["structures"] == {"0": "97-71", "1": "97-72"}
    assert main["cpu_seconds"] == 10.5
    assert scratch["r_W"]["mean"] == pytest.approx(3.5)
    assert scratch["seeds_that_reach"] == 0
    assert "structures" not in scratch
    assert (sampled["draws"]["8"]["mean"], sampled["draws"]["8"]["n"]) == (2.0, 2)
    assert sampled["extra"]
    assert body["published"]["VIBNet"] == list(PRINTED)


def test_a_row_reaches_by_its_means_not_by_the_best_of_every_figure():
    runs = {0: run(3.0, 1.9), 1: run(4.5, 1.5, seed=1)}
    row = result(table("table1"), {MAIN: runs})["rows"][MAIN]
    assert (row["seeds_that_reach"], row["mean_reaches"]) == (0, False)


def test_rows_are_compared_seed_by_seed_with_the_row_that_they_stand_beside():
    bodies = {
        MAIN: {n: run(3.0, 1.5 + n, seed=n) for n in range(3)},
        "scratch": {0: control(30, 1.75), 1: control(30, 2.5)},
        "sampled": {0: {"control": True, "test": {"1": 2.0}}},
        "vibnet-steered": {1: run(3.0, 2.0, seed=1), 2: run(3.0, 4.0, seed=2)},
        "twin-l1": {n: run(3.0, 5.0, seed=n) | {"budget": {"live_units_cut": n}} for n in (0, 2)},
    }
    rows = result(table("table1"), bodies)["rows"]
    assert "against" not in rows[MAIN] | rows["sampled"]
    found = rows["scratch"]["against"]
    assert (found["row"], found["mean"], found["n"]) == (MAIN, 0.125, 2)
    assert rows["vibnet-steered"]["against"]["mean"] == 0.0  # -0.5 and 0.5
    assert rows["twin-l1"]["against"] == {
        "row": "vibnet-steered", "mean": 1.0, "half": None, "n": 1
    }  # fmt: skip
    assert rows["twin-l1"]["live_units_cut"] == {"0": 0, "2": 2}
    assert "live_units_cut" not in rows[MAIN]
    del bodies["vibnet-steered"]
    assert "against" not in result(table("table1"), bodies)["rows"]["twin-l1"]
