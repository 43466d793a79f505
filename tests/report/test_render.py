import sys

import pytest

from vibnet.errors import ArtefactError, ConfigError
from vibnet.report.render import render

PAGE = "frontier.html"
WHOLE = {
    "name": "<b>n</b>",
    "about": "",
    "command": "",
    "published": {},
    "held_out": True,
    "chart": "<svg></svg>",
    "rows": [],
}


def test_what_is_filled_in_is_escaped_and_a_chart_is_not():
    text = render(PAGE, lambda: WHOLE, "here")
    assert "&lt;b&gt;n&lt;/b&gt;" in text
    assert "<b>n</b>" not in text
    assert "<svg></svg>" in text
    assert "--paper" in text  # the style sheet is inside


@pytest.mark.parametrize("fault", [KeyError("x"), TypeError("x"), ValueError("x")])
def test_a_record_with_wrong_fields_is_said_with_its_folder(fault):
    def content():
        raise fault

    with pytest.raises(ArtefactError, match=r"record in over there has wrong fields"):
        render(PAGE, content, "over there")
    less = {k: v for k, v in WHOLE.items() if k != "rows"}
    with pytest.raises(ArtefactError, match=r"'rows' is undefined"):
        render(PAGE, lambda: less, "over there")


@pytest.mark.parametrize("absent", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(absent, monkeypatch):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ConfigError, match=rf"{absent} is not installed.*vibnet\[report\]"):
        render(PAGE, lambda: WHOLE, "here")
