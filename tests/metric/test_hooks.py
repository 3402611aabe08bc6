"""Hooks and records: what is kept of a training, and going on with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from saccade.metric import hooks
from saccade.metric.accuracy import AccuracyCalculator
from saccade.metric.losses import TripletMarginLoss
from saccade.metric.miners import TripletMarginMiner
from saccade.metric.recording import RecordKeeper
from saccade.metric.testers import GlobalEmbeddingSpaceTester
from saccade.metric.trainers import MetricLossOnly

MEASURES = ("precision_at_1", "mean_average_precision_at_r")


def data() -> TensorDataset:
    return TensorDataset(torch.randn(32, 4), torch.arange(32) % 4)


def session(folder: Path, figures: list[float] | None = None, **options: Any) -> tuple[Any, Any, Any]:
    """Container, tester and trainer; with `figures`, the primary metric of each epoch is what they say."""

    class Told(AccuracyCalculator):
        def calculate_mean_average_precision_at_r(self, **kwargs: Any) -> Any:
            return figures.pop(0) if figures else super().calculate_mean_average_precision_at_r(**kwargs)

    keeper, _, _ = hooks.get_record_keeper(folder / "records")
    container = hooks.get_hook_container(keeper, log_freq=1)
    tester = GlobalEmbeddingSpaceTester(
        end_of_testing_hook=container.end_of_testing_hook,
        accuracy_calculator=Told(include=MEASURES, device="cpu"),
        dataloader_num_workers=0,
        data_device="cpu",
    )
    trunk = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(trunk.parameters(), lr=0.01)
    trainer = MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": optimizer},
        16,
        {"metric_loss": TripletMarginLoss(collect_stats=True)},
        data(),
        mining_funcs={"tuple_miner": TripletMarginMiner(collect_stats=True)},
        lr_schedulers={"trunk_scheduler_by_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max")},
        dataloader_num_workers=0,
        data_device="cpu",
        end_of_iteration_hook=container.end_of_iteration_hook,
        end_of_epoch_hook=container.end_of_epoch_hook(tester, {"val": data()}, folder / "models", **options),
    )
    return container, tester, trainer


def saved(folder: Path) -> set[str]:
    return {path.name for path in (folder / "models").iterdir()}


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    container, tester, trainer = session(tmp_path, [0.2, 0.5, 0.4, 0.3])
    trainer.train(num_epochs=4)
    names = ("trunk", "embedder", "trunk_optimizer", "trunk_scheduler_by_plateau", "metric_loss", "tuple_miner")
    assert saved(tmp_path) == {f"{name}_{suffix}.pth" for name in names for suffix in ("4", "best2")}
    assert container.get_best_epoch_and_accuracy(tester, "val") == (2, 0.5)
    history = container.get_accuracy_history(tester, "val")
    assert history == {"epoch": [1, 2, 3, 4], "mean_average_precision_at_r_level0": [0.2, 0.5, 0.4, 0.3]}
    everything = container.get_accuracy_history(tester, "val", return_all_metrics=True)
    assert everything["best_epoch"] == [1, 2, 2, 2]
    assert set(everything) >= {"precision_at_1_level0", "best_accuracy"}
    assert list(container.get_accuracy_history(tester, "val", metrics=["precision_at_1"])) == [
        "epoch",
        "precision_at_1_level0",
    ]
    rows, key = container.get_accuracies_of_best_epoch(tester, "val", ignore_epoch=(2,))
    assert (rows[0]["epoch"], key) == (3, "mean_average_precision_at_r_level0")
    (row,) = container.get_accuracies_of_epoch(tester, "val", 3, select_all=False)
    assert row == {"epoch": 3, "mean_average_precision_at_r_level0": 0.4}


def test_losses_and_statistics_are_recorded(tmp_path: Path) -> None:
    container, _, trainer = session(tmp_path)
    trainer.train(num_epochs=2)
    history = container.get_loss_history()
    assert set(history) == {"metric_loss", "total_loss"}
    assert len(history["metric_loss"]) == 4
    assert list(container.get_loss_history(["total_loss"])) == ["total_loss"]
    keeper = container.record_keeper
    assert len(keeper.query("SELECT num_triplets FROM tuple_miner_TripletMarginMiner")) == 4
    assert keeper.query("SELECT lr FROM trunk_optimizer_Adam", return_dict=True)["lr"] == [0.01] * 4
    assert keeper.table_exists("metric_loss_TripletMarginLoss")
    assert keeper.table_exists("metric_loss_distance_LpDistance")
    lines = (tmp_path / "records" / "loss_histories.csv").read_text().splitlines()
    assert lines[0] == "id,metric_loss,total_loss"
    assert len(lines) == 5


def test_training_stops_where_patience_ends(tmp_path: Path) -> None:
    _, _, trainer = session(tmp_path, [0.5, 0.4, 0.3, 0.2, 0.1], patience=1)
    trainer.train(num_epochs=5)
    assert trainer.epoch == 3


def test_an_interval_leaves_epochs_out(tmp_path: Path) -> None:
    _, _, trainer = session(tmp_path, [0.1, 0.2], test_interval=2)
    trainer.train(num_epochs=5)
    assert {name for name in saved(tmp_path) if name.startswith("trunk_o") is False and "trunk" in name} == {
        "trunk_4.pth",
        "trunk_best4.pth",
        "trunk_scheduler_by_plateau_4.pth",
        "trunk_scheduler_by_plateau_best4.pth",
    }


@pytest.mark.parametrize("best", [False, True])
def test_a_training_goes_on_from_what_was_saved(tmp_path: Path, best: bool) -> None:
    _, _, trainer = session(tmp_path, [0.5, 0.4])
    trainer.train(num_epochs=2)
    container, tester, fresh = session(tmp_path, [0.3])
    epoch = container.load_latest_saved_models(fresh, tmp_path / "models", best=best)
    assert epoch == (2 if best else 3)
    same = torch.equal(fresh.models["trunk"].weight, trainer.models["trunk"].weight)
    assert same != best
    assert len(fresh.optimizers["trunk_optimizer"].state) == 2
    if not best:
        fresh.train(start_epoch=epoch, num_epochs=3)
        assert container.get_best_epoch_and_accuracy(tester, "val") == (1, 0.5)
        assert "trunk_best1.pth" in saved(tmp_path)
        assert "trunk_2.pth" not in saved(tmp_path)
    empty = tmp_path / "none"
    empty.mkdir()
    assert container.load_latest_saved_models(fresh, empty) == 1


def test_a_test_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    container, tester, trainer = session(tmp_path, [0.5])
    sets = {"val": data()}
    run = {"epoch": 0, "trunk": trainer.models["trunk"], "embedder": None}
    assert container.run_tester_separately(tester, sets, **run)
    container.record_keeper.save_records()
    assert not container.run_tester_separately(tester, sets, **run)
    assert container.run_tester_separately(tester, sets, **run, skip_eval_if_already_done=False)


def test_models_are_not_saved_where_that_is_not_asked_for(tmp_path: Path) -> None:
    container, _, trainer = session(tmp_path)
    container.do_save_models = False
    trainer.train()
    assert saved(tmp_path) == set()


def test_tensorboard_gets_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    keeper, _, writer = hooks.get_record_keeper(tmp_path / "records", tmp_path / "board")
    keeper.update_records({"metric_loss": torch.tensor(0.5), "words": [1, 2]}, 3, parent_name="loss_histories")
    keeper.save_records()
    writer.close()
    assert list((tmp_path / "board").iterdir())
    assert keeper.query("SELECT * FROM loss_histories", return_dict=True) == {"id": [3], "metric_loss": [0.5]}


def test_records_are_continued(tmp_path: Path) -> None:
    for epoch in range(2):
        keeper = RecordKeeper(tmp_path)
        keeper.update_records({"epoch": epoch, f"only {epoch}": 1.0}, epoch, parent_name="a table")
        keeper.save_records()
    rows = RecordKeeper(tmp_path).query("SELECT * FROM a_table", return_dict=True)
    assert rows == {"id": [0, 1], "epoch": [0, 1], "only_0": [1.0, None], "only_1": [None, 1.0]}


def test_without_a_keeper_hooks_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    container = hooks.get_hook_container(None)
    assert container.end_of_iteration_hook is None
    assert container.end_of_epoch_hook(1, 2) is None
    assert "no record keeper" in caplog.text


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda folder: hooks.HookContainer(RecordKeeper(folder), primary_metric="recall").end_of_epoch_hook(
                session(folder)[1], {}, folder
            ),
            ValueError,
            "primary_metric is 'recall'; the tester measures",
        ),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, call: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
