from vibnet.analysis.experiments import EXPERIMENTS
from vibnet.report.information import CHAPTERS


def test_every_experiment_has_its_chapter():
    assert list(EXPERIMENTS) == list(CHAPTERS)
