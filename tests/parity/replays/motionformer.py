"""Replays of the Motionformer fixtures."""

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.action.checkpoints import convert_motionformer, motionformer_from
from saccade.action.motionformer import Motionformer
from saccade.checkpoints import load_strict
from saccade.nn.space_time_attention import TrajectoryAttention
from saccade.ops.features import positive_features
from saccade.ops.frame_attention import (
    iterative_inverse,
    nystrom_attention,
    orthoformer_attention,
    orthogonal_prototypes,
    performer_attention,
)
from tests.parity.fixtures import Fixture


def trajectory_attention(fixture: Fixture) -> dict[str, Tensor]:
    config, found = fixture.config, {}
    for name, projected in (("original", False), ("corrected", True)):
        block = TrajectoryAttention(
            config["dim"], config["num_heads"], qkv_bias=config["qkv_bias"], value_projection=projected
        ).eval()
        load_strict(block, fixture.weights)
        x = fixture.inputs["x"].clone().requires_grad_()
        y, attention = block(x, config["num_frames"], return_attention=True)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        found |= {f"out/{name}": y, "out/temporal_attention": attention, f"grad/{name}/x": x.grad}
        for key, parameter in block.named_parameters():
            grad = parameter.grad
            found[f"grad/{name}/{key}"] = torch.zeros_like(parameter) if grad is None else grad
    return found


def orthoformer(fixture: Fixture) -> dict[str, Tensor]:
    config, (q, k, v) = fixture.config, (fixture.inputs[name] for name in "qkv")
    frames = config["num_frames"]
    cells = torch.eye(config["tokens_per_frame"], dtype=v.dtype).repeat(len(v), frames, 1)  # gives the attention
    first = {True: fixture.inputs["first_index_shared"], False: fixture.inputs["first_index_per_frame"]}
    count = {True: config["num_landmarks"], False: config["num_landmarks_per_frame"]}
    chosen = orthogonal_prototypes(q, count[True], first[True]).sort(1).values
    found = {
        "out/landmarks_shared": (q * q.shape[-1] ** -0.25).gather(1, chosen[..., None].expand(-1, -1, q.shape[-1]))
    }
    for shared, name in ((True, "shared"), (False, "per_frame")):
        for values, what in ((v, name), (cells, f"{name}_attention")):
            found[f"out/{what}"] = orthoformer_attention(
                q, k, values, frames, count[shared], shared=shared, first_index=first[shared]
            )
    return found


def nystrom(fixture: Fixture) -> dict[str, Tensor]:
    config, (q, k, v) = fixture.config, (fixture.inputs[name] for name in "qkv")
    steps = config["inv_iters"]
    return {"out/inverse": iterative_inverse(fixture.inputs["inverse_matrix"], steps)} | {
        f"out/L{count}_{'spatial' if spatial else 'sequential'}": nystrom_attention(
            q, k, v, config["num_frames"], count, spatial=spatial, iterations=steps
        )
        for count in config["landmarks"]
        for spatial in (False, True)
    }


def performer(fixture: Fixture) -> dict[str, Tensor]:
    config, w = fixture.config, fixture.inputs["projection"]
    heads = config["heads"]
    q, k, v = (fixture.inputs[name].transpose(1, 2).flatten(0, 1) for name in "qkv")
    out = {"q_features": positive_features(q, w, "query"), "k_features": positive_features(k, w, "key")}
    found = {f"out/{name}": x.unflatten(0, (-1, heads)).transpose(1, 2) for name, x in out.items()}
    return found | {"out/attended": performer_attention(q, k, v, config["num_frames"], w).unflatten(0, (-1, heads))}


def model(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    built = Motionformer(
        image_size=config["base_size"],
        patch_size=config["patch"],
        tubelet=config["tubelet"],
        frames=config["frames"],
        dim=config["embed_dim"],
        depth=config["depth"],
        heads=config["heads"],
        num_classes=config["heads_out"]
        if isinstance(config["heads_out"], int)
        else dict(zip(("verb", "noun"), config["heads_out"], strict=True)),
        attention=config["attention"],
        pos_embed=config["pos_embed"],
        value_projection=not config["use_original_code"],
        pre_logits=config["mlp_head"],
        mlp_ratio=config["mlp_ratio"],
        qkv_bias=config["qkv_bias"],
    ).eval()
    assert built.norm.eps == config["ln_eps"]
    load_strict(built, convert_motionformer(fixture.weights))
    video = fixture.inputs["video"]
    features, logits = built.features(video), built(video)
    if config["use_original_code"] and config["pos_embed"] == "separate":  # as the published checkpoints are
        found = motionformer_from(fixture.weights, heads=config["heads"])
        assert torch.equal(found.features(video), features)
    if isinstance(logits, dict):
        several = {f"out/logits_{name}": x for name, x in logits.items()}
        return (
            {"out/features": features}
            | several
            | {key.replace("logits", "probs"): x.softmax(1) for key, x in several.items()}
        )
    return {"out/features": features, "out/logits": logits, "out/probs": logits.softmax(1)}


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "trajectory_attention": trajectory_attention,
    "orthoformer": orthoformer,
    "nystrom": nystrom,
    "performer": performer,
    "model": model,
}
