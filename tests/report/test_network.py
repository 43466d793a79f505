import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn

import vibnet
from vibnet.cost import Layer
from vibnet.report.network import picture

SVG = "{http://www.w3.org/2000/svg}"


def model():
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)
    )


PLAN = vibnet.plan(model(), torch.zeros(2, 4))


def drawn(plan=PLAN, layers=()):
    return ET.fromstring(picture(plan, layers))


def titles(root):
    return [x.text for x in root.iter(f"{SVG}title")]


def texts(root):
    return [x.text for x in root.iter(f"{SVG}text")]


def test_every_layer_is_a_row_and_every_site_a_line_from_writers_to_readers():
    root = drawn()
    head, *rows = texts(root)
    assert head.startswith("3 sites, 1 layer whole; sites reach 100.0 % of the weights")
    assert rows == ["0", "2", "4", "5"]
    lines = list(root.iter(f"{SVG}line"))
    assert len(lines) == len(PLAN.sizes) == 3
    ends = [(float(x.get("y1")), float(x.get("y2"))) for x in lines]
    rows_at = [float(x.get("y")) - 4 for x in list(root.iter(f"{SVG}text"))[1:]]
    assert ends == list(pairwise(rows_at))
    filled = [c for c in root.iter(f"{SVG}circle") if c.get("fill") != "#ffffff"]
    assert [float(c.get("cy")) for c in filled] == rows_at[:3]


def test_sites_over_the_same_rows_have_lanes_of_their_own():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))

        def forward(self, x):
            h = self.a(x)
            return self.d(h + self.c(torch.relu(self.b(h))))

    root = drawn(vibnet.plan(Residual(), torch.zeros(2, 6)))
    places = {line.get("x1") for line in root.iter(f"{SVG}line")}
    assert len(places) == 2


def test_a_line_is_as_thick_as_what_stays_and_tells_it():
    cut = replace(PLAN, kept={**PLAN.kept, "0": [1, 2, 3]})
    whole, half = (
        float(next(iter(drawn(plan).iter(f"{SVG}line"))).get("stroke-width"))
        for plan in (PLAN, cut)
    )
    assert (whole, half) == (4.0, 2.5)
    assert "0: 3 of 6 units" in titles(drawn(cut))


def test_reasons_are_tooltips_and_sites_without_a_gate_are_dashed():
    odd = replace(PLAN, ungated={"0": "no module"}, pinned={"5": "it is an output"})
    root = drawn(odd)
    assert "it is an output" in titles(root)
    assert "0: 6 of 6 units; no gate: no module" in titles(root)
    dashed = [x for x in root.iter(f"{SVG}line") if x.get("stroke-dasharray")]
    assert len(dashed) == 1


def test_times_stand_beside_their_layers_with_the_share_in_sites():
    layers = [
        Layer("2", "Linear", 48, 48, 0.5, 2e-3),
        Layer("0", "Linear", 24, 24, 1.0, 1e-3),
        Layer("1", "ReLU", 0, 0, 0.0, 9e-3),
    ]
    root = drawn(layers=layers)
    shown = texts(root)
    assert [t for t in shown if t in ("0", "2", "4", "5")] == ["2", "0", "4", "5"]  # of the calls
    assert "2.000 ms" in shown
    assert "9.000 ms" not in shown
    widths = [float(x.get("width")) for x in root.iter(f"{SVG}rect") if "%" not in x.get("width")]
    assert widths == [90.0, 45.0, 45.0, 45.0]
    assert "12.000 ms a forward" in shown[0]


def test_names_and_reasons_cannot_leave_their_text():
    hostile = '<script>&"\x01'
    odd = replace(PLAN, pinned={hostile: hostile}, writers={**PLAN.writers, "0": (hostile,)})
    text = picture(odd)
    assert "<script" not in text
    assert hostile.replace("\x01", "?") in texts(ET.fromstring(text))


def test_a_model_without_sites_is_drawn_too():
    plan = vibnet.plan(nn.Linear(4, 2), torch.zeros(2, 4))
    assert texts(drawn(plan)) == ["0 sites, 1 layer whole; sites reach 0.0 % of the weights, "
                                  "0.0 % of the macs", *plan.pinned]  # fmt: skip
