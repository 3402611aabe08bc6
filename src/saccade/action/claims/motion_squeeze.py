"""The claim of MotionSqueeze, and the small network and training that claims on the motion world share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from saccade.action import pictures
from saccade.action.motion_squeeze import MotionSqueeze
from saccade.action.task import ActionClassification
from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome
from saccade.nn.video_resnet import VideoResNet
from saccade.training.fit import fit
from saccade.worlds.motion import CLASSES, MotionClips, MotionWorld

BATCH = 16


def small_backbone(shift: int | None, slot: torch.nn.Module | None, slot_after: int = 1) -> VideoResNet:
    """The ResNet of the small claims: 5x5 stem of stride 2, three stages; the first has 16 x 16 cells."""
    return VideoResNet(
        len(CLASSES),
        "basic",
        (1, 1, 1),
        stem_width=16,
        stage_widths=(16, 32, 64),
        stem_kernel=5,
        stem_pool=False,
        in_channels=1,
        shift=shift,
        slot=slot,
        slot_after=slot_after,
        dropout=0.0,
    )


def batches(clips: MotionClips, epochs: int, seed: int, size: int = BATCH) -> DataLoader[Any]:
    """Batches of clips in memory; the first epoch in their own order, later ones shuffled."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [torch.arange(len(clips.label))]
        + [torch.randperm(len(clips.label), generator=generator) for _ in range(epochs - 1)]
    )
    content = [{"video": clips.video[rows], "label": clips.label[rows]} for rows in order.split(size)]
    return DataLoader(content, batch_size=None)  # type: ignore[arg-type]


def train_on_motion(cell: Cell, backbone: VideoResNet) -> tuple[Tensor, MotionClips, list[tuple[float, float]]]:
    """Train on the motion world; gives predictions for the test clips, the clips, and the loss curve."""
    settings = cell.settings
    world = MotionWorld(seed=cell.seed, **settings["world"])
    size = settings.get("batch", BATCH)
    steps = settings["clips"] * settings["epochs"] // size
    lr = settings["lr"]
    task = ActionClassification(
        backbone,
        len(CLASSES),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=lr, weight_decay=1e-4),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps),
        schedule="step",
    )
    train = batches(world.batch("train", range(settings["clips"])), settings["epochs"], cell.seed, size)
    curve = fit(task, train, steps=steps, seed=cell.seed, device=cell.device, progress=cell.progress)
    test = world.batch("test", range(settings["test_clips"]))
    task.eval()
    with torch.no_grad():
        said = torch.cat([task(video.to(cell.device)).argmax(1).cpu() for video in test.video.split(100)])
    return said, test, curve


def run_motion_squeeze(cell: Cell) -> Outcome:
    """One arm at one seed."""
    slot = MotionSqueeze(16, window=9) if cell.options["motion"] else None
    backbone = small_backbone(8 if cell.options["shift"] else None, slot)
    said, test, curve = train_on_motion(cell, backbone)
    title = cell.arm.replace("+ms", " + MotionSqueeze").replace("tsn", "TSN").replace("tsm", "TSM")
    shown: dict[str, np.ndarray] = {
        f"Confusion of directions, {title}": pictures.confusion(said, test.label, CLASSES, title)
    }
    if slot is not None:
        features: dict[str, Tensor] = {}
        hook = slot.register_forward_pre_hook(lambda _, inputs: features.update(x=inputs[0]))
        first = slice(0, 4)
        with torch.no_grad():
            backbone(test.video[first].to(cell.device))
            hook.remove()
            motion = slot.motion(features["x"], test.video.shape[2])
        reach = 2 * (slot.window // 2)  # a cell is 2 pixels
        shown[f"What {title} sees move"] = pictures.motion_strip(test, said, motion, reach, CLASSES, count=4)
    accuracy = 100 * float((said == test.label).double().mean())
    return Outcome(metrics={"top1": accuracy}, curves={"training loss": curve}, pictures=shown)


_FAST: dict[str, Any] = {"size": 32, "frames": 4, "speed": (5.0, 7.5), "radius": (8.0, 10.0), "noise": 0.05, "grain": 4}

MOTION_SQUEEZE = Claim(
    slug="motion-squeeze",
    statement=(
        "On clips whose single frames say nothing, MotionSqueeze after the first stage lifts a 2D network (TSN) by at "
        "least 25 points of top-1 accuracy, and does not harm one that shifts features over time (TSM)."
    ),
    paper=(
        "Something-Something V1, 8 frames, ResNet-50, top-1: TSM 45.6 %, MSNet (TSM with MotionSqueeze) 50.9 %. "
        "Kinetics-400: 74.1 % and 76.4 %. On TSN the gain is far larger."
    ),
    metrics={"top1": Metric("top-1 (%)")},
    arms={
        "tsn": Arm("TSN", {"shift": False, "motion": False}, baseline=True),
        "tsn+ms": Arm("TSN + MotionSqueeze", {"shift": False, "motion": True}),
        "tsm": Arm("TSM", {"shift": True, "motion": False}, baseline=True),
        "tsm+ms": Arm("TSM + MotionSqueeze", {"shift": True, "motion": True}),
    },
    expectations=[
        Beats("tsn+ms", "tsn", by=25.0, on=("motion", "long")),
        Beats("tsm+ms", "tsm", by=0.0, on=("motion",)),
    ],
    data={
        "motion": Data(
            "Motion world: a textured disk on the same texture moves 5 to 7.5 px a frame in one of 8 directions; "
            "32 x 32 px, 4 frames, each training clip seen once",
            note="Chance is 12.5 %. The paper's networks are pretrained on ImageNet; these start from scratch.",
            settings={"world": _FAST},
        ),
        "long": Data(
            "The same world with four times the clips and steps",
            note="In single runs TSM caught up with training; this has not been measured over seeds.",
            settings={"world": _FAST, "clips": 12288},
        ),
        "medium": Data(
            "The same world at 3 to 4.5 px a frame",
            note=(
                "With 96 steps of 32 clips, five seeds: TSN 12.2 %, with the block 47.9 +- 19.7; TSM 35.8 %, with the "
                "block 50.2 +- 13.1. How soon learning sets in differs much from seed to seed."
            ),
            settings={"world": {**_FAST, "speed": (3.0, 4.5)}},
        ),
        "slow": Data(
            "Motion world in slow motion: 0.5 to 1 px a frame, less than a cell of the feature map",
            note="Below one cell there is hardly a displacement to find; nothing is expected here.",
            settings={"world": {**_FAST, "speed": (0.5, 1.0)}},
        ),
        "few": Data(
            "Motion world with 256 clips seen 12 times: appearance can be learnt by heart",
            note="Networks memorise the clips instead of learning motion; nothing is expected here.",
            settings={"world": _FAST, "clips": 256, "epochs": 12},
        ),
    },
    budgets={
        "smoke": Budget(1, {"clips": 64, "epochs": 1, "test_clips": 32, "lr": 2e-3}),
        "small": Budget(4, {"clips": 3072, "epochs": 1, "test_clips": 500, "lr": 2e-3}),
        "full": Budget(10, {"clips": 3072, "epochs": 1, "test_clips": 4000, "lr": 2e-3}),
    },
    run=run_motion_squeeze,
    axes={"training loss": Axis("optimiser step", "cross-entropy (nats)")},
    limits=(
        "The block needs displacements of about one cell of the feature map or more (2 px here, 8 px in a full "
        "ResNet) and enough different clips; --on slow and --on few are there to see where it should not help. At 3 "
        "to 4.5 px a frame (--on medium) the claim was inconclusive over five seeds; the larger displacements of the "
        "default were chosen after that, mostly on other seeds. The lead over TSM is one of learning sooner: in "
        "single runs with three to four times the training TSM alone came level or ahead, and --on long has not been "
        "run over seeds."
    ),
)
