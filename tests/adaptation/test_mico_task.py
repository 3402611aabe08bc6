"""DeCoTa in the domain's task: a kill in either phase, and two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from saccade.adaptation import Classifier, CosinePredictor, DeCoTa, InverseDecayLR
from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.images import TensorImages
from saccade.adaptation.task import DomainAdaptation
from saccade.training.resume import AtomicCheckpointIO, LastCheckpoint, StepSeeds
from tests.adaptation.test_task import Kill, sgd

ROOT = Path(__file__).parents[2]


def decota(threshold: float = 0.4) -> DeCoTa:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh())
    classifier = Classifier(body, CosinePredictor(8, 3, 16, 0.25), 8, 3)
    return DeCoTa(classifier, threshold=threshold, pretrain=4, lr_mult=1.0, head_lr_mult=1.0)


def sets(size: int = 4) -> DomainSets:
    images = torch.randn(2, 48, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(48) % 3
    few = TensorImages(images[1, :16], labels[:16])
    return DomainSets(
        [TensorImages(images[0], labels)], [TensorImages(images[1, 16:])], few, test=TensorImages(images[1], labels),
        source_batch=size, target_batch=size, labelled_batch=size, iterations=6,
    )  # fmt: skip


def train(folder: Path, *extra: Kill) -> dict[str, Tensor]:
    task = DomainAdaptation(decota(), sgd, lambda optimizer: InverseDecayLR(optimizer, 0.1, warmup=4))
    last = LastCheckpoint(folder, every_n_steps=2)
    engine = Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[StepSeeds(3), last, *extra], plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    path = last.path if last.path.exists() else None
    try:
        engine.fit(task, sets(), ckpt_path=path, weights_only=True)
    except SystemExit:
        return {}
    return {key: value.clone() for key, value in task.state_dict().items()}


@pytest.mark.filterwarnings("error:Detected call of")
@pytest.mark.parametrize("iteration", [3, 5, 9])
def test_a_run_killed_in_either_phase_ends_with_the_same_weights(tmp_path: Path, iteration: int) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "killed", Kill(iteration))
    resumed = train(tmp_path / "killed")
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key
    assert any(not torch.equal(value, whole[key.replace("classifier", "other")]) for key, value in whole.items())


SCRIPT = """
import sys
import torch
from lightning import Trainer
from saccade.adaptation.task import DomainAdaptation
from saccade.training.resume import StepSeeds
from tests.adaptation.test_mico_task import decota, sets
from tests.adaptation.test_task import sgd

if __name__ == "__main__":
    world, size, threshold = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    task = DomainAdaptation(decota(threshold), sgd)
    kind = "ddp_find_unused_parameters_true" if world > 1 else "auto"
    trainer = Trainer(accelerator="cpu", devices=world, strategy=kind, max_epochs=1, logger=False,
                      enable_progress_bar=False, enable_checkpointing=False, callbacks=[StepSeeds(3)])
    trainer.fit(task, sets(size))
    found = {"loss": trainer.callback_metrics["train/loss"], **task.state_dict()}
    torch.save(found, f"{threshold}-{world}-{trainer.global_rank}.pt")
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Without pseudo labels, whose partners are drawn, the result is that of one process on the joined batches."""
    (tmp_path / "go.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    for world, size, threshold in (("1", "8", "1.0"), ("2", "4", "1.0"), ("2", "4", "0.4")):
        done = subprocess.run(
            [sys.executable, "go.py", world, size, threshold],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    load = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    for one, other in (("1.0-1-0", "1.0-2-0"), ("1.0-2-0", "1.0-2-1"), ("0.4-2-0", "0.4-2-1")):
        for key, value in load[one].items():
            torch.testing.assert_close(load[other][key], value, msg=f"{one} {other} {key}")
    assert not torch.allclose(load["0.4-2-0"]["loss"], load["1.0-2-0"]["loss"])
