"""The structures of the printed rows, by the paper's metrics, give the printed figures."""

import pytest

from vibnet.recipes.catalog import recipe
from vibnet.recipes.published import LENET5, LENET300

SHAPES_300 = {
    "VD": (512, 114, 72),
    "BC-GNJ": (278, 98, 13),
    "BC-GHS": (311, 86, 14),
    "L0": (219, 214, 100),
    "L0-sep": (266, 88, 33),
    "DN": (542, 83, 61),
    "VIBNet": (97, 71, 33),
}
SHAPES_5 = {
    "GD": (7, 13, 208, 16),
    "GL": (3, 12, 192, 500),
    "VD": (14, 19, 242, 131),
    "SBP": (3, 18, 284, 283),
    "BC-GNJ": (8, 13, 88, 13),
    "BC-GHS": (5, 10, 76, 16),
    "L0": (20, 25, 45, 462),
    "L0-sep": (9, 18, 5, 25),
    "VIBNet": (3, 10, 68, 35),
}


def near(found, printed, step):
    """Within one unit of the last printed digit; some rows are truncated."""
    return found == pytest.approx(printed, abs=step)


@pytest.mark.parametrize("method", LENET300)
def test_the_rows_of_table_1_follow_from_their_structures(method):
    a, b, c = SHAPES_300[method]
    r_w, macs, r_n, _ = LENET300[method]
    assert macs is None
    assert near(100 * (a + b + c) / 1184, r_n, 0.011)
    if method != "DN":  # its printed r_W does not follow from its structure
        assert near(100 * (a * b + b * c + 10 * c) / 266_200, r_w, 0.011)


@pytest.mark.parametrize("method", LENET5)
def test_the_rows_of_table_2_follow_from_their_structures(method):
    a, b, c, d = SHAPES_5[method]
    r_w, macs, r_n, _ = LENET5[method]
    assert near(100 * (25 * a + 25 * a * b + c * d + 10 * d) / 430_500, r_w, 0.011)
    assert near((14_400 * a + 1_600 * a * b + c * d + 10 * d) / 1e6, macs, 0.0011)
    assert near(100 * (720 * a + 80 * b + c + d) / 19_700, r_n, 0.011)


def test_what_follows_from_no_structure_is_as_printed():
    """Dai et al. 2018, tables 1 and 2: the test errors, and the r_W of DN."""
    assert [row[3] for row in LENET300.values()] == [1.8, 1.8, 1.8, 1.4, 1.8, 1.8, 1.6]
    assert [row[3] for row in LENET5.values()] == [1.1, 1.0, 1.0, 0.9, 1.0, 1.0, 0.9, 1.0, 1.0]
    assert LENET300["DN"][0] == 23.05


def test_recipes_of_the_paper_carry_its_rows():
    assert recipe("lenet300-mnist").published == LENET300
    assert recipe("lenet5-mnist").published == LENET5
