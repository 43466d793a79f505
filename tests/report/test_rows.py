import pytest
from recorded import WHOLE, written

from vibnet.report.record import read
from vibnet.report.rows import grain, rows, verdict


def named(recorded):
    return {row.name: row for row in rows(recorded)}


def test_the_table_says_what_the_record_says(tmp_path):
    found = named(read(written(tmp_path)))
    assert found["weights (r_W)"].change == "10.0 %, 10.0 times less"
    assert (found["multiply-adds"].dense, found["multiply-adds"].small) == ("1,000", "100")
    assert found["latency of 32"].change == "25.0 %, 4.0 times less"
    assert found["memory for one input"].small == "100 B"
    assert found["validation error (%)"].change == "the same"
    assert found["test error (%)"].change == "+0.50"
    assert "multiply-adds of attention" not in found


def test_attention_is_counted_where_there_is_some_and_missing_times_are_left_out(tmp_path):
    before, after = ({**WHOLE[k], "attention_macs": n} for k, n in (("before", 8), ("after", 8)))
    found = named(read(written(tmp_path, before=before, after=after, timing={})))
    assert found["multiply-adds of attention"].change == "100.0 %"
    assert not [name for name in found if name.startswith("latency")]


def test_training_images_are_called_so(tmp_path):
    notes = {**WHOLE["notes"], "images": {"train": 15, "validation": 0}}
    assert "training images error (%)" in named(read(written(tmp_path, notes=notes)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "10.0 % of the weights and 10.0 % of the multiply-adds"),
        ({}, "The error on the test set is 2.50 %; the dense network's is 2.00 %."),
        ({"after": WHOLE["before"]}, "nothing was cut"),
        ({"done": False}, "4 epochs are done, and there is no small network yet"),
        ({"metric": "squared error"}, "The squared error on the test set is 2.50; the"),
    ],
)
def test_the_verdict_is_a_sentence(changes, text, tmp_path):
    assert text in verdict(read(written(tmp_path, **changes)))


def test_one_test_image_is_named_only_where_their_number_is_known(tmp_path):
    assert grain(read(written(tmp_path))) == "One of the 360 test images is 0.28 points."
    notes = {**WHOLE["notes"], "data": "mine:Data"}
    assert grain(read(written(tmp_path, notes=notes))) == ""
    assert grain(read(written(tmp_path, metric="squared error"))) == ""


def test_no_figure_is_taken_for_another(tmp_path):
    """Every number of the record has its own value, so that each can have but one place."""
    names = ("weights", "macs", "attention_macs", "neurons", "peak_memory")
    before = {**WHOLE["before"], **{k: 800 + i for i, k in enumerate(names)}}
    after = {**WHOLE["after"], **{k: 80 + 20 * i for i, k in enumerate(names)}}
    errors = {
        "test": {"dense": 3.0, "small": 4.5},
        "validation": {"dense": 1.0, "small": 1.25},
    }
    timing = {
        "latency_dense": {"1": 0.008, "32": 0.08},
        "latency_small": {"1": 0.002, "32": 0.04},
    }
    record = read(written(tmp_path, before=before, after=after, timing=timing, **errors))
    found = {row.name: (row.dense, row.small) for row in rows(record)}
    assert found == {
        "weights (r_W)": ("800", "80"),
        "multiply-adds": ("801", "100"),
        "multiply-adds of attention": ("802", "120"),
        "neurons (r_N)": ("803", "140"),
        "memory for one input": ("804 B", "160 B"),
        "latency of 1": ("8.0 ms", "2.0 ms"),
        "latency of 32": ("80.0 ms", "40.0 ms"),
        "validation error (%)": ("1.00", "1.25"),
        "test error (%)": ("3.00", "4.50"),
    }
    assert verdict(record) == (
        "by-hand: the small network has 10.0 % of the weights and 12.5 % of the multiply-adds of "
        "the dense one. The error on the test set is 4.50 %; the dense network's is 3.00 %."
    )
