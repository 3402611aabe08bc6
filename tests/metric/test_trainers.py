"""Trainers: the same weights as the reference library's after the same steps, and checks of what they are given."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_metric_learning.losses as peer_losses
import pytorch_metric_learning.miners as peer_miners
import pytorch_metric_learning.trainers as peer
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, Dataset, SequentialSampler, TensorDataset

from saccade.metric import losses, miners, trainers
from saccade.metric.trainers.tracker import LossTracker

HOMES = ((trainers, losses, miners), (peer, peer_losses, peer_miners))
QUIET: dict[str, Any] = {"dataloader_num_workers": 0, "data_device": torch.device("cpu")}


def data(size: int = 48) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(size, 6, generator=generator), torch.arange(size) % 4)


class TwoStreams(Dataset[tuple[Tensor, Tensor, Tensor]]):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(2, 6, generator=generator)
        return x[0], x[1], torch.tensor(index % 4)


def networks(**sizes: tuple[int, int]) -> dict[str, nn.Module]:
    torch.manual_seed(5)
    given = {"trunk": (6, 8), "embedder": (8, 4)} | sizes
    return {name: nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b)) for name, (a, b) in given.items()}


def optimizers(models: dict[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
    return {f"{name}_optimizer": torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}


def trained(
    home: tuple[Any, Any, Any], name: str, make: Callable[..., dict[str, Any]], epochs: int = 2, **more: Any
) -> Any:
    """A trainer of one of the two libraries, after some epochs from the same start and seed."""
    models = make.models() if hasattr(make, "models") else networks()  # type: ignore[attr-defined]
    given = make(*home[1:]) | more
    trainer = getattr(home[0], name)(
        models=models,
        optimizers=optimizers(models),
        batch_size=16,
        dataset=given.pop("dataset", data()),
        **QUIET,
        **given,
    )
    torch.manual_seed(7)
    trainer.train(num_epochs=epochs)
    return trainer


def assert_same_weights(name: str, make: Any, **more: Any) -> None:
    start = {key: value.clone() for key, value in nn.ModuleDict(networks()).state_dict().items()}
    ours, theirs = (trained(home, name, make, **copy.copy(more)) for home in HOMES)
    moved = False
    for key, model in theirs.models.items():
        for part, value in model.state_dict().items():
            torch.testing.assert_close(ours.models[key].state_dict()[part], value, rtol=1e-4, atol=1e-5)
            moved |= f"{key}.{part}" in start and not torch.equal(value, start[f"{key}.{part}"])
    assert moved


class Plain:
    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return {"loss_funcs": {"metric_loss": L.TripletMarginLoss()}}


class Mined:
    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return {
            "loss_funcs": {"metric_loss": L.MultiSimilarityLoss()},
            "mining_funcs": {"tuple_miner": M.MultiSimilarityMiner(), "subset_batch_miner": lambda e, y: y < 3},
            "loss_weights": {"metric_loss": 0.5},
        }


class Classified:
    @staticmethod
    def models() -> dict[str, nn.Module]:
        return networks(classifier=(4, 4))

    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return {
            "loss_funcs": {"metric_loss": L.ContrastiveLoss(), "classifier_loss": nn.CrossEntropyLoss()},
            "loss_weights": {"metric_loss": 1, "classifier_loss": 0.3},
        }


class Streams:
    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return {"loss_funcs": {"metric_loss": L.TripletMarginLoss()}, "dataset": TwoStreams()}


class MinedStreams(Streams):
    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return super().__call__(L, M) | {"mining_funcs": {"tuple_miner": M.MultiSimilarityMiner()}}


class Cascade:
    @staticmethod
    def models() -> dict[str, nn.Module]:
        return networks(classifier_1=(2, 4))

    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return {
            "embedding_sizes": [2, 2],
            "loss_funcs": {
                "metric_loss_0": L.ContrastiveLoss(),
                "metric_loss_1": L.ContrastiveLoss(),
                "classifier_loss_1": nn.CrossEntropyLoss(),
            },
            "mining_funcs": {"tuple_miner_0": M.PairMarginMiner(0.1, 1.0), "tuple_miner_1": M.HDCMiner(0.5)},
        }


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("MetricLossOnly", Plain()),
        ("MetricLossOnly", Mined()),
        ("TrainWithClassifier", Classified()),
        ("TrainWithClassifier", Plain()),
        ("TwoStreamMetricLoss", Streams()),
        ("TwoStreamMetricLoss", MinedStreams()),
        ("CascadedEmbeddings", Cascade()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_weights_become_those_of_the_reference_library(name: str, make: Any) -> None:
    assert_same_weights(name, make)


def test_frozen_parts_stay_as_they_are() -> None:
    assert_same_weights("MetricLossOnly", Plain(), freeze_these=["trunk"])
    assert_same_weights("MetricLossOnly", Plain(), freeze_trunk_batchnorm=True)
    trainer = trained(HOMES[0], "MetricLossOnly", Plain(), freeze_these=["trunk"])
    fresh = networks()["trunk"].state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in trainer.models["trunk"].state_dict().items())


class Adversarial:
    """A generator that copies the anchor needs no luck: all triplets of a class pair are alike."""

    @staticmethod
    def models() -> dict[str, nn.Module]:
        return networks(generator=(24, 8), classifier=(4, 4))

    def __call__(self, L: Any, M: Any) -> dict[str, Any]:
        return {
            "g_triplets_per_anchor": 3,
            "metric_alone_epochs": 1,
            "g_alone_epochs": 1,
            "loss_funcs": {
                "metric_loss": L.TripletMarginLoss(0.2),
                "classifier_loss": nn.CrossEntropyLoss(),
                "synth_loss": L.TripletMarginLoss(0.2),
                "g_adv_loss": L.TripletMarginLoss(0.1),
            },
            "loss_weights": dict.fromkeys(
                ("metric_loss", "classifier_loss", "synth_loss", "g_adv_loss", "g_hard_loss", "g_reg_loss"), 1.0
            ),
        }


def test_the_phases_of_the_generator() -> None:
    states: list[dict[str, dict[str, Tensor]]] = []

    def remember(trainer: Any) -> None:
        states.append({k: copy.deepcopy(dict(m.named_parameters())) for k, m in trainer.models.items()})

    trainer = trained(HOMES[0], "DeepAdversarialMetricLearning", Adversarial(), epochs=3, end_of_epoch_hook=remember)
    assert (trainer.do_both, trainer.loss_weights["synth_loss"]) == (True, 1.0)
    start = {key: dict(model.named_parameters()) for key, model in Adversarial.models().items()}
    changed = [
        {key for key in after if any(not torch.equal(after[key][name], before[key][name]) for name in after[key])}
        for before, after in zip([start, *states], states, strict=False)
    ]
    assert changed == [
        {"trunk", "embedder", "classifier"},
        {"generator"},
        {"trunk", "embedder", "classifier", "generator"},
    ]


def test_the_losses_of_the_generator_are_those_of_the_reference_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.metric.trainers import adversarial as module

    labels = torch.arange(12) % 3
    fixed = tuple(torch.tensor(i) for i in ([0, 1, 2, 3], [3, 4, 5, 6], [1, 2, 0, 4]))
    monkeypatch.setattr(module, "random_triplets", lambda labels, t_per_anchor: fixed)
    monkeypatch.setattr(
        "pytorch_metric_learning.utils.loss_and_miner_utils.get_random_triplet_indices", lambda *a, **k: fixed
    )
    found = []
    for home in HOMES:
        models = Adversarial.models()
        trainer = home[0].DeepAdversarialMetricLearning(
            models=models,
            optimizers=optimizers(models),
            batch_size=12,
            dataset=data(),
            **QUIET,
            **Adversarial()(*home[1:]),
        )
        trainer.epoch = 3
        trainer.update_loss_weights()
        torch.manual_seed(0)
        trainer.calculate_synth_loss(models["trunk"](torch.randn(12, 6)), labels)
        found.append({name: float(value) for name, value in trainer.losses.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0]["g_adv_loss"] > 0
    assert found[0]["synth_loss"] > 0


def test_a_batch_sampler_makes_the_batches() -> None:
    sampler = BatchSampler(SequentialSampler(range(48)), 12, drop_last=False)
    sizes = []
    trainer = trained(
        HOMES[0],
        "MetricLossOnly",
        Plain(),
        sampler=sampler,
        data_and_label_getter=lambda batch: (sizes.append(len(batch[0])), batch)[1],
    )
    assert sizes == [12] * 8
    assert trainer.iterations_per_epoch == 4


def test_hooks_schedulers_and_clippers_are_called() -> None:
    calls: list[Any] = []
    models = networks()
    steps = optimizers(models)
    schedulers = {
        f"trunk_scheduler_by_{when}": torch.optim.lr_scheduler.StepLR(steps[f"{part}_optimizer"], 1, gamma=0.5)
        for when, part in (("iteration", "trunk"), ("epoch", "embedder"))
    }
    trainer = trainers.MetricLossOnly(
        models,
        steps,
        16,
        {"metric_loss": losses.TripletMarginLoss()},
        data(),
        iterations_per_epoch=5,
        lr_schedulers=schedulers,
        gradient_clippers={"trunk_grad_clipper": lambda: calls.append("clip")},
        end_of_iteration_hook=lambda trainer: calls.append(trainer.get_global_iteration()),
        end_of_epoch_hook=lambda trainer: trainer.epoch < 2,
        **QUIET,
    )
    trainer.train(num_epochs=9)
    assert trainer.epoch == 2
    assert calls == [part for step in range(10) for part in ("clip", step)]
    assert steps["trunk_optimizer"].param_groups[0]["lr"] == pytest.approx(0.1 / 2**10)
    assert steps["embedder_optimizer"].param_groups[0]["lr"] == pytest.approx(0.1 / 2**2)


def test_labels_of_several_levels_are_ranked() -> None:
    labels = torch.stack([torch.arange(48) % 4, 10 + 5 * (torch.arange(48) % 2)], dim=1)
    seen = []

    def loss(embeddings: Tensor, labels: Tensor, tuples: Any) -> Tensor:
        seen.append(labels)
        return embeddings.sum()

    models = {"trunk": nn.Linear(6, 2)}
    module = nn.Module()
    module.forward = loss  # type: ignore[method-assign]
    trainer = trainers.MetricLossOnly(
        models,
        optimizers(models),
        48,
        {"metric_loss": module},
        TensorDataset(torch.randn(48, 6), labels),
        label_hierarchy_level=1,
        set_min_label_to_zero=True,
        dataset_labels=labels,
        **QUIET,
    )
    trainer.train()
    assert sorted(seen[0].tolist()) == [0] * 24 + [1] * 24
    assert isinstance(trainer.models["embedder"], nn.Identity)


def make(name: str = "MetricLossOnly", **changed: Any) -> Any:
    models = changed.pop("models", {"trunk": nn.Linear(6, 2)})
    given: dict[str, Any] = {
        "models": models,
        "optimizers": optimizers(models),
        "batch_size": 16,
        "loss_funcs": {"metric_loss": losses.TripletMarginLoss()},
        "dataset": data(),
        **QUIET,
    }
    return getattr(trainers, name)(**given | changed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: make(models={"trunks": nn.Linear(6, 2), "trunk": nn.Linear(1, 1), "head": nn.Linear(1, 1)}),
            "'trunks'",
        ),
        (lambda: make(models={"embedder": nn.Linear(6, 2)}), "models lacks the key 'trunk'"),
        (lambda: make(loss_funcs={"loss": losses.TripletMarginLoss()}), "loss_funcs has the key 'loss'; metric_loss"),
        (lambda: make(mining_funcs={"miner": miners.HDCMiner()}), "mining_funcs has the key 'miner'"),
        (lambda: make(loss_weights={"classifier_loss": 1}), "loss_weights has the key 'classifier_loss'"),
        (lambda: make(loss_weights={}), "loss_weights lacks the key 'metric_loss'"),
        (lambda: make(optimizers={"head_optimizer": None}), "optimizers has the key 'head_optimizer'"),
        (lambda: make(lr_schedulers={"trunk_scheduler": None}), "lr_schedulers has the key 'trunk_scheduler'"),
        (lambda: make(gradient_clippers={"trunk": None}), "gradient_clippers has the key 'trunk'"),
        (lambda: make(freeze_these=["head"]), "freeze_these names 'head'"),
        (lambda: make("DeepAdversarialMetricLearning"), "lacks the key 'generator'"),
        (
            lambda: trained(
                HOMES[0],
                "DeepAdversarialMetricLearning",
                Adversarial(),
                loss_funcs=Adversarial()(losses, miners)["loss_funcs"] | {"g_adv_loss": losses.ContrastiveLoss()},
            ),
            "g_adv_loss is a ContrastiveLoss",
        ),
        (lambda: make("TwoStreamMetricLoss", mining_funcs={"subset_batch_miner": None}), "tuple_miner"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unknown_and_missing_keys_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(AssertionError, match=message):
        call()


def test_what_is_odd_but_works_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(optimizers={})
        make(freeze_these=["trunk"])
    assert "optimizers is empty" in caplog.text
    assert "optimizers lacks 'trunk_optimizer'" in caplog.text
    assert "trunk has an optimizer, but is frozen" in caplog.text


def test_a_data_set_smaller_than_a_batch_is_named() -> None:
    with pytest.raises(ValueError, match="smaller than a batch of 100"):
        make(batch_size=100).train()
    with pytest.raises(ValueError, match="embeddings have the width 2"):
        make(
            "CascadedEmbeddings", embedding_sizes=[2, 2], loss_funcs={"metric_loss_0": losses.TripletMarginLoss()}
        ).train()
    with pytest.raises(NotImplementedError, match="how its losses"):
        make("BaseTrainer").train()


def test_losses_are_weighted_and_summed() -> None:
    tracker = LossTracker(["a", "b", "total_loss"])
    tracker.losses |= {"a": torch.tensor(2.0), "b": 3}
    tracker.update({"a": 0.5})
    assert tracker.losses == {"a": 1.0, "b": 3, "total_loss": 4.0}
    assert tracker.loss_weights["a"] == 0.5
