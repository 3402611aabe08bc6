"""SELFY in use: the authors' checkpoints, training, recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.action.checkpoints import convert_selfy, convert_selfy_block
from saccade.action.datamodule import ActionData
from saccade.action.metrics import MeanClassAccuracy
from saccade.action.selfy import SELFYBlock, selfynet
from saccade.action.task import ActionClassification
from saccade.checkpoints import load_strict, read_state
from saccade.nn.video_resnet import VideoResNet
from saccade.training.cli import run
from saccade.training.recipes import recipes
from tests.action import layouts


def test_image_weights_leave_the_block_at_zero() -> None:
    from torchvision.models import resnet18

    model = selfynet("resnet18", num_classes=5)
    assert model.slot.integration.upsample[1].weight.abs().max() == 0
    model.load_torchvision(resnet18(weights=None).state_dict())
    assert model.slot.integration.upsample[1].weight.abs().max() == 0


AUTHORS = {
    "transformation.": "stss_transformation.",
    "extraction.layers.0.conv": "stss_extraction.conv0.0",
    "integration.fuse.0": "stss_integration.conv3_fuse.1",
    "integration.fuse.1": "stss_integration.conv3_fuse.2",
    "integration.upsample.": "stss_integration.upsample.",
}


def official(model: VideoResNet, dropout: bool) -> dict[str, Tensor]:
    """Our weights under the keys of the authors' training files."""
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith("fc."):
            value = value[..., None] if key == "fc.weight" else value
            state[f"module.new_{key}" if dropout else f"module.base_model.{key.replace('fc', 'fc1')}"] = value
            continue
        if key.startswith("slot."):
            key = key.removeprefix("slot.")
            if value.ndim == 4 and not key.startswith("transformation."):
                value = value.unsqueeze(2)
            for ours, theirs in AUTHORS.items():
                key = key.replace(ours, theirs)
            for n in range(4):
                key = key.replace(f"extraction.layers.{n}.conv.", f"stss_extraction.conv{n}.0.")
                key = key.replace(f"extraction.layers.{n}.norm.", f"stss_extraction.conv{n}.1.")
                key = key.replace(f"integration.spatial.{n}.", f"stss_integration.conv{n}.")
            key = f"selfy.{key}"
        state[f"module.base_model.{key}"] = value
    return state


@pytest.mark.parametrize("dropout", [True, False])
def test_both_forms_of_the_authors_training_files_convert(dropout: bool, tmp_path: Path) -> None:
    model = selfynet("resnet18", num_classes=5)
    wrapped = {"epoch": 3, "arch": "resnet18", "state_dict": official(model, dropout), "best_prec1": 1.0}
    torch.save(wrapped, tmp_path / "authors.pth.tar")
    other = selfynet("resnet18", num_classes=5)
    load_strict(other, convert_selfy(read_state(tmp_path / "authors.pth.tar")))
    torch.testing.assert_close(other.state_dict(), model.state_dict())


def test_the_converter_is_strict() -> None:
    state = official(selfynet("resnet18", num_classes=5), True)
    with pytest.raises(ValueError, match=r"not known here: module\.base_model\.selfy\.stss_new"):
        convert_selfy({**state, "module.base_model.selfy.stss_new.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="two keys"):
        convert_selfy({**state, "module.base_model.fc1.bias": torch.zeros(5)})
    with pytest.raises(ValueError, match="not known here: conv9"):
        convert_selfy_block({"conv9": torch.zeros(1)})
    del state["module.base_model.selfy.stss_extraction.conv0.0.weight"]
    with pytest.raises(ValueError, match=r"missing: slot\.extraction\.layers\.0\.conv\.weight"):
        load_strict(selfynet("resnet18", num_classes=5), convert_selfy(state))


def test_norms_and_biases_do_not_decay_and_the_classifiers_bias_learns_twice_as_fast() -> None:
    task = ActionClassification(
        selfynet("resnet18", num_classes=5),
        5,
        classifier_lr=(1.0, 2.0),
        decay_norms=False,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.5),
    )
    groups = task.configure_optimizers().param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(task.parameters()))
    for group in groups:
        vectors = {parameter.ndim <= 1 for parameter in group["params"]}
        assert vectors == {group["weight_decay"] == 0}
    fast = [group for group in groups if group["lr"] == 0.2]
    assert [[tuple(p.shape) for p in group["params"]] for group in fast] == [[(5,)]]


def test_mean_class_accuracy_counts_classes_alike() -> None:
    torch.manual_seed(0)
    label = torch.tensor([0] * 90 + [1] * 9 + [3])
    probabilities = torch.rand(100, 5)
    accuracy = MeanClassAccuracy(5)
    for rows in torch.arange(100).split(30):
        accuracy.update(probabilities[rows], label[rows])
    shares = [float((probabilities[label == k].argmax(1) == k).double().mean()) for k in (0, 1, 3)]
    assert abs(float(accuracy.compute()) - sum(shares) / 3) < 1e-6
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert float(MeanClassAccuracy(3).compute()) == 0


LAYOUTS = {
    **layouts.LAYOUTS,
    "diving48": layouts.diving48,
    "gym99": layouts.finegym,
    "gym288": lambda root: layouts.finegym(root, classes=288),
}
OURS = sorted(name.removeprefix("action/selfy-") for name in recipes() if name.startswith("action/selfy-"))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", OURS)
def test_recipes_run_on_a_miniature(tmp_path: Path, layout: str) -> None:
    root = LAYOUTS[layout](tmp_path / "data")
    backbone = "--model.init_args.backbone.init_args"
    arguments = [
        "--config", f"action/selfy-{layout}", f"--folder={tmp_path}", f"--data.init_args.root={root}",
        "--model.init_args.pretrained=null", f"{backbone}.block=basic", f"{backbone}.layers=[1,1]",
        f"{backbone}.stem_width=8", f"{backbone}.stage_widths=[8,16]", f"{backbone}.slot.init_args.channels=16",
        f"{backbone}.slot.init_args.hidden_channels=4", f'{backbone}.input_spec={{"size":32,"frames":4}}',
        "--data.init_args.size=32", "--data.init_args.frames=4", "--data.init_args.batch_size=2",
        "--data.init_args.num_workers=0", "--trainer.accelerator=cpu", "--trainer.fast_dev_run=true",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    ]  # fmt: skip
    cli = run("fit", arguments)
    assert isinstance(cli.model.backbone.slot, SELFYBlock)
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert 0 <= float(cli.trainer.callback_metrics["val/mean_class"]) <= 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
def test_validation_counts_the_last_batch(tmp_path: Path) -> None:
    data = ActionData("ssv1", str(layouts.ssv1(tmp_path / "data")), frames=2, size=32, resize=None, batch_size=2)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert [len(batch["label"]) for batch in loader] == [2, 1]


def test_there_is_a_recipe_for_each_set_of_the_paper() -> None:
    assert OURS == ["diving48", "gym288", "gym99", "kinetics", "ssv1", "ssv2"]
    for layout in OURS:
        head = recipes()[f"action/selfy-{layout}"].read_text().split("model:")[0]
        for word in ("Expected:", "Cost:", "Command:", "Layout:", "Start:"):
            assert word in head, f"{layout} lacks {word}"
