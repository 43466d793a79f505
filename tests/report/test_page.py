import html.parser
import re
import sys

import pytest
from recorded import WHOLE, written

from vibnet.errors import ArtefactError, ConfigError
from vibnet.report import read, write_page
from vibnet.report.page import page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def tags_of(text):
    parser = Tags()
    parser.feed(text)
    return parser


def hostile(value):
    """The same structure with the hostile text in place of every text and name."""
    if isinstance(value, dict):
        return {k: hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_the_page_shows_what_a_person_asks_first(tmp_path):
    text = write_page(read(written(tmp_path))).read_text()
    for part in (
        "a run written by hand",
        "10.0 % of the weights",
        "the paper",
        "it is an output of the model",
        "vibnet run by-hand",
        "no gate can close",
        "commit abc",
        "fc 2",
        "One of the 360 test images",
    ):
        assert part in text, part
    assert text.count("<svg") == 2


def test_the_page_stands_alone_and_runs_nothing(tmp_path):
    found = tags_of(page(read(written(tmp_path))))
    assert not found.tags & {"script", "link", "iframe", "img", "object", "base"}
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    links = [v for name, v in found.attributes if name.endswith(("href", "src"))]
    assert links
    assert all(value.startswith("#") for value in links)


def test_no_text_of_a_record_becomes_a_tag(tmp_path):
    changes = {k: hostile(v) for k, v in WHOLE.items() if k not in ("schema", "history", "metric")}
    changes |= {"metric": HOSTILE, "snr": {HOSTILE: [1.0]}, "pinned": {HOSTILE: HOSTILE}}
    changes["options"] = {HOSTILE: {HOSTILE: [HOSTILE]}}
    changes["notes"]["published"] = {HOSTILE: [1.0, 2.0, 3.0, 4.0]}
    changes["history"] = [{**r, "kept": {HOSTILE: 2}} for r in WHOLE["history"]]
    text = page(read(written(tmp_path, **changes)))
    assert text.count("&lt;script&gt;") > 10
    found = tags_of(text)
    assert not found.tags & {"script", "img"}
    assert not [name for name, _ in found.attributes if name.startswith("on")]


def test_light_and_dark_have_all_the_colours_that_are_used(tmp_path):
    text = page(read(written(tmp_path)))
    used = set(re.findall(r"var\((--\w+)\)", text))
    for block in re.findall(r":root \{(.*?)\}", text, re.S):
        assert used <= set(re.findall(r"(--\w+):", block))


def test_a_run_that_is_not_over_has_its_page(tmp_path):
    body = dict.fromkeys(("before", "after", "ratios", "test", "sites", "snr", "pinned"))
    text = page(read(written(tmp_path, done=False, **body)))
    assert "is not over" in text
    assert text.count("<svg") == 1


def test_an_export_is_shown(tmp_path):
    (written(tmp_path) / "export.json").write_text(
        '{"schema": "vibnet.export", "version": 1, "threads": 1,'
        '"torch_latency": {"1": 1e-5, "32": 1e-4}, "files": [{"file": "<b>m.onnx", "runs_in":'
        '"onnxruntime", "bytes": 1234, "difference": 2e-7, "latency": {"1": 5e-6, "32": 7e-5}}]}'
    )
    text = page(read(tmp_path))
    assert "&lt;b&gt;m.onnx" in text
    assert "1,234" in text
    assert "70.0 us" in text


@pytest.mark.parametrize(
    "changes", [{"before": {}}, {"sites": [3]}, {"timing": {"latency_dense": 3}}, {"host": {}}]
)
def test_wrong_fields_are_one_error_of_ours(changes, tmp_path):
    with pytest.raises(ArtefactError, match="wrong fields"):
        page(read(written(tmp_path, **changes)))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"matplotlib is not installed.*vibnet\[report\]"):
        page(read(written(tmp_path)))
