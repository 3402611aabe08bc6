from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from saccade.training.resume import AtomicCheckpointIO, LastCheckpoint, StepSeeds
from tests.training.toy import ToyData, ToyTask

EPOCHS, BATCHES = 3, 5


class Kill(Callback):
    """Ends the run before one step, as a kill would: nothing is saved on the way out."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def train(folder: Path, *extra: Callback, workers: int = 0, every: int = 2, accumulate: int = 1) -> dict:
    torch.manual_seed(0)
    task = ToyTask()
    last = LastCheckpoint(folder, every_n_steps=every)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accumulate_grad_batches=accumulate,
        default_root_dir=folder,
        callbacks=[StepSeeds(3), last, *extra],
        plugins=[AtomicCheckpointIO()],
    )
    data = ToyData(num_workers=workers, seed=5)
    try:
        trainer.fit(task, data, ckpt_path=last.path if last.path.exists() else None, weights_only=True)
    except SystemExit:
        return {}
    return {key: value.clone() for key, value in task.state_dict().items()} | {
        "steps": torch.tensor(trainer.global_step)
    }


@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 9, 10, 12, 14])
def test_a_run_killed_at_any_step_ends_with_the_same_weights(tmp_path: Path, step: int) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "killed", Kill(step))
    resumed = train(tmp_path / "killed")
    assert int(whole["steps"]) == EPOCHS * BATCHES
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    for step in (3, 7, 8, 13):
        train(tmp_path / "killed", Kill(step))
    assert all(torch.equal(value, whole[key]) for key, value in train(tmp_path / "killed").items())


def test_resuming_is_exact_with_worker_processes(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "killed", Kill(8), workers=2)
    assert all(torch.equal(value, whole[key]) for key, value in train(tmp_path / "killed", workers=2).items())


def test_resuming_is_exact_with_gradient_accumulation(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", accumulate=2)
    train(tmp_path / "killed", Kill(4), accumulate=2)
    assert all(torch.equal(value, whole[key]) for key, value in train(tmp_path / "killed", accumulate=2).items())


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    whole = train(tmp_path)
    again = train(tmp_path)
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def test_no_partial_checkpoint_is_left(tmp_path: Path) -> None:
    train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
