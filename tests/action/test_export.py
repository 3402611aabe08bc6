"""From a real layout to a network for programs without torch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.action import SELFYBlock, gta_resnet
from saccade.cli import main
from saccade.nn.r2plus1d import R2Plus1D
from saccade.nn.video_resnet import VideoResNet
from saccade.nn.x3d import X3D
from saccade.training.cli import load_task, run
from saccade.training.export import export_onnx, run_onnx
from tests.action import layouts
from tests.action.test_recipes import arguments

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tsm": lambda: VideoResNet(5, "basic", (1, 1), stem_width=8, stage_widths=(8, 16), shift=4),
    "selfy": lambda: VideoResNet(
        5,
        "basic",
        (1, 1),
        stem_width=8,
        stage_widths=(8, 16),
        slot=SELFYBlock(16, 4, (3, 5, 5), (4, 4), (4, 4), extraction_strides=(2, 1)),
    ),
    "r2plus1d": lambda: R2Plus1D(5, layers=(1, 1), stage_widths=(8, 16)),
    "gta": lambda: gta_resnet("resnet18", num_classes=5, num_frames=4),
    "x3d": lambda: X3D(frames=4, num_classes=5, depths=(1, 1, 1, 1), crop=32),
}


def lively(model: nn.Module) -> nn.Module:
    """With statistics that a training leaves."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_computes_the_same(name: str, tmp_path: Path) -> None:
    model = lively(NETWORKS[name]())
    written = export_onnx(model, torch.randn(1, 3, 4, 32, 32), tmp_path / "model.onnx")
    assert written.inputs == ("batch", 3, 4, 32, 32)
    assert written.outputs == ("batch", 5)
    x = torch.randn(5, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(written.path, x), model.eval()(x), atol=1e-4, rtol=1e-4)


def test_a_network_that_knows_its_batch_is_exported_with_it(tmp_path: Path) -> None:
    class OfTwo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = NETWORKS["tsm"]()

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return self.inner(clips.reshape(2, *clips.shape[1:]))

    model = lively(OfTwo())
    written = export_onnx(model, torch.randn(2, 3, 4, 32, 32), tmp_path / "model.onnx")
    assert written.inputs == (2, 3, 4, 32, 32)


@pytest.mark.parametrize(("layout", "classes"), [("ssv2", 174), ("ucf101", 101)])
def test_training_testing_with_thirty_views_and_export(layout: str, classes: int, tmp_path: Path) -> None:
    root = layouts.LAYOUTS[layout](tmp_path / "data")
    words = arguments(f"motion-squeeze-{layout}", root, tmp_path / "run")
    more = ["--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0", "--data.init_args.sampling=dense"]
    views = ["--data.init_args.test_clips=10", "--data.init_args.test_crops=3"]
    run("fit", [*words, *more])
    checkpoint = next((tmp_path / "run").rglob("last.ckpt"))
    tested = run("test", [*words, *more, *views, f"--ckpt_path={checkpoint}"])
    assert 0 <= float(tested.trainer.callback_metrics["test/top1"]) <= 1
    assert tested.datamodule.test_set()[0]["video"].shape[0] == 30
    out = tmp_path / "model.onnx"
    assert main(["export", str(checkpoint), "--out", str(out), "--json"]) == 0
    clips = tested.datamodule.test_set()[0]["video"]
    with torch.no_grad():
        wanted = load_task(checkpoint).backbone(clips)
    assert wanted.shape == (30, classes)
    torch.testing.assert_close(run_onnx(out, clips), wanted, atol=1e-4, rtol=1e-4)


def test_bad_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["export", str(tmp_path / "none.ckpt")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    model, x = nn.Linear(3, 2), torch.randn(1, 3)
    with pytest.raises(RuntimeError, match="differs by"):
        export_onnx(_Different(), x, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    monkeypatch.setattr("saccade.training.export.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="the extra `onnx`"):
        export_onnx(model, x, tmp_path / "model.onnx")


class _Different(nn.Module):
    """Computes something else when it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if torch.compiler.is_exporting() else x
