"""From the authors' state dicts to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
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

SELFY_BLOCK = (
    Rule(r"stss_transformation\.(downsample\.[01]\..*)", r"transformation.\1"),
    Rule(r"stss_extraction\.conv(\d+)\.0\.weight", r"extraction.layers.\1.conv.weight", lambda w: w.squeeze(2)),
    Rule(r"stss_extraction\.conv(\d+)\.1\.(.*)", r"extraction.layers.\1.norm.\2"),
    Rule(r"stss_integration\.conv(\d+)\.0\.weight", r"integration.spatial.\1.0.weight", lambda w: w.squeeze(2)),
    Rule(r"stss_integration\.conv(\d+)\.1\.(.*)", r"integration.spatial.\1.1.\2"),
    Rule(r"stss_integration\.conv\d+_fuse\.1\.weight", "integration.fuse.0.weight", lambda w: w.squeeze(2)),
    Rule(r"stss_integration\.conv\d+_fuse\.2\.(.*)", r"integration.fuse.1.\1"),
    Rule(r"stss_integration\.upsample\.0\.weight", "integration.upsample.0.weight", lambda w: w.squeeze(2)),
    Rule(r"stss_integration\.upsample\.1\.(.*)", r"integration.upsample.1.\1"),
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


_X3D_LAYERS = {
    "expand": ("a", "conv_a"),
    "expand_norm": ("a_bn", "norm_a"),
    "depthwise": ("b", "conv_b"),
    "depthwise_norm": ("b_bn", r"norm_b\.0"),
    "attention.reduce": (r"se\.fc1", r"norm_b\.1\.block\.0"),
    "attention.expand": (r"se\.fc2", r"norm_b\.1\.block\.2"),
    "project": ("c", "conv_c"),
    "project_norm": ("c_bn", "norm_c"),
}

X3D_BLOCK = (
    *(Rule(rf"branch2\.{slowfast}\.(\w+)", rf"{ours}.\1") for ours, (slowfast, _) in _X3D_LAYERS.items()),
    Rule(r"branch1\.(\w+)", r"shortcut.\1"),
    Rule(r"branch1_bn\.(\w+)", r"shortcut_norm.\1"),
    *(Rule(rf"branch2\.{video}\.(\w+)", rf"{ours}.\1") for ours, (_, video) in _X3D_LAYERS.items()),
    Rule(r"branch1_conv\.(\w+)", r"shortcut.\1"),
    Rule(r"branch1_norm\.(\w+)", r"shortcut_norm.\1"),
)

X3D_NETWORK = (
    Rule(r"s1\.pathway0_stem\.conv_xy\.weight", "stem.spatial.weight"),
    Rule(r"s1\.pathway0_stem\.conv\.weight", "stem.temporal.weight"),
    Rule(r"s1\.pathway0_stem\.bn\.(\w+)", r"stem.norm.\1"),
    Rule(r"head\.conv_5\.weight", "head.expand.weight"),
    Rule(r"head\.conv_5_bn\.(\w+)", r"head.norm.\1"),
    Rule(r"head\.lin_5\.weight", "head.embed.weight"),
    Rule(r"head\.lin_5_bn\.(\w+)", r"head.embed_norm.\1"),
    Rule(r"head\.projection\.(weight|bias)", r"fc.\1"),
    Rule(r"blocks\.0\.conv\.conv_t\.weight", "stem.spatial.weight"),  # PyTorchVideo names the two the wrong way round
    Rule(r"blocks\.0\.conv\.conv_xy\.weight", "stem.temporal.weight"),
    Rule(r"blocks\.0\.norm\.(\w+)", r"stem.norm.\1"),
    Rule(r"blocks\.5\.pool\.pre_conv\.weight", "head.expand.weight"),
    Rule(r"blocks\.5\.pool\.pre_norm\.(\w+)", r"head.norm.\1"),
    Rule(r"blocks\.5\.pool\.post_conv\.weight", "head.embed.weight"),
    Rule(r"blocks\.5\.pool\.post_norm\.(\w+)", r"head.embed_norm.\1"),
    Rule(r"blocks\.5\.proj\.(weight|bias)", r"fc.\1"),
)

_X3D_BLOCK_KEY = re.compile(r"(?:s([2-5])\.pathway0_res(\d+)|blocks\.([1-4])\.res_blocks\.(\d+))\.(branch.*)")


def convert_x3d(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the weights of an X3D of SlowFast or of PyTorchVideo into those of [`X3D`][saccade.nn.x3d.X3D].

    PyTorchVideo has no batch norm on a projection shortcut that keeps the width: there one that changes nothing is put
    in. A single block, keys `branch1.*` and `branch2.*`, is turned into one of `X3DBlock`.

    Args:
        state: What is below `model_state` in `x3d_{xs,s,m,l}.pyth` or `X3D_{XS,S,M,L}.pyth`.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known, or those of both at once.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        found = _X3D_BLOCK_KEY.fullmatch(key)
        if found:
            stage = int(found[1]) - 1 if found[1] else int(found[3])
            prefix, inner = f"layer{stage}.{found[2] or found[4]}.", found[5]
        else:
            prefix, inner = "", key
        if inner in groups.setdefault(prefix, {}):
            raise ValueError(f"two keys of the checkpoint become one of {prefix}{inner}, the second is {key!r}")
        groups[prefix][inner] = tensor
    converted: StateDict = {}
    for prefix, inside in groups.items():
        alone = not prefix and all(key.startswith("branch") for key in inside)
        block = convert(inside, X3D_BLOCK if prefix or alone else X3D_NETWORK)
        if "shortcut.weight" in block and "shortcut_norm.weight" not in block:
            block |= _no_change(block["shortcut.weight"], "expand_norm.num_batches_tracked" in block)
        converted |= {prefix + key: tensor for key, tensor in block.items()}
    return converted


def _no_change(convolution: Tensor, counted: bool, eps: float = 1e-5) -> StateDict:
    """A batch norm that gives in eval mode what it is given."""
    ones = convolution.new_ones(convolution.shape[0])
    norm = {"weight": ones, "bias": 0 * ones, "running_mean": 0 * ones, "running_var": ones - eps}
    counter = {"num_batches_tracked": torch.zeros((), dtype=torch.int64, device=ones.device)} if counted else {}
    return {f"shortcut_norm.{key}": tensor for key, tensor in (norm | counter).items()}


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


def convert_selfy_block(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the weights of the authors' module alone into those of [`SELFYBlock`][saccade.action.selfy.SELFYBlock].

    Args:
        state: Keys `stss_transformation.*`, `stss_extraction.conv{0..3}.*` and `stss_integration.*`; the kernels' axis
            of size 1 is dropped.

    Returns:
        Our state dict.

    Raises:
        ValueError: Keys that are not known.
    """
    return convert(state, SELFY_BLOCK)


def convert_selfy(state: Mapping[str, Tensor]) -> StateDict:
    """Turn the state dict of the authors' SELFYNet into that of [`selfynet`][saccade.action.selfy.selfynet].

    Both forms are taken: the classifier in the network (`fc1.*`), and that of training with dropout
    (`module.base_model.*`, with the classifier as `module.new_fc.*`).

    Args:
        state: The authors' state dict.

    Returns:
        Our state dict; the block's keys are below `slot.`.

    Raises:
        ValueError: Keys that are not known, or two classifiers.
    """
    inside = tuple(
        Rule(_PREFIX + r"selfy\." + rule.pattern, f"slot.{rule.replacement}", rule.transform) for rule in SELFY_BLOCK
    )
    return convert(state, (*inside, *TSM_RESNET))


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
