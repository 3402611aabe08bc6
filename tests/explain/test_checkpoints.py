"""TorchRay's classifiers: keys, channels, architecture."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from saccade.explain.checkpoints import MEAN, convert, from_state, normalise, torchray_resnet50, torchray_vgg16


def authors_vgg(classes: int) -> dict[str, Tensor]:
    """The authors' keys and shapes; the large head is made of views, so that it costs nothing."""
    state = OrderedDict()
    with torch.device("meta"):
        shapes = torchray_vgg16(classes).features.state_dict()
    for key, value in shapes.items():
        state[f"features.{key}"] = torch.randn(value.shape)
    for index, shape in ((0, (4096, 25088)), (2, (4096, 4096)), (4, (classes, 4096))):
        state[f"classifier.{index}.weight"] = torch.randn(1).expand(shape)
        state[f"classifier.{index}.bias"] = torch.randn(shape[0])
    return state


def authors_resnet(classes: int) -> dict[str, Tensor]:
    """Batch norms in pairs, downsampling one level deeper, the head as a convolution or a matrix."""
    state = OrderedDict()
    for key, value in torchray_resnet50(classes).state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if ".bn" in key or key.startswith("bn1") or "downsample.1" in key:
            head, _, leaf = key.rpartition(".")
            key = f"{head}.{0 if leaf.startswith('running') else 1}.{leaf}"
        elif "downsample.0" in key:
            key = key.replace("downsample.0", "downsample.0.0")
        state[key] = torch.rand(value.shape) + 0.5
    state["fc.weight"] = state["fc.weight"].flatten(1)
    return state


def test_vgg_keys_shapes_and_channel_order() -> None:
    theirs = authors_vgg(20)
    ours = convert(theirs)
    assert torch.equal(ours["features.0.weight"], theirs["features.0.weight"].flip(1))
    assert torch.equal(ours["features.2.weight"], theirs["features.2.weight"])
    assert ours["classifier.0.weight"].shape == (4096, 512, 7, 7)
    assert ours["classifier.6.weight"].shape == (20, 4096, 1, 1)
    with torch.device("meta"):
        assert set(ours) == set(torchray_vgg16(20).state_dict())


def test_resnet_keys_and_output() -> None:
    theirs = authors_resnet(80)
    ours = convert(theirs)
    assert torch.equal(ours["conv1.weight"], theirs["conv1.weight"].flip(1))
    assert torch.equal(ours["layer2.0.downsample.1.running_var"], theirs["layer2.0.downsample.1.0.running_var"])
    assert torch.equal(ours["layer2.0.bn3.weight"], theirs["layer2.0.bn3.1.weight"])
    model = from_state(ours)
    assert model(torch.zeros(1, 3, 64, 80)).shape == (1, 80, 1, 1)
    assert torchray_resnet50(5, sliding_pool=True).eval()(torch.zeros(1, 3, 224, 256)).shape[2:] == (1, 2)


def test_architecture_changes() -> None:
    with torch.device("meta"):
        vgg = torchray_vgg16(3)
    assert all(pool.ceil_mode for pool in vgg.modules() if isinstance(pool, nn.MaxPool2d))
    resnet = torchray_resnet50(3)
    assert resnet.conv1.bias is not None
    assert (resnet.maxpool.padding, resnet.maxpool.ceil_mode) == (0, True)
    for layer in (resnet.layer2, resnet.layer3, resnet.layer4):
        assert layer[0].conv1.stride == (2, 2)
        assert layer[0].conv2.stride == (1, 1)
    assert resnet.layer1[0].conv1.stride == (1, 1)


def test_missing_and_extra_keys_are_listed() -> None:
    state = authors_resnet(20)
    del state["layer3.1.conv2.weight"]
    with pytest.raises(ValueError, match=r"layer3\.1\.conv2\.weight is missing"):
        convert(state)
    with pytest.raises(ValueError, match=r"1 key\(s\) that are not known here: rubbish"):
        convert({**authors_resnet(20), "rubbish": torch.zeros(1)})
    with pytest.raises(ValueError, match="no bias of its last layer"):
        convert({})
    wrong = authors_resnet(20)
    wrong["conv1.weight"] = wrong["conv1.weight"][:, :, :3, :3]
    with pytest.raises(ValueError, match=r"conv1\.weight is \(64, 3, 3, 3\), wanted \(64, 3, 7, 7\)"):
        convert(wrong)
    with pytest.raises(ValueError, match="neither"):
        from_state({})


def test_normalisation() -> None:
    image = torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert normalise(image).abs().max() < 1e-4
    assert normalise(torch.ones(3, 1, 1))[0].item() == pytest.approx(255 - 123.68, abs=1e-3)
