import json

import pytest

from vibnet.errors import ArtefactError
from vibnet.recipes.summary import cell
from vibnet.report.frontier import PAGE, RECORD, read_frontier, short, text, write_frontier

FIGURES = ("r_W", "macs", "r_N", "validation", "test")


def row(gamma, *runs, names=FIGURES):
    runs = [dict(zip(names, run, strict=True)) for run in runs]
    cells = {name: cell([run[name] for run in runs]) for name in names}
    return {"gamma": gamma, "n": len(runs), "runs": runs} | cells


def body(**changes):
    rows = [
        row(1e-5, (5.0, 0.2, 20.0, 1.5, 1.25), (6.0, 0.3, 22.0, 1.7, 1.35)),
        row(2e-5, (3.0, 0.1, 15.0, 2.5, 2.25)),
    ]
    published = {"VIBNet": [3.59, None, 16.98, 1.6], "L0": [None, 1.5, 20.0, None]}
    given = {"name": "toy", "about": "of the test", "command": "vibnet sweep toy"}
    return given | {"published": published, "rows": rows} | changes


def test_the_page_holds_every_figure_and_the_record_comes_back(tmp_path):
    page = write_frontier(tmp_path, body()).read_text()
    assert page == (tmp_path / PAGE).read_text()
    for written in ("5.50 ± 0.71 [5.00, 6.00]", "1.30 ± 0.07 [1.25, 1.35]", "vibnet sweep toy"):
        assert written in page, written
    assert "choose a gamma by them" in page
    assert page.count(">VIBNet<") >= 2  # r_W and r_N; no multiply-adds are in print
    found = read_frontier(tmp_path)
    assert found["rows"] == json.loads(json.dumps(body()["rows"]))


def test_where_nothing_is_held_out_the_page_says_so(tmp_path):
    names = ("r_W", "macs", "r_N", "test")
    rows = [row(1e-5, (5.0, 0.2, 20.0, 1.25), names=names)]
    page = write_frontier(tmp_path, body(rows=rows)).read_text()
    assert "do not choose by them" in page
    assert "validation error" not in page


def test_the_drawing_is_the_same_for_the_same_figures(tmp_path):
    first = write_frontier(tmp_path / "a", body()).read_text()
    assert write_frontier(tmp_path / "b", body()).read_text() == first
    moved = body()
    moved["rows"][1]["runs"][0]["validation"] = 9.0
    assert write_frontier(tmp_path / "c", moved).read_text() != first


def test_a_record_that_is_none_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"there is no frontier.json"):
        read_frontier(tmp_path)
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(ArtefactError, match=r"truncated or no JSON"):
        read_frontier(tmp_path)
    strange = (
        '{"schema": "vibnet.run", "version": 1}',
        '{"schema": "vibnet.frontier", "version": 2}',
    )
    for other in ("[]", *strange):
        (tmp_path / RECORD).write_text(other)
        with pytest.raises(ArtefactError, match=r"no vibnet.frontier of version 1"):
            read_frontier(tmp_path)
    with pytest.raises(ArtefactError, match=r"wrong fields"):
        write_frontier(tmp_path, body(rows=[{"gamma": 1.0}]))


def test_numbers_are_written_with_the_digits_they_need():
    assert text(cell([0.1234, 0.2])) == "0.162 ± 0.054 [0.123, 0.200]"
    assert short(cell([120.4] * 2)) == "120 ± 0"
    assert short(cell([100.0] * 2)) == "100 ± 0"
    assert short(cell([99.99] * 2)) == "99.99 ± 0.00"
    assert short(cell([1.0] * 2)) == "1.00 ± 0.00"
    assert short(cell([0.999] * 2)) == "0.999 ± 0.000"
    assert short(cell([0.1] * 2)) == "0.100 ± 0.000"
    assert short(cell([0.0099, 0.0095])) == "0.0097 ± 0.0003"


def test_a_single_value_has_no_spread():
    assert text(cell([1.25])) == short(cell([1.25])) == "1.25"


def test_one_point_without_held_out_images_makes_it_a_page_of_test_errors(tmp_path):
    names = ("r_W", "macs", "r_N", "test")
    rows = [*body()["rows"], row(3e-5, (2.0, 0.1, 10.0, 3.25), names=names)]
    page = write_frontier(tmp_path, body(rows=rows)).read_text()
    assert "do not choose by them" in page
