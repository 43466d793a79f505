import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet import plan
from vibnet.graph.capture.capture import capture
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.rules import TABLE
from vibnet.graph.trial.probe import analyse


def labelled(model, example, table=TABLE):
    traces = capture(model, example)
    engine = Labeller(dict(table))
    engine.add_model(traces[0].model)
    engine.add(traces[0])
    return engine, traces[0]


def chain():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def test_every_parameter_has_labels_in_every_dimension_and_ties_share_them():
    model = chain()
    model.append(model[1])
    model.append(nn.Linear(2, 6))
    model.append(model[2])
    engine, _ = labelled(model, torch.randn(3, 4))
    assert [d.shape[1] for d in engine.parameters["0.weight"]] == [6, 4]
    assert "5.weight" not in engine.parameters


def test_a_buffer_of_whole_numbers_holds_no_units():
    engine, _ = labelled(nn.Sequential(nn.BatchNorm1d(4)), torch.randn(3, 4))
    assert engine.parameters["0.num_batches_tracked"] == ()
    assert engine.parameters["0.running_mean"][0][0].all()


def test_writes_and_reads_are_those_of_the_layers():
    engine, trace = labelled(chain(), torch.randn(3, 4))
    assert [(w.parameter, w.module) for w in engine.writes] == [
        ("0.weight", "0"),
        ("2.weight", "2"),
    ]
    assert [(r.parameter, r.parameter_dim, r.groups) for r in engine.reads] == [
        ("0.weight", 1, 1),
        ("2.weight", 1, 1),
    ]
    roots, _ = engine.labels.resolve()
    assert roots[engine.reads[1].atoms[0]].tolist() == roots[engine.writes[0].atoms].tolist()
    assert trace.calls[engine.reads[1].call].module == "2"


def test_examples_are_counted_along_the_batch():
    engine, trace = labelled(chain(), torch.randn(3, 4))
    assert engine.dims(trace.outputs[0])[0][1].tolist() == [1, 2, 3]
    assert not engine.dims(trace.outputs[0])[1][1].any()


def test_a_call_without_a_rule_pins_what_it_touches_with_its_name():
    table = {k: v for k, v in TABLE.items() if k != "flip"}

    class Flip(nn.Module):
        def forward(self, x):
            return x.flip(1)

    model = nn.Sequential(nn.Linear(4, 6), Flip(), nn.Linear(6, 2))
    for rules, pinned in ((table, True), (TABLE, False)):
        engine, _ = labelled(model, torch.randn(3, 4), rules)
        roots, reasons = engine.labels.resolve()
        told = [reasons.get(r) for r in roots[engine.writes[0].atoms].tolist()]
        assert all(("there is no rule for flip in 1" in (t or "")) == pinned for t in told)


def test_a_rule_of_the_wrong_shape_pins():
    table = {
        **TABLE,
        "relu": lambda engine, call: tuple(d[:, :1] for d in engine.dims(call.args[0])),
    }
    engine, _ = labelled(chain(), torch.randn(3, 4), table)
    _, reasons = engine.labels.resolve()
    assert any("gives another shape than its rule" in r for r in reasons.values())


def test_a_write_into_the_source_of_what_may_not_be_a_copy_is_pinned():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            h = self.a(x)
            n, c, y, z = h.shape
            out = h.reshape(n, 2, c // 2, y, z).transpose(1, 2).reshape(n, c, y, z)
            h.mul_(0.5)
            return self.b(out)

    found = plan(Shuffled(), torch.randn(2, 3, 4, 4))
    assert not found.kept
    assert "writes in place into what may not be a copy" in found.pinned["a"]


@pytest.mark.parametrize("dead", ["mixes", "halves", "fixed"])
def test_a_call_that_no_output_depends_on_still_has_to_run(dead):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.a(x)
            if dead == "mixes":
                h.softmax(1).mean(1)
            elif dead == "halves":
                F.glu(h, 1)
            else:
                h + torch.ones(6)
            return self.b(h)

    graph = analyse(Idle(), torch.randn(3, 4))
    if dead == "fixed":
        assert "a" in {s.name for s in graph.pinned}
    else:
        assert [(s.name, s.size) for s in graph.sites] == [("a", 3 if dead == "halves" else 6)]
