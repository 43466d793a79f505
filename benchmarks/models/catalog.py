"""The models of the survey: name -> a factory with random weights, and an example.

The sizes of the transformers are small: what is cut and what is not does not depend on them.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from schemas import declare, with_boxes


@dataclass(frozen=True)
class Entry:
    """A model by name.

    Attributes:
        make: gives the model, weights random, in eval mode.
        example: gives what it is called with, for a number of examples.
        kind: the table that it stands in.
        options: of `vibnet.attach`.
        by_plan: it is cut by a plan, for what it is called with is no batch, and no gate may stand.
    """

    make: Callable[[], nn.Module]
    example: Callable[[int], Any]
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    by_plan: bool = False


def _images(size: int = 224) -> Callable[[int], Any]:
    return lambda n: torch.randn(n, 3, size, size)


def _tokens(vocabulary: int, length: int = 32) -> Callable[[int], Any]:
    return lambda n: {"input_ids": torch.randint(0, vocabulary, (n, length))}


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        declare()
        import torchvision

        return torchvision.models.get_model(name, weights=None, **options).eval()

    return make


def _detector(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with_boxes()
        return _torchvision(name, weights_backbone=None, num_classes=21, **options)()

    return make


def _scenes(height: int, width: int) -> Callable[[int], Any]:
    """Images in a list, with a box for each, which detectors want in training."""

    def scene(n: int) -> Any:
        boxes = torch.tensor([[10.0, 10.0, 60.0, 70.0]])
        target = {"boxes": boxes, "labels": torch.tensor([1])}
        target["masks"] = torch.zeros(1, height, width, dtype=torch.uint8)
        return [torch.randn(3, height, width) for _ in range(n)], [dict(target) for _ in range(n)]

    return scene


class Recurrent(nn.Module):
    """Two layers before a recurrent one, and two after it, as taggers have them."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 256)
        self.mix = nn.Linear(256, 256)
        self.recurrent = kind(256, 128, num_layers=2, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(256, 256)
        self.tag = nn.Linear(256, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of 32 tags, (n, length, 32), of numbers of shape (n, length, 64)."""
        x = self.mix(self.embed(x).relu()).relu()
        scores: torch.Tensor = self.tag(self.hidden(self.recurrent(x)[0]).relu())
        return scores


def _timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        declare()
        import timm

        return timm.create_model(name, pretrained=False).eval()

    return make


def _transformers(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        declare()
        import transformers

        made = getattr(transformers, config)(**options)
        return getattr(transformers, model)(made).eval()

    return make


def _torch_norms(model: nn.Module) -> nn.Module:
    """A model with torch's root-mean-square norms, which compute in the type they are given.

    Those of transformers compute in float32 whatever that is.
    """
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            weight, eps = module.get_parameter("weight"), module.variance_epsilon
            assert isinstance(eps, float)
            norm = nn.RMSNorm(len(weight), eps)
            norm.weight = weight
            model.set_submodule(name, norm)
    return model


def _whisper() -> nn.Module:
    make = _transformers(
        "WhisperModel",
        "WhisperConfig",
        vocab_size=1000,
        d_model=256,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_source_positions=100,
        max_target_positions=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    encoder: nn.Module = make().encoder
    return encoder


_CNNS = (
    *("resnet18", "resnet50", "resnext50_32x4d", "vgg16_bn", "densenet121", "mobilenet_v2"),
    *("mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2_x1_0"),
    *("squeezenet1_1", "regnet_y_400mf", "mnasnet1_0"),
)
_TORCHVISION = {
    **{name: Entry(_torchvision(name), _images(), "torchvision") for name in _CNNS},
    "googlenet": Entry(_torchvision("googlenet", init_weights=False), _images(), "torchvision"),
    "inception_v3": Entry(
        _torchvision("inception_v3", init_weights=False), _images(299), "torchvision"
    ),
    "convnext_tiny": Entry(_torchvision("convnext_tiny"), _images(), "torchvision"),
    "vit_b_16": Entry(_torchvision("vit_b_16"), _images(), "torchvision"),
    "swin_t": Entry(_torchvision("swin_t"), _images(), "torchvision"),
    **{
        f"{name}+replaced": Entry(
            _torchvision(name), _images(), "torchvision", {"replace_attention": True}
        )
        for name in ("vit_b_16", "swin_t")
    },
}

_BERT = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
}
_LLAMA = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 688,
    "use_cache": False,
}
_TIED = _transformers(
    "LlamaForCausalLM",
    "LlamaConfig",
    **_LLAMA,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
_HF = {
    "hf_bert": Entry(
        _transformers("BertModel", "BertConfig", **_BERT),
        _tokens(1000),
        "transformers",
    ),
    "hf_gpt2": Entry(
        _transformers(
            "GPT2Model",
            "GPT2Config",
            vocab_size=1000,
            n_embd=256,
            n_layer=4,
            n_head=8,
            use_cache=False,
        ),
        _tokens(1000),
        "transformers",
    ),
    "hf_llama": Entry(
        _transformers("LlamaModel", "LlamaConfig", **_LLAMA, num_key_value_heads=8),
        _tokens(1000),
        "transformers",
    ),
    "hf_llama_gqa": Entry(
        _transformers("LlamaModel", "LlamaConfig", **_LLAMA, num_key_value_heads=2),
        _tokens(1000),
        "transformers",
    ),
    "hf_llama_lm": Entry(_TIED, _tokens(1000), "transformers"),
    "hf_llama_lm+torch_norms": Entry(
        lambda: _torch_norms(_TIED()),
        _tokens(1000),
        "transformers",
    ),
    "hf_qwen3": Entry(
        _transformers("Qwen3Model", "Qwen3Config", **_LLAMA, num_key_value_heads=4, head_dim=32),
        _tokens(1000),
        "transformers",
    ),
    "hf_gemma2": Entry(
        _transformers("Gemma2Model", "Gemma2Config", **_LLAMA, num_key_value_heads=4, head_dim=32),
        _tokens(1000),
        "transformers",
    ),
    "hf_t5": Entry(
        _transformers(
            "T5Model",
            "T5Config",
            vocab_size=1000,
            d_model=256,
            d_kv=32,
            d_ff=1024,
            num_layers=3,
            num_heads=8,
            use_cache=False,
        ),
        lambda n: {
            "input_ids": torch.randint(0, 1000, (n, 24)),
            "decoder_input_ids": torch.randint(0, 1000, (n, 16)),
        },
        "transformers",
    ),
    "hf_vit": Entry(
        _transformers(
            "ViTModel",
            "ViTConfig",
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=8,
            intermediate_size=1024,
            image_size=64,
            patch_size=8,
        ),
        _images(64),
        "transformers",
    ),
    "hf_swin": Entry(
        _transformers(
            "SwinModel",
            "SwinConfig",
            image_size=64,
            patch_size=4,
            embed_dim=48,
            depths=[2, 2],
            num_heads=[3, 6],
            window_size=4,
        ),
        _images(64),
        "transformers",
    ),
    "hf_whisper_encoder": Entry(
        _whisper,
        lambda n: torch.randn(n, 80, 200),
        "transformers",
    ),
}


_TIMM_NAMES = (
    "resnet18 resnetv2_50 seresnet50 ecaresnet26t skresnet18 res2net50_26w_4s resnest14d "
    "regnetx_002 regnety_002 densenet121 vgg11_bn mobilenetv1_100 mobilenetv2_100 "
    "mobilenetv3_small_100 mobilenetv4_conv_small efficientnet_b0 efficientnet_lite0 "
    "tf_efficientnetv2_b0 mixnet_s mnasnet_100 fbnetc_100 ghostnet_100 lcnet_050 tinynet_e "
    "rexnet_100 dla34 hrnet_w18_small inception_v4 xception41 repvgg_a0 cspresnet50 darknet53 "
    "ese_vovnet19b_dw convnext_atto convnextv2_atto vit_tiny_patch16_224 deit_tiny_patch16_224 "
    "cait_xxs24_224 swin_tiny_patch4_window7_224 mixer_s32_224 resmlp_12_224 gmlp_s16_224 "
    "poolformer_s12 pit_ti_224 pvt_v2_b0 twins_pcpvt_small coat_lite_tiny levit_128s "
    "edgenext_xx_small mobilevit_xxs eva02_tiny_patch14_224 xcit_nano_12_p16_224 visformer_tiny "
    "focalnet_tiny_srf efficientformer_l1 fastvit_t8 davit_tiny hiera_tiny_224 "
)
_TIMM = {
    f"timm_{name}": Entry(_timm(name), _images(299 if "inception" in name else 224), "timm")
    for name in _TIMM_NAMES.split()
}

_FEW = {"min_size": 128, "max_size": 160, "box_score_thresh": 0.0, "box_detections_per_img": 4} | {
    f"rpn_{order}_nms_top_n_{mode}": 4 for order in ("pre", "post") for mode in ("train", "test")
}
_ALL = {"min_size": 128, "max_size": 160, "score_thresh": 0.0, "detections_per_img": 20}
_DETECTORS = {
    "ssd300_vgg16": {"score_thresh": 0.0, "detections_per_img": 20},
    "ssdlite320_mobilenet_v3_large": {"score_thresh": 0.0, "detections_per_img": 20},
    "retinanet_resnet50_fpn": _ALL,
    "fcos_resnet50_fpn": _ALL,
    "fasterrcnn_resnet50_fpn": _FEW,
    "maskrcnn_resnet50_fpn": _FEW,
}
_DENSE = {
    **{
        name: Entry(
            _torchvision(name, weights_backbone=None, num_classes=21), _images(128), "dense"
        )
        for name in (
            *("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"),
            "lraspp_mobilenet_v3_large",
        )
    },
    **{
        name: Entry(_detector(name, **options), _scenes(128, 160), "dense", by_plan=True)
        for name, options in _DETECTORS.items()
    },
}
_RECURRENT = {
    name: Entry(partial(Recurrent, kind), lambda n: torch.randn(n, 20, 64), "recurrent")
    for name, kind in (("lstm", nn.LSTM), ("gru", nn.GRU))
}

MODELS: dict[str, Entry] = {**_TORCHVISION, **_HF, **_TIMM, **_DENSE, **_RECURRENT}
