"""Segmentation and detection: their backbones are cut, and what picks boxes is left to itself."""

import pytest
import torch
from laws import halved
from schemas import with_boxes
from tv import torchvision

import vibnet

SEGMENTATION = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
FREE = {"weights": None, "weights_backbone": None}


@torchvision
@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation_is_cut_up_to_its_last_layers(name):
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models.segmentation, name)(**FREE, num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    found = vibnet.plan(model, x)
    assert found.cuttable["macs"] >= 0.99
    assert set(found.pinned.values()) == {"it is an output of the model"}
    assert not found.ungated
    small, report = vibnet.prune(model, halved(found), x)
    assert report.difference < 1e-10
    assert report.weights[1] < 0.5 * report.weights[0]
    assert small(x)["out"].shape == (2, 5, 64, 64)


@torchvision
def test_a_detector_is_cut_by_a_plan_with_targets_in_its_example():
    with_boxes()
    from torchvision.models import detection

    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(**FREE, num_classes=4).eval()
    images = [torch.randn(3, 320, 320) for _ in range(2)]
    target = {"boxes": torch.tensor([[10.0, 10.0, 60.0, 70.0]]), "labels": torch.tensor([1])}
    found = vibnet.plan(model, (images, [target, target]))
    assert found.cuttable["macs"] >= 0.9
    assert len(found.sizes) > 30
    assert all(
        "first dimension is not seen to count the examples" in w for w in found.ungated.values()
    )
    small, report = vibnet.prune(model, halved(found), (images, [target, target]))
    assert report.difference < 1e-10
    assert report.weights[1] < 0.5 * report.weights[0]
    assert [set(answer) for answer in small(images)] == [{"boxes", "scores", "labels"}] * 2


@torchvision
def test_a_detector_without_targets_says_what_its_example_lacks():
    with_boxes()
    from torchvision.models import detection

    model = detection.ssdlite320_mobilenet_v3_large(**FREE, num_classes=4)
    with pytest.raises(vibnet.errors.CaptureError, match="targets should not be none when in"):
        vibnet.plan(model, ([torch.randn(3, 320, 320)],))
