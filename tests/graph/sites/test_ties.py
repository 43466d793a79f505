"""A table of words that is the head too: gated, and the last norm takes the multipliers back."""

from dataclasses import replace

import pytest
import torch
from streams import WIDTH, WORDS, Norm, X, trained
from torch import nn

import vibnet
from vibnet.graph.trial.probe import analyse
from vibnet.train.shrink import shrink


class Tied(nn.Module):
    """Words, a branch, and a head that is the table of words."""

    def __init__(self, norm=Norm, answer=lambda m, h: m.head(m.last(h))):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.norm, self.last = norm(), norm()
        self.up, self.down = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight
        self.answer = answer

    def forward(self, x):
        h = self.words(x)
        return self.answer(self, h + self.down(torch.relu(self.up(self.norm(h)))))


def tied(**options):
    torch.manual_seed(0)
    return Tied(**options).double()


TAKEN_BACK = {
    "as it is": {},
    "a weight that counts from one": {"norm": lambda: Norm(offset=1.0)},
    "torch's norm": {"norm": lambda: nn.RMSNorm(WIDTH, eps=1e-2)},
    "times a number": {"answer": lambda m, h: m.head(m.last(h) * WIDTH**-0.5)},
    "the last token": {
        "answer": lambda m, h: m.head(m.last(h).flatten(0, 1)).unflatten(0, (3, -1))
    },
}


@pytest.mark.parametrize("name", TAKEN_BACK)
def test_the_head_hears_what_it_heard(name):
    gated = trained(tied(**TAKEN_BACK[name]))
    assert [n.weight for n in gated.graph.norms if n.inverse] == ["last.weight"]
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-12
    assert small.head.weight is small.words.weight
    assert small.words.weight.shape == (WORDS, 5)
    other = torch.randint(0, WORDS, (3, 5), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert (gated(other) - small(other)).abs().max() < 1e-12
        assert shrink(gated)
        assert (gated(other) - small(other)).abs().max() < 1e-12


NOT = {
    "a second reader of the norm": lambda m, h: m.head(m.last(h)) + m.up(m.last(h)).sum(),
    "a nonlinear step": lambda m, h: m.head(torch.tanh(m.last(h))),
    "another use of what the norm gives": lambda m, h: (
        (m.head(y := m.last(h)), m.down(m.up(y)))[0] + m.up(y).mean()
    ),
    "a norm that stands before the branch too": lambda m, h: m.head(m.norm(h)),
    "no norm": lambda m, h: m.head(h),
    "the table elsewhere": lambda m, h: m.head(m.last(h)) + m.words.weight.pow(2).sum(),
}


@pytest.mark.parametrize("name", NOT)
def test_where_nothing_takes_them_back_a_plan_cuts_it_only(name):
    model = tied(answer=NOT[name])
    graph = analyse(model, X)
    site = next((s for s in graph.sites if s.name == "words"), None)
    assert not any(n.inverse for n in graph.norms)
    if site is None:
        pinned = {s.name: s.reason for s in graph.pinned}
        assert "words" in pinned
        return
    assert "words.weight is also used elsewhere" in site.ungated
    found = vibnet.plan(model, X)
    small, report = vibnet.prune(model, replace(found, kept={"words": [0, 3, 4]}), X)
    assert report.difference < 1e-12
    assert small.head.weight is small.words.weight
