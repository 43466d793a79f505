import math
import re
import xml.etree.ElementTree as ET

from recorded import WHOLE, record

from vibnet.report.charts import VARIABLES, curves, histograms

HOSTILE = '<script>alert(1)</script> $\\frac{$ & "x" \''


def parsed(svg):
    return ET.fromstring(svg)


def texts(svg):
    return ["".join(x.itertext()) for x in parsed(svg).iter() if x.tag.endswith("}text")]


def test_curves_are_one_svg_in_the_colours_of_the_page():
    svg = curves(WHOLE["history"], "error (%)", True)
    assert "validation: error (%)" in texts(svg)
    assert "units kept, by site, log scale" in texts(svg)
    colours = set(re.findall(r"(?:fill|stroke): ?(#\w+)", svg))
    assert not colours & set(VARIABLES)
    assert "var(--accent)" in svg
    assert "width" not in parsed(svg).attrib


def test_names_cannot_leave_the_text_they_are_in():
    history = [{**record(1), "kept": {HOSTILE: 3}}, {**record(2), "kept": {}}]
    for svg in (histograms({HOSTILE: [1.0, 2.0]}), curves(history, HOSTILE, False)):
        assert "<script" not in svg
        assert any("<script>" in text or "cript>" in text for text in texts(svg))


def test_two_charts_share_no_id():
    ids = [
        set(re.findall(r'\bid="([^"]+)"', svg))
        for svg in (curves(WHOLE["history"], "e", True), histograms(WHOLE["snr"]))
    ]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_every_reference_in_a_chart_is_met():
    svg = histograms(WHOLE["snr"])
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert wanted
    assert wanted <= ids


def test_the_same_run_gives_the_same_chart():
    assert histograms(WHOLE["snr"]) == histograms(WHOLE["snr"])


def test_nothing_to_show_is_no_chart():
    assert curves([], "error", True) == ""
    assert histograms({}) == ""
    assert histograms({"fc": []}) == ""


def test_numbers_that_are_none_and_infinite_ones_are_drawn_at_the_edge():
    assert histograms({"fc": [math.inf, math.nan, 0.0]})
    bad = [{**record(n), "validation": math.nan} for n in (1, 2)]
    assert curves(bad, "error", True)
    assert curves([record(1, "dense")], "error", True)
