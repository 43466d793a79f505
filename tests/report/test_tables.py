import json

import pytest

from vibnet.errors import ArtefactError
from vibnet.recipes.summary import cell
from vibnet.report.tables import markdown, put_into, write_table

BODY = {
    "name": "table9",
    "about": "a toy",
    "published": {"VIBNet": [3.59, None, 16.98, 1.6]},
    "rows": {
        "vibnet": {
            "about": "the recipe",
            "extra": False,
            "r_W": cell([3.0, 4.0]),
            "macs": cell([0.01, 0.02]),
            "r_N": cell([16.0, 17.0]),
            "test": cell([1.5, 1.7]),
            "structures": {"0": "97-71", "1": "90-70"},
            "seeds_that_reach": 1,
            "mean_reaches": True,
        },
        "sampled": {"about": "draws", "extra": True, "draws": {"8": cell([1.5, 1.25])}},
    },
}


def test_the_text_holds_printed_rows_ours_and_what_reaches():
    lines = markdown(BODY).splitlines()
    assert "| VIBNet, in print | 1 | 3.59 |  | 16.98 | 1.6 | |" in lines
    row = next(line for line in lines if line.startswith("| vibnet"))
    assert "| 2 | 3.50 ± 0.71 [3.00, 4.00] | 0.0150 ± 0.0071 [0.0100, 0.0200] |" in row
    assert "1.60 ± 0.14 [1.50, 1.70]" in row
    assert row.endswith("| 97-71, 90-70 |")
    about = next(line for line in lines if line.startswith("- vibnet:"))
    assert "1 of 2 seeds reach all of VIBNet's printed figures at once" in about
    assert about.endswith("the mean does")
    assert "- 8 draws at test, n = 2: 1.38 ± 0.18 [1.25, 1.50] %" in lines
    assert "- sampled *: draws" in lines
    extra = BODY["rows"] | {"tuned": BODY["rows"]["vibnet"] | {"extra": True}}
    starred = markdown(BODY | {"rows": extra}).splitlines()
    assert any(line.startswith("| tuned * | 2 |") for line in starred)
    columns = {line.count("|") for line in lines if line.startswith("|")}
    assert columns == {8}


def test_what_is_not_as_the_table_has_it_stands_above_it():
    assert markdown(BODY | {"changed": {}, "held_out": False}) == markdown(BODY)
    first = markdown(BODY | {"changed": {"lr": "1e-3"}, "held_out": True}).partition("\n\n")
    assert first[0] == (
        "Not with the table's own settings: lr=1e-3, validation images held out of training."
    )
    assert first[2] == markdown(BODY)


def test_a_row_is_compared_with_another_and_says_what_its_last_cut_took():
    against = {"row": "vibnet", "mean": -0.125, "half": 0.5, "n": 3}
    compared = BODY["rows"]["vibnet"] | {"against": against, "live_units_cut": {"0": 4, "2": 0}}
    (line,) = (
        line
        for line in markdown(BODY | {"rows": {"twin": compared}}).splitlines()
        if line.startswith("- twin")
    )
    assert line.startswith(
        "- twin: the recipe. Test error less that of vibnet, paired by seed: -0.12 ± 0.50 points "
        "(95 % interval, n = 3). Units in use that the last cut took: 4, 0. 1 of 2 seeds"
    )
    alone = compared | {"against": against | {"half": None, "n": 1}}
    assert "-0.12 points (n = 1)" in markdown(BODY | {"rows": {"twin": alone}})


def test_it_is_written_as_json_and_text(tmp_path):
    path = write_table(tmp_path / "new", BODY)
    assert path.read_text() == markdown(BODY)
    assert json.loads((tmp_path / "new" / "table9.json").read_text()) == BODY


def test_it_goes_between_its_marks_and_nothing_else_changes(tmp_path):
    document = tmp_path / "results.md"
    before, after = "# Head\n\n<!-- table9 -->", "<!-- end table9 -->\n\nrest \\1 | of it\n"
    document.write_text(f"{before} old\nold {after}")
    document.chmod(0o640)
    put_into(document, BODY)
    assert document.read_text() == f"{before}\n\n{markdown(BODY)}\n{after}"
    put_into(document, BODY)
    assert document.read_text() == f"{before}\n\n{markdown(BODY)}\n{after}"


def test_a_document_without_a_place_is_left_alone(tmp_path):
    document = tmp_path / "results.md"
    marks = "<!-- table9 --><!-- end table9 -->"
    turned = "<!-- end table9 --> <!-- table9 -->"
    both = f"<!-- end table9 --> {marks}"
    for text in ("", "<!-- table9 -->", marks + marks, turned, both):
        document.write_text(text)
        with pytest.raises(ArtefactError, match=r"has no place for table9"):
            put_into(document, BODY)
        assert document.read_text() == text
    with pytest.raises(ArtefactError, match=r"cannot be read"):
        put_into(tmp_path / "none.md", BODY)


def test_a_mark_that_is_only_spoken_of_is_no_place(tmp_path):
    document = tmp_path / "results.md"
    text = "use <!-- table9 --> as a mark\nPRECIOUS\n<!-- table9 -->\n<!-- end table9 -->\n"
    document.write_text(text)
    with pytest.raises(ArtefactError, match=r"or more than one"):
        put_into(document, BODY)
    assert document.read_text() == text


def test_line_ends_mode_and_links_of_a_document_stay(tmp_path):
    target, document = tmp_path / "target.md", tmp_path / "link.md"
    target.write_bytes(b"a\r\n<!-- table9 --><!-- end table9 -->\r\n")
    target.chmod(0o640)
    document.symlink_to(target)
    put_into(document, BODY)
    assert document.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    content = target.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") > 5
    target.write_bytes(b"\xe4 <!-- table9 --><!-- end table9 -->")
    with pytest.raises(ArtefactError, match=r"cannot be read"):
        put_into(document, BODY)


def test_a_backslash_in_a_table_is_a_backslash(tmp_path):
    document = tmp_path / "results.md"
    document.write_text("<!-- table9 --><!-- end table9 -->")
    rows = {"sampled": {"about": r"a \1 b", "extra": True, "draws": {"8": cell([1.5])}}}
    put_into(document, BODY | {"rows": rows})
    assert r"a \1 b" in document.read_text()
