"""The models of the survey: name -> a factory with random weights, and an example.

The sizes of the transformers are small: what is cut and what is not does not depend on them.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from schemas import declare


@dataclass(frozen=True)
class Entry:
    """A model by name.

    Attributes:
        make: gives the model, weights random, in eval mode.
        example: gives what it is called with, for a number of examples.
        kind: the table that it stands in.
        options: of `vibnet.attach`.
    """

    make: Callable[[], nn.Module]
    example: Callable[[int], Any]
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


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


def _segmentation(name: str) -> Callable[[], nn.Module]:
    return _torchvision(name, weights_backbone=None, num_classes=21)


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
    "hf_llama_lm": Entry(
        _transformers(
            "LlamaForCausalLM",
            "LlamaConfig",
            **_LLAMA,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
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

MODELS: dict[str, Entry] = {**_TORCHVISION, **_HF, **_TIMM}
