"""Motionformer: a video transformer whose attention follows things as they move (arXiv:2106.05392).

A transformer on video that compares all tokens with all others, or a cell only with itself over time, has no idea that
a thing which is here now was over there before. Trajectory attention has: for each query and each frame it first pools
that frame by a softmax over its cells, which finds where the query's thing is in it, and then attends along the row of
pooled tokens, one a frame, over time. It takes the place of joint or divided space-time attention in any transformer on
space-time tokens; it needs no optical flow and no labels beyond the action's. It helps where motion decides
(Something-Something, EPIC-Kitchens), and whoever wants correspondence in time without computing flow.

1. *Tokens.* Tubelets of 2 x 16 x 16 pixels become tokens; learnt positions in space and in time are added, and a class
   token is put in front ([`VideoTransformer`][saccade.nn.video_vit.VideoTransformer]).
2. *Space.* Query `q` attends to the cells of each frame separately: `y[q, f] = sum_p softmax_p(q . k[f, p]) v[f, p]`,
   the trajectory tokens ([`frame_attention`][saccade.ops.frame_attention.frame_attention]).
3. *Time.* A new query, projected from the query's own-frame token, attends to the projections of its trajectory tokens
   ([`TrajectoryAttention`][saccade.nn.space_time_attention.TrajectoryAttention], exact, without the tensor of all
   queries by all keys).
4. *Orthoformer.* The quadratic cost of step 2 falls to a linear one when queries and keys meet through a few
   prototypes: tokens chosen one by one to be as orthogonal as possible
   ([`orthoformer_attention`][saccade.ops.frame_attention.orthoformer_attention]). `attention="orthoformer"` does that;
   `nystrom` and `performer` are the paper's comparisons.

Weights come from an image transformer (`load_image_vit`), or from the authors' checkpoints
([`load_motionformer_checkpoint`][saccade.action.checkpoints.load_motionformer_checkpoint]). Those were trained without
the projection of the temporal values; converted models say so by `value_projection=False`, and new ones follow the
paper.
"""

from __future__ import annotations

from typing import Any

from saccade.nn.input_spec import InputSpec
from saccade.nn.video_vit import VideoTransformer

HALF = (0.5, 0.5, 0.5)


class Motionformer(VideoTransformer):
    """A [`VideoTransformer`][saccade.nn.video_vit.VideoTransformer] with the sizes of the paper's base model.

    All arguments are those of the transformer: `attention` chooses between `trajectory` (the method), its
    approximations `orthoformer`, `nystrom` and `performer`, and the baselines `joint` and `divided`; `num_classes` may
    be a dict such as `{"verb": 97, "noun": 300}`.

    Note:
        Source: arXiv:2106.05392. 109 million parameters and about 370 GFLOPs a clip of 16 frames of 224 pixels.

    Example:
        >>> import torch
        >>> model = Motionformer(32, 16, frames=4, dim=24, depth=1, heads=3, num_classes={"verb": 4, "noun": 7})
        >>> {name: tuple(logits.shape) for name, logits in model(torch.randn(2, 3, 4, 32, 32)).items()}
        {'verb': (2, 4), 'noun': (2, 7)}
    """


def motionformer_base(num_classes: int | dict[str, int] = 400, **options: Any) -> Motionformer:
    """Motionformer: 16 frames of 224 pixels.

    Args:
        num_classes: Classes, or classifiers and their classes.
        **options: Of [`VideoTransformer`][saccade.nn.video_vit.VideoTransformer].

    Returns:
        The network.

    Example:
        >>> motionformer_base(174, dim=24, depth=1, heads=3).input_spec.frames
        16
    """
    return Motionformer(num_classes=num_classes, **options)


def motionformer_hr(num_classes: int | dict[str, int] = 400, **options: Any) -> Motionformer:
    """Motionformer-HR: 16 frames of 336 pixels; its table of positions is that of 224, resized on the way.

    Args:
        num_classes: Classes, or classifiers and their classes.
        **options: Of [`VideoTransformer`][saccade.nn.video_vit.VideoTransformer].

    Returns:
        The network.

    Example:
        >>> motionformer_hr(174, dim=24, depth=1, heads=3).input_spec.size
        336
    """
    spec = InputSpec(336, 16, 4, HALF, HALF)
    return Motionformer(num_classes=num_classes, **{"input_spec": spec, **options})


def motionformer_large(num_classes: int | dict[str, int] = 400, **options: Any) -> Motionformer:
    """Motionformer-L: 32 frames of 224 pixels, every third of the video.

    Args:
        num_classes: Classes, or classifiers and their classes.
        **options: Of [`VideoTransformer`][saccade.nn.video_vit.VideoTransformer].

    Returns:
        The network.

    Example:
        >>> motionformer_large(174, dim=24, depth=1, heads=3).temp_embed.shape
        torch.Size([1, 16, 24])
    """
    spec = InputSpec(224, 32, 3, HALF, HALF)
    return Motionformer(num_classes=num_classes, **{"frames": 32, "input_spec": spec, **options})
