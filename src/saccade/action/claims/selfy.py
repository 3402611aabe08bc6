"""The claim of SELFY: similarities between frames tell a direction, those inside a frame do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.action import pictures
from saccade.action.claims.motion_squeeze import small_backbone, train_on_motion
from saccade.action.selfy import SELFYBlock
from saccade.action.similarity_pictures import similarity_strip
from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.worlds.motion import CLASSES

CELL = 4
"""Pixels from one position of the similarities to the next: the stem and the block halve the picture each."""


def run_selfy(cell: Cell) -> Outcome:
    """One arm at one seed."""
    slot = None
    if cell.options:
        slot = SELFYBlock(
            16,
            hidden_channels=12,
            window=(cell.options["offsets"], 9, 9),
            extraction_channels=(4, 8, 12, 12),
            integration_channels=(12, 12, 12, 12),
            extraction=cell.options["extraction"],
            scale=1.0,  # a scale of 0 does not move within so few steps from scratch
        )
    backbone = small_backbone(None, slot)
    said, test, curve = train_on_motion(cell, backbone)
    title = SELFY.arms[cell.arm].title
    shown: dict[str, np.ndarray] = {
        f"Confusion of directions, {title}": pictures.confusion(said, test.label, CLASSES, title)
    }
    if slot is not None and slot.window[0] > 1:
        kept: list[Tensor] = []
        hook = slot.transformation.register_forward_hook(lambda _, __, similarity: kept.append(similarity))
        with torch.no_grad():
            backbone(test.video[:4].to(cell.device))
        hook.remove()
        shown[f"What {title} compares: one place with its surroundings in three frames"] = similarity_strip(
            test, said, kept[0].cpu(), CELL, CLASSES, count=4
        )
    accuracy = 100 * float((said == test.label).double().mean())
    return Outcome(metrics={"top1": accuracy}, curves={"training loss": curve}, pictures=shown)


_TEXTURE: dict[str, Any] = {"size": 24, "frames": 4, "speed": (3.5, 5.0), "radius": (6.0, 8.0), "grain": 4}

SELFY = Claim(
    slug="selfy",
    statement=(
        "On clips whose single frames say nothing, SELFY after the first stage lifts a 2D network (TSN) by at least "
        "15 points of top-1 accuracy; self-similarity inside single frames alone (L = 1) leaves it within 6 points of "
        "chance."
    ),
    paper=(
        "Something-Something V1, 8 frames, top-1: TSM-R50 45.6 %, SELFYNet (TSM-R50 with SELFY) 52.5 %. More temporal "
        "offsets are better, L = 1 being the least; convolutions extract better than soft-argmax or an MLP."
    ),
    metrics={"top1": Metric("top-1 (%)")},
    arms={
        "tsn": Arm("TSN", {}, baseline=True),
        "selfy-1": Arm("TSN + SELFY, L = 1", {"offsets": 1, "extraction": "conv"}, baseline=True),
        "selfy-softargmax": Arm("TSN + SELFY, L = 3, soft-argmax", {"offsets": 3, "extraction": "softargmax"}),
        "selfy": Arm("TSN + SELFY, L = 3", {"offsets": 3, "extraction": "conv"}),
    },
    expectations=[
        Beats("selfy", "tsn", by=15.0, on=("motion",)),
        Beats("selfy", "selfy-1", by=15.0, on=("motion",)),
        Within("tsn", "top1", at_most=18.5),
        Within("selfy-1", "top1", at_most=18.5),
    ],
    data={
        "motion": Data(
            "Motion world: a textured disk on the same texture moves 3.5 to 5 px a frame in one of 8 directions; 24 x "
            "24 px, 4 frames, each training clip seen once",
            note="Chance is 12.5 %. The paper's networks are pretrained on ImageNet; these start from scratch.",
            settings={"world": _TEXTURE},
        ),
        "slow": Data(
            "The same world at 2.2 to 3.4 px a frame, less than a cell of the block's map, with a finer texture",
            note=(
                "Nothing is expected here: on three seeds that the claim does not use the block came to 34, 53 and "
                "39 % with 6,144 clips; it has not been measured on the claim's."
            ),
            settings={"world": {**_TEXTURE, "speed": (2.2, 3.4), "grain": 2}},
        ),
    },
    budgets={
        "smoke": Budget(1, {"clips": 64, "epochs": 1, "test_clips": 100, "lr": 4e-3, "batch": 32}),
        "small": Budget(4, {"clips": 5632, "epochs": 1, "test_clips": 1000, "lr": 4e-3, "batch": 32}),
        "full": Budget(10, {"clips": 24576, "epochs": 1, "test_clips": 4000, "lr": 4e-3, "batch": 32}),
    },
    run=run_selfy,
    axes={"training loss": Axis("optimiser step", "cross-entropy (nats)")},
    limits=(
        "How soon learning sets in differs from seed to seed: with 6,144 clips three seeds that the claim does not use "
        "came to 47, 53 and 79 %. World and learning rate, the same for all arms, were chosen on those seeds: at 2.2 "
        "to 3.4 px a frame and half the learning rate the block came to 15 and 32 %, and with 2,048 clips to chance. "
        "Which extraction is best is not claimed: on two of those seeds convolutions came to 53 and 79 %, an MLP to 54 "
        "and 48 %, soft-argmax to 35 and 40 %. Of the paper's sizes the window of 9 x 9 is kept; channels are 12 "
        "instead of 64, and L is 3 instead of 5."
    ),
)
