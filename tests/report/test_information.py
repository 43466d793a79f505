from vibnet.recipes.summary import cell
from vibnet.report.information import CHAPTERS, document

SHAPE = {"values": [0.0, 0.5, 1.0], "from_l1": 0.125, "from_l0": 0.5}
QUADRATICS = {
    "units": 6,
    "gamma": 0.05,
    "rows": [
        {
            "rank": 2, "bound": 3, "starts": 4, "minima": 4, "fewest_open": 1, "most_open": 2,
            "most_nats_of_a_closed_unit": 0.0, "least_nats_of_an_open_unit": 0.75,
        }
    ],
    "rho": {"mu": [0.0, 0.5, 1.0], "shapes": {"1": SHAPE}},
}  # fmt: skip
DEPTH = {
    "width": 8,
    "gamma_eq9": 1e-3,
    "rows": [
        {"layers": n, "factor": f, "kept": cell([50.0]), "dense": cell([2.0]), "small": cell([3.0])}
        for n in (2, 4)
        for f in (True, False)
    ],
}
PRICES = {
    "recipe": "toy",
    "rows": [
        {"ratio": r, "gamma": 1e-3, "r_W": cell([5.0 + r]), "validation": cell([2.0])}
        for r in (0.5, 1.0)
    ],
    "equal_error": [{"validation": 2.0, "r_W": {"0.5": 4.0, "1": 5.0}}],
}


def test_the_document_has_a_chapter_for_every_result_and_draws_its_figures(tmp_path):
    found = {"quadratics": QUADRATICS, "depth": DEPTH, "prices": PRICES}
    text = document(found, tmp_path, "here", "vibnet information")
    assert "    vibnet information" in text
    assert "| 2 | 3 | 4 | 4 | 1 | 2 | 0 | 0.75 |" in text
    assert "| 1 | 0.125 | 0.500 |" in text
    assert "The most seen is rank +0" in text
    assert "| 4 | without | 50.00 |" in text
    assert "| 2.00 | 4.00 | 5.00 | 0.5 | 1.25 |" in text
    for name in ("rho", "depth", "prices"):
        assert (tmp_path / f"{name}.svg").exists()
        assert f"](here/{name}.svg)" in text
    assert "Proposition 2" not in text  # there is no result of it


def test_a_document_without_results_has_its_head_alone(tmp_path):
    text = document({}, tmp_path, "here", "vibnet information")
    assert text.startswith("# What the gates let through")
    assert "##" not in text
    assert set(CHAPTERS) == {"quadratics", "course", "depth", "prices"}
