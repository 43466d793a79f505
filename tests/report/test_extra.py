import sys

import pytest

from vibnet.errors import ConfigError
from vibnet.report.extra import check_extra


def test_what_is_missing_is_named_with_who_wants_it(monkeypatch):
    check_extra("report", "jinja2", "matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    check_extra("report", "jinja2")
    with pytest.raises(ConfigError, match=r"figures: matplotlib is not installed. Install the ext"):
        check_extra("figures", "jinja2", "matplotlib")
