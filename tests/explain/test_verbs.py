"""`saccade explain` as a person uses it: offline, on photographs and on what is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from saccade.checkpoints import write_state
from saccade.explain.classifiers import load_classifier
from saccade.explain.verbs import explain


def small_model(num_classes: int = 4) -> nn.Module:
    """A model of one's own."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )  # fmt: skip


OWN = f"{__name__}:small_model"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)


@pytest.mark.parametrize("method", ["grad-cam", "gradient", "guided_backprop", "deconvnet", "linear-approx",
                                    "excitation-backprop", "contrastive-excitation-backprop", "rise",
                                    "extremal-perturbation"])  # fmt: skip
def test_every_method_writes_maps(method: str, photo: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    found = explain(
        photo, OWN, weights="none", method=method, out=tmp_path / "out", size=48, steps=4, masks=40,
        progress=shares.append,
    )  # fmt: skip
    summary = json.loads(Path(found.files["summary"]).read_text())
    assert summary["method"] == method.replace("-", "_")
    assert summary["target"] == found.top[0][0]
    assert found.size == (48, 72)
    for kind in ("overlay", "map", "raw"):
        assert Image.open(found.files[kind]).size == (90, 60)
    assert 0 <= found.peak[0] < 90
    if method == "extremal-perturbation":
        assert summary["details"]["areas"] == [0.05, 0.1, 0.2]
        assert Path(found.files["areas"]).exists()
        assert shares[-1] == 1.0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "resnet10t", "vit_tiny_patch16_224"])
def test_torchvision_and_timm(name: str, photo: Path, tmp_path: Path) -> None:
    method = "gradient" if name.startswith("vit") else "grad_cam"
    found = explain(photo, name, weights="none", method=method, target=5, out=tmp_path)
    assert found.target == 5
    assert found.size == ((224, 224) if name.startswith("vit") else (224, 336))


def test_local_checkpoint_with_its_own_number_of_classes(photo: Path, tmp_path: Path) -> None:
    model = small_model(7)
    nn.init.constant_(model[6].bias, 3.0)
    write_state(model.state_dict(), tmp_path / "own.safetensors")
    loaded = load_classifier(OWN, str(tmp_path / "own.safetensors"))
    assert torch.equal(loaded.model[6].bias, model[6].bias)
    found = explain(photo, OWN, weights=str(tmp_path / "own.safetensors"), out=tmp_path, size=40)
    assert len(found.top) == 5


def test_same_result_twice(photo: Path, tmp_path: Path) -> None:
    first, second = (
        explain(photo, OWN, weights="none", method="rise", masks=20, out=tmp_path / name, size=40) for name in "ab"
    )
    assert Path(first.files["raw"]).read_bytes() == Path(second.files["raw"]).read_bytes()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"image": "notes.txt"}, ValueError, "is not a readable image"),
        ({"image": "none.png"}, FileNotFoundError, "no image at"),
        ({"image": "cut.png"}, ValueError, "is not a readable image"),
        ({"model": "resnet81"}, ValueError, "no classifier 'resnet81'; near it: .*resnet"),
        ({"model": "os:nothing"}, ValueError, "no model at 'os:nothing'"),
        ({"method": "grad-can"}, ValueError, "unknown method 'grad-can'; near it: grad-cam"),
        ({"method": "???"}, ValueError, "unknown method"),
        ({"layer": "8"}, ValueError, "no layer '8'"),
        ({"target": 4}, ValueError, "target 4 is out of range: .* classes 0 to 3"),
        ({"target": -1}, ValueError, "target -1"),
        ({"size": 3}, ValueError, "size 3"),
        ({"weights": "gone.pth"}, FileNotFoundError, "no checkpoint at"),
        ({"weights": "notes.txt"}, ValueError, "refused|not a readable"),
        (
            {"model": "resnet18", "weights": "default"},
            ValueError,
            "to be downloaded .*45 MB.* add --download",
        ),
        ({"model": "resnet10t", "weights": "default"}, ValueError, "would have to be downloaded"),
        ({"model": "torchray_vgg16", "weights": "default"}, ValueError, "no published weights to load by name"),
        ({"out": "notes.txt"}, OSError, "cannot write to"),
    ],
)
def test_bad_input(change: dict, kind: type, message: str, photo: Path, tmp_path: Path, offline: None) -> None:
    (tmp_path / "notes.txt").write_text("no image, no folder")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:3000])
    settings = {"image": photo, "model": OWN, "weights": "none", "out": tmp_path / "out", "size": 40, **change}
    for key in ("image", "out", "weights"):
        if key in change and change[key] != "default":
            settings[key] = str(tmp_path / change[key])
    with pytest.raises(kind, match=message):
        explain(settings.pop("image"), settings.pop("model"), **settings)


def test_checkpoint_that_does_not_fit(photo: Path, tmp_path: Path) -> None:
    state = small_model().state_dict()
    del state["2.bias"]
    write_state(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"1 key\(s\) missing: 2\.bias"):
        explain(photo, OWN, weights=str(tmp_path / "less.safetensors"), out=tmp_path)
