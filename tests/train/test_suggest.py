import pytest
import torch
from torch import nn

from vibnet import attach
from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.train.objective import regression
from vibnet.train.suggest import suggest_gamma

SETTINGS = Settings(lr=1e-5, gate_lr=1e-2)


class Line:
    """Targets that are a weighted sum of four inputs."""

    def __init__(self, gains):
        self.gains = torch.tensor(gains)
        random = torch.Generator().manual_seed(0)
        self.x = torch.randn(256, 4, generator=random)
        self.example, self.steps = self.x[:2], 4

    def train(self, epoch):
        for part in self.x.chunk(4):
            yield part, part @ self.gains[:, None]

    def validation(self):
        return self.train(0)


def linear(gains):
    """Four units that copy the inputs, read with the given gains."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[1].weight.copy_(torch.tensor([gains]))
    return model


GAINS = [3.0, 1.0, 0.3, 0.1]


def suggested(gains, **options):
    line = Line(gains)
    weights = options.pop("weights", "uniform")
    gated = attach(linear(gains), line.example, weights=weights)
    return suggest_gamma(gated, line, regression(), SETTINGS, **options)


def test_units_that_nothing_needs_close_first():
    gains = [3.0, 0.0, 0.0, 0.0]
    assert suggested(gains, close=0.7) < 1e-3
    assert suggested(gains, close=0.9) > 0.1


def test_the_gamma_grows_with_the_share():
    found = [suggested(GAINS, close=c) for c in (0.2, 0.4, 0.7)]
    assert found == sorted(set(found))


def test_a_price_divides_the_gamma():
    assert suggested(GAINS) / suggested(GAINS, weights={"0": 100.0}) == pytest.approx(100, rel=0.6)


def test_the_model_and_the_random_state_are_left_alone():
    line = Line(GAINS)
    gated = attach(linear(GAINS), line.example)
    before = {k: v.clone() for k, v in gated.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    suggest_gamma(gated, line, regression(), SETTINGS, close=0.2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(v, before[k]) for k, v in gated.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"close": 0.0}, "close must be between 0 and 1"),
        ({"close": 1.0}, "close must be between 0 and 1"),
        ({"steps": 5}, "steps at least 10"),
        ({"steps": 20}, r"in 20 steps only 0 of 4 units began to close. Give it more steps"),
    ],
)
def test_what_cannot_be_answered_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        suggested(GAINS, **options)
