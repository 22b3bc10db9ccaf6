"""The embedded model's image tower: a residual network of 1.2 M parameters for 32 x 32 images, from timm's blocks.

Group normalisation keeps no running statistics, so averages of weights (WiSE-FT, EMA) are models in their own right.
"""

from functools import partial
from typing import Any

from timm.layers.norm_act import GroupNormAct
from timm.models import build_model_with_cfg, register_model
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

NAME = "rbft_resnet_gn"
CONTEXT_LENGTH = 16
EMBED_DIM = 128

default_cfgs: dict[str, dict[str, Any]] = {
    NAME: {
        "url": "",
        "input_size": (3, 32, 32),
        "pool_size": (2, 2),
        "num_classes": EMBED_DIM,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
    }
}

# One block per stage, and none at the stem's 16 x 16: on a CPU, time goes to the early, wide maps.
_STAGES = tuple(ByoBlockCfg(type="basic", d=1, c=c, s=2, gs=0, br=1.0) for c in (64, 128, 256))
_MODEL = ByoModelCfg(
    blocks=_STAGES,
    stem_type="3x3",
    stem_chs=32,
    stem_pool="",
    # timm's field is typed as a name, and takes any layer
    norm_layer=partial(GroupNormAct, num_groups=8),  # pyright: ignore[reportArgumentType]
)


@register_model
def rbft_resnet_gn(pretrained: bool = False, **kwargs: Any) -> ByobNet:
    """Stem 3 x 3 / 2, then three basic blocks with stride 2: 32 -> 16 -> 8 -> 4 -> 2 pixels."""
    kwargs.setdefault("pretrained_cfg", default_cfgs[NAME])
    return build_model_with_cfg(
        ByobNet, NAME, pretrained, model_cfg=_MODEL, feature_cfg={"flatten_sequential": True}, **kwargs
    )


def model_config(vocab_size: int) -> dict[str, Any]:
    """The `model_cfg` of open_clip for this model (class `open_clip.model.CLIP`)."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {"image_size": 32, "timm_model_name": NAME, "timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "width": EMBED_DIM,
            "heads": 4,
            "layers": 2,
        },
    }
