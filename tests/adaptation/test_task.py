"""The task: players in turn, exact resume, two processes as one; labels of the target out of reach while fitting."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from saccade.adaptation import DomainBatch, Labelled, Moment
from saccade.adaptation.baselines import DomainAdversarial, SourceOnly, mean_cross_entropy
from saccade.adaptation.images import TensorImages
from saccade.adaptation.schedules import InverseDecayLR
from saccade.adaptation.task import DomainAdaptation
from saccade.training import fit
from saccade.training.resume import AtomicCheckpointIO, LastCheckpoint, StepSeeds
from tests.adaptation.players import TwoPlayers, classifier, sets

ROOT = Path(__file__).parents[2]


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


class Kill(Callback):
    """Ends the run before one iteration, as a kill would."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.iteration:
            raise KeyboardInterrupt


def trainer(folder: Path, *extra: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[StepSeeds(3), *extra],
        plugins=[AtomicCheckpointIO()],
        **({"max_epochs": 3} | settings),
    )


def train(folder: Path, *extra: Callback) -> dict[str, Tensor]:
    torch.manual_seed(0)
    task = DomainAdaptation(TwoPlayers(), sgd, lambda optimizer: InverseDecayLR(optimizer, 0.5))
    last = LastCheckpoint(folder, every_n_steps=2)
    engine = Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[StepSeeds(3), last, *extra], plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
    )  # fmt: skip
    path = last.path if last.path.exists() else None
    try:
        engine.fit(task, sets(augment=True), ckpt_path=path, weights_only=True)
    except SystemExit:
        return {}
    return {key: value.clone() for key, value in task.state_dict().items()}


@pytest.mark.parametrize("iteration", [1, 4, 5, 7, 12])
def test_a_run_killed_at_any_iteration_ends_with_the_same_weights(tmp_path: Path, iteration: int) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "killed", Kill(iteration))
    resumed = train(tmp_path / "killed")
    assert resumed
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_players_step_in_turn_each_with_its_own_gradient() -> None:
    """Against the same game written out."""
    torch.manual_seed(1)
    method, data = TwoPlayers(dropout=0.0), sets(iterations=3)
    twin = TwoPlayers(dropout=0.0)
    twin.load_state_dict(method.state_dict())
    task = DomainAdaptation(method, lambda groups: torch.optim.SGD(groups, lr=0.1))
    fit(task, data, epochs=1)

    body, head, judge = twin.classifier.body, twin.classifier.head, twin.discriminator
    for iteration, batch in enumerate(sets(iterations=3).train_dataloader()):
        losses = twin.updates(batch, Moment(iteration, 3))
        for part, factor in (([body, head], (0.05, 0.1)), ([judge], (0.1,))):
            loss = next(losses).loss
            for module, rate in zip(part, factor, strict=True):
                own = list(module.parameters())
                grads = torch.autograd.grad(loss, own, retain_graph=True)
                with torch.no_grad():
                    for parameter, grad in zip(own, grads, strict=True):
                        parameter -= rate * grad
    for key, value in twin.state_dict().items():
        torch.testing.assert_close(method.state_dict()[key], value)


def test_accumulated_iterations_are_one_step_of_their_mean() -> None:
    """Two iterations joined are one with the batches joined, for a loss that is a mean."""

    def trained(accumulate: int, size: int, iterations: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        task = DomainAdaptation(SourceOnly(classifier()), lambda g: torch.optim.SGD(g, lr=0.5), accumulate=accumulate)
        fit(task, sets(source_batch=size, iterations=iterations), epochs=1)
        return task.state_dict()

    whole, joined = trained(1, 8, 2), trained(2, 4, 4)
    for key, value in whole.items():
        torch.testing.assert_close(joined[key], value)


def test_gradients_are_clipped() -> None:
    torch.manual_seed(0)
    method = SourceOnly(classifier())
    before = {key: value.clone() for key, value in method.state_dict().items()}
    fit(DomainAdaptation(method, lambda g: torch.optim.SGD(g, lr=1.0), clip_norm=1e-3), sets(iterations=1), epochs=1)
    moved = torch.cat([(value - before[key]).flatten() for key, value in method.state_dict().items()])
    torch.testing.assert_close(moved.norm(), torch.tensor(1e-3), rtol=1e-3, atol=0)


def test_the_target_is_tested_but_its_labels_are_out_of_reach_in_fitting(tmp_path: Path) -> None:
    class Peek(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: DomainBatch, batch_idx: int) -> None:
            assert all(isinstance(part, Tensor) for part in batch.targets)
            with pytest.raises(RuntimeError, match="not to be had while fitting"):
                trainer.datamodule.test_set()  # type: ignore[attr-defined]
            assert trainer.datamodule.train_images()[1][0].labels is None  # type: ignore[attr-defined]

    task = DomainAdaptation(SourceOnly(classifier()), sgd)
    engine = trainer(tmp_path, Peek(), max_epochs=1)
    data = sets()
    engine.fit(task, data)
    assert "val/accuracy" in engine.callback_metrics
    [found] = engine.test(task, data, verbose=False)
    images: TensorImages = data.test_images()  # type: ignore[assignment]
    answers = task.eval()(images.images).argmax(1)
    right = (answers == images.labels).float()
    assert found["test/accuracy"] == pytest.approx(float(right.mean()))
    means = [float(right[images.labels == label].mean()) for label in range(3)]
    assert found["test/mean_class_accuracy"] == pytest.approx(sum(means) / 3)


def test_the_length_is_given_in_epochs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs"):
        trainer(tmp_path, max_epochs=-1, max_steps=3).fit(DomainAdaptation(SourceOnly(classifier())), sets())


def test_domains_count_alike_whatever_their_sizes() -> None:
    logits, labels = torch.randn(10, 3, dtype=torch.float64), torch.arange(10) % 3
    parts = [torch.nn.functional.cross_entropy(logits[a:b], labels[a:b]) for a, b in ((0, 8), (8, 10))]
    torch.testing.assert_close(mean_cross_entropy(logits, [labels[:8], labels[8:]]), (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("conditional", [False, True])
def test_dann_is_a_game_of_two(conditional: bool) -> None:
    """One backward through the reversal: the discriminator descends its loss, the network ascends it."""
    torch.manual_seed(0)
    method = DomainAdversarial(classifier(), weight=0.3, conditional=conditional).double()
    batch = next(iter(sets().train_dataloader()))
    batch = DomainBatch(
        [Labelled(batch.sources[0].images.double(), batch.sources[0].labels)], [batch.targets[0].double()]
    )
    [update] = method.updates(batch, Moment(5, 10))
    update.loss.backward()

    net = method.classifier
    features = net.features(torch.cat([batch.sources[0].images, batch.targets[0]]))
    logits = net.head(features)
    seen = features
    if conditional:
        seen = (logits.detach().softmax(1)[:, :, None] * features[:, None, :]).flatten(1)
    judged = method.discriminator(seen).flatten().sigmoid()
    domain = (-judged[:6].log().mean() - (1 - judged[6:]).log().mean()) / 2
    lam = 2 / (1 + torch.exp(torch.tensor(-5.0, dtype=torch.float64))) - 1
    taught = torch.nn.functional.cross_entropy(logits[:6], batch.sources[0].labels)
    body, judge = list(net.body.parameters()), list(method.discriminator.parameters())
    for parameter, grad in zip(judge, torch.autograd.grad(0.3 * domain, judge, retain_graph=True), strict=True):
        torch.testing.assert_close(parameter.grad, grad)
    wanted = torch.autograd.grad(taught - 0.3 * lam * domain, body)
    for parameter, grad in zip(body, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_two_processes_end_with_the_weights_of_one_on_the_joined_batches(tmp_path: Path) -> None:
    script = (
        "import sys, torch\n"
        "from lightning import Trainer\n"
        "from saccade.adaptation.baselines import DomainAdversarial\n"
        "from saccade.adaptation.task import DomainAdaptation\n"
        "from tests.adaptation.players import TwoPlayers, classifier, sets\n"
        "if __name__ == '__main__':\n"
        "    world, size, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]\n"
        "    torch.manual_seed(0)\n"
        "    method = DomainAdversarial(classifier(), weight=1.0) if name == 'dann' else TwoPlayers(0.0)\n"
        "    task = DomainAdaptation(method, lambda g: torch.optim.SGD(g, lr=0.1))\n"
        "    kind = 'ddp_find_unused_parameters_true' if world > 1 else 'auto'\n"
        "    trainer = Trainer(accelerator='cpu', devices=world, strategy=kind, max_epochs=1, logger=False,\n"
        "                      enable_progress_bar=False, enable_checkpointing=False, limit_val_batches=0)\n"
        "    trainer.fit(task, sets(source_batch=size, target_batch=size, iterations=4))\n"
        "    if trainer.global_rank == 0: torch.save(task.state_dict(), f'{name}{world}.pt')\n"
    )
    (tmp_path / "go.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    for name in ("dann", "two"):
        for world, size in (("1", "8"), ("2", "4")):
            done = subprocess.run(
                [sys.executable, "go.py", world, size, name],
                cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
        one, two = (torch.load(tmp_path / f"{name}{world}.pt", weights_only=True) for world in (1, 2))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, msg=key)
