"""From the authors' state dicts to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from saccade.action.motionformer import HALF, Motionformer
from saccade.checkpoints import Rule, StateDict, convert, load_strict, read_state
from saccade.nn.input_spec import InputSpec
from saccade.nn.video_vit import Attention

_PREFIX = r"(?:module\.)?(?:base_model\.)?"

MOTION_SQUEEZE_BLOCK = (
    Rule(r"chnl_reduction\.(.*)", r"reduce.\1"),
    *(Rule(rf"flow_refinement\.conv{n + 1}\.(.*)", rf"transform.{n}.\1") for n in range(9)),
)

TSM_RESNET = (
    Rule(_PREFIX + r"(conv1|bn1)\.(.*)", r"\1.\2"),
    Rule(_PREFIX + r"(layer\d+\.\d+\.conv\d)\.net\.(.*)", r"\1.\2"),  # TSM wraps the shifted convolution
    Rule(_PREFIX + r"(layer\d+\.\d+\.(?:conv\d|bn\d|downsample\.\d)\..*)", r"\1"),
    Rule(r"(?:module\.)?(?:base_model\.fc1?|new_fc|fc1?)\.weight", "fc.weight", lambda w: w.flatten(1)),
    Rule(r"(?:module\.)?(?:base_model\.fc1?|new_fc|fc1?)\.bias", "fc.bias"),
)

MOTIONFORMER = (
    Rule(r"patch_embed\.proj\.(?:weight|bias)", None),  # the image model's, which tubelets leave unused
    Rule(r"patch_embed_3d\.proj\.(weight|bias)", r"patch_embed.\1"),
    Rule(r"(cls_token|pos_embed|temp_embed|st_embed)", r"\1"),
    Rule(r"(blocks\.\d+\.(?:norm[123]|mlp\.fc[12]|(?:attn|timeattn)\.(?:qkv|proj|proj_q|proj_kv))\..*)", r"\1"),
    Rule(r"(norm\.(?:weight|bias))", r"\1"),
    Rule(r"pre_logits\.fc\.(.*)", r"pre_logits.\1"),
    Rule(r"head0\.(.*)", r"head.verb.\1"),
    Rule(r"head1\.(.*)", r"head.noun.\1"),
    Rule(r"(head\.(?:weight|bias))", r"\1"),
)


def convert_motion_squeeze_block(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the weights of the authors' module alone into those of `MotionSqueeze`.

    Args:
        state: Keys `chnl_reduction.*` and `flow_refinement.conv{1..4}.*`.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known.
    """
    return convert(state, MOTION_SQUEEZE_BLOCK)


def convert_motion_squeeze(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the state dict of the authors' MSNet into that of [`msnet`][saccade.action.motion_squeeze.msnet].

    Both layouts are taken: the bare network (`conv1.*`, `layer1.*`, `fc1.*`), and that of a training file
    (`module.base_model.*`, with the classifier as `module.new_fc.*`). The unused `bn2` at top level is dropped.

    Args:
        state: The authors' state dict.

    Returns:
        Our state dict; the block's keys are below `slot.`.

    Raises:
        ValueError: Keys that are not known, or two classifiers.
    """
    inside = tuple(Rule(_PREFIX + rule.pattern, f"slot.{rule.replacement}") for rule in MOTION_SQUEEZE_BLOCK)
    return convert(state, (Rule(_PREFIX + r"bn2\..*", None), *inside, *TSM_RESNET))


def convert_tsm(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the state dict of the authors' TSN or TSM ResNet into that of `VideoResNet`.

    Args:
        state: Keys `module.base_model.layer1.0.conv1.net.weight` and the like, and `module.new_fc.*`.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known, or two classifiers.
    """
    return convert(state, TSM_RESNET)


def convert_motionformer(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the authors' state dict into that of [`Motionformer`][saccade.action.motionformer.Motionformer].

    The two-dimensional patch embedding is dropped where there are tubelets, for no clip passes it, and so is a table of
    space where there is one of space and time. The two classifiers of EPIC-Kitchens become `verb` and `noun`. The
    weights were trained without the projection of the temporal values: build the model with `value_projection=False`.

    Args:
        state: Keys `patch_embed_3d.proj.*`, `blocks.0.attn.qkv.*` and the like.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known.
    """
    flat = Rule(r"patch_embed\.proj\.(weight|bias)", r"patch_embed.\1", lambda x: x.unsqueeze(2) if x.ndim == 4 else x)
    tubelets = "patch_embed_3d.proj.weight" in state
    converted = convert(state, MOTIONFORMER if tubelets else (flat, *MOTIONFORMER))
    if "st_embed" in converted:
        converted.pop("pos_embed", None)
    return converted


def motionformer_from(state: Mapping[str, Tensor], *, heads: int | None = None, stride: int = 4) -> Motionformer:
    """Build the model that the authors' state dict belongs to.

    Sizes, attention and classes are read off the tensors. Models with the two classifiers of EPIC-Kitchens were trained
    on frames whose channels are blue, green, red, the others on red, green, blue; `input_spec.channels` says which.

    Args:
        state: The authors' state dict.
        heads: Of the attention, which no tensor tells; one for 64 channels where `None`.
        stride: From one frame of a clip to the next, for the `input_spec`.

    Returns:
        The model in eval mode, with `value_projection=False`.

    Raises:
        ValueError: Keys that are unknown or missing, or sizes that make no model.
    """
    ours = convert_motionformer(state)
    needed = [key for key in ("patch_embed.weight", "cls_token", "norm.weight") if key not in ours]
    if needed or not ("st_embed" in ours or {"pos_embed", "temp_embed"} <= set(ours)):
        raise ValueError(f"the state dict is not one of Motionformer: {', '.join(needed) or 'pos_embed'} missing")
    dim, channels, tubelet, patch, _ = ours["patch_embed.weight"].shape
    joint = "st_embed" in ours
    if joint:
        # clips of 224 pixels, as all published models have
        grid = 224 // patch
        times = (ours["st_embed"].shape[1] - 1) // grid**2
    else:
        grid = round((ours["pos_embed"].shape[1] - 1) ** 0.5)
        times = ours["temp_embed"].shape[1]
    depth = 1 + max((int(m[1]) for key in ours if (m := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    two = "head.verb.weight" in ours
    names = {"verb": "head.verb.weight", "noun": "head.noun.weight"} if two else {"": "head.weight"}
    missing = [key for key in names.values() if key not in ours]
    if missing or not depth:
        raise ValueError(f"the state dict is not one of Motionformer: {', '.join(missing) or 'blocks'} missing")
    classes = {name: ours[key].shape[0] for name, key in names.items()}
    kind: Attention = "divided" if "blocks.0.timeattn.qkv.weight" in ours else "joint"
    model = Motionformer(
        image_size=grid * patch,
        patch_size=patch,
        tubelet=tubelet,
        frames=times * tubelet,
        dim=dim,
        depth=depth,
        heads=heads or max(1, dim // 64),
        num_classes=classes if two else classes[""],
        attention="trajectory" if "blocks.0.attn.proj_q.weight" in ours else kind,
        pos_embed="joint" if joint else "separate",
        value_projection=False,
        pre_logits="pre_logits.weight" in ours,
        mlp_ratio=ours["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        qkv_bias="blocks.0.attn.qkv.bias" in ours,
        in_channels=channels,
        input_spec=InputSpec(grid * patch, times * tubelet, stride, HALF, HALF, "BGR" if two else "RGB"),
    )
    load_strict(model, ours)
    return model.eval()


def load_motionformer_checkpoint(path: str | Path, *, heads: int | None = None, stride: int = 4) -> Motionformer:
    """Load a checkpoint that the authors published, without running code of the file.

    Args:
        path: A `.pyth` file with the weights under `model_state`.
        heads: Of the attention; 12 in all published models, found from the width where `None`.
        stride: From one frame of a clip to the next: 4, or what the file's name says after the `x`.

    Returns:
        The model in eval mode; it gives logits.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No checkpoint, or not one of this model.
    """
    return motionformer_from(read_state(path), heads=heads, stride=stride)
