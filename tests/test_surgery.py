"""Surgery by name: on torchvision's, timm's and own models, reversible, with keys kept."""

import copy
import io

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from saccade.surgery import (
    Inserted,
    Probe,
    edit_output,
    find_layers,
    frozen,
    get_module,
    insert_after,
    insert_before,
    linear_to_conv,
    map_modules,
    recalibrate_bn,
    replace_module,
)

EXAMPLE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Residual, with functional in-place ReLU and a tuple output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.pair = Pair()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x = F.relu(x, inplace=True)
        kept, gate = self.pair(x)
        kept += gate
        return self.head(kept.mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.sigmoid()


@pytest.fixture
def resnet() -> nn.Module:
    return resnet18(weights=None, num_classes=7).eval()


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_get_module_names_the_closest(resnet: nn.Module) -> None:
    assert get_module(resnet, "") is resnet
    assert get_module(resnet, "layer3.0.conv2") is resnet.layer3[0].conv2
    with pytest.raises(ValueError, match=r"ResNet has no layer 'layer3\.0\.conv9'; near it: layer3\.0\.conv"):
        get_module(resnet, "layer3.0.conv9")
    with pytest.raises(ValueError, match="no submodules"):
        get_module(nn.ReLU(), "x")


def test_find_layers_in_definition_order(resnet: nn.Module) -> None:
    convs = find_layers(resnet, nn.Conv2d)
    assert list(convs)[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert set(find_layers(resnet, (nn.Conv2d, nn.Linear))) == {*convs, "fc"}
    strided = find_layers(resnet, lambda module: getattr(module, "stride", 1) == (2, 2))
    assert "layer2.0.downsample.0" in strided
    assert "layer1.0.conv1" not in strided


@pytest.mark.parametrize("cut", [insert_after, insert_before])
@pytest.mark.parametrize("make", [lambda: resnet18(weights=None), lambda: timm.create_model("resnet18")])
def test_insert_keeps_keys_outputs_and_undoes(cut, make) -> None:
    model = make().eval()
    before = model(EXAMPLE)
    state = copy.deepcopy(model.state_dict())
    channels = 128 if cut is insert_after else 64
    block = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(block.weight)

    undo = cut(model, "layer2", block, example=EXAMPLE)

    assert torch.allclose(model(EXAMPLE), before, atol=1e-5)
    assert set(model.state_dict()) == {*state, "layer2.inserted.weight"}
    assert model.layer2[0].conv1.weight.shape == state["layer2.0.conv1.weight"].shape
    assert get_module(model, "layer2.0.conv1") is model.layer2[0].conv1
    missing = model.load_state_dict(state, strict=False)
    assert missing.missing_keys == ["layer2.inserted.weight"]
    assert not missing.unexpected_keys
    undo()
    assert not find_layers(model, Inserted)
    assert torch.equal(model(EXAMPLE), before)
    assert list(model.state_dict()) == list(state)


def test_cut_model_survives_state_dict_and_torch_save(resnet: nn.Module) -> None:
    insert_after(resnet, "layer2", nn.Conv2d(128, 128, 3, padding=1), example=EXAMPLE)
    insert_after(resnet, "layer2", nn.BatchNorm2d(128), example=EXAMPLE, as_name="norm")
    expected = resnet(EXAMPLE)

    twin = resnet18(weights=None, num_classes=7).eval()
    insert_after(twin, "layer2", nn.Conv2d(128, 128, 3, padding=1))
    insert_after(twin, "layer2", nn.BatchNorm2d(128), as_name="norm")
    twin.load_state_dict(resnet.state_dict())
    assert torch.equal(twin(EXAMPLE), expected)

    file = io.BytesIO()
    torch.save(resnet, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(EXAMPLE), expected)
    assert list(loaded.state_dict()) == list(resnet.state_dict())
    assert torch.equal(copy.deepcopy(resnet)(EXAMPLE), expected)


def test_inserted_block_trains_and_compiles(resnet: nn.Module) -> None:
    block = nn.Conv2d(64, 64, 1)
    with insert_after(resnet, "layer1", block, example=EXAMPLE):
        resnet(EXAMPLE).sum().backward()
        assert block.weight.grad is not None
        compiled = torch.compile(resnet, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(EXAMPLE), resnet(EXAMPLE), atol=1e-5)
        exported = torch.export.export(resnet, (EXAMPLE,))
        assert torch.allclose(exported.module()(EXAMPLE), resnet(EXAMPLE), atol=1e-5)
    assert not find_layers(resnet, Inserted)


def test_the_shape_check_changes_nothing(resnet: nn.Module) -> None:
    resnet.train()
    state = copy.deepcopy(resnet.state_dict())
    insert_after(resnet, "layer1", nn.BatchNorm2d(64), example=EXAMPLE)()
    assert all(torch.equal(state[key], value) for key, value in resnet.state_dict().items())
    assert all(module.training for module in resnet.modules())
    assert hook_count(resnet) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: insert_after(m, "layer2", nn.Conv2d(128, 64, 1), example=EXAMPLE),
            r"'layer2' gives \(2, 128, 4",
        ),
        (lambda m: insert_after(m, "layer2", nn.Conv2d(3, 3, 1), example=EXAMPLE), "Conv2d does not accept"),
        (lambda m: insert_before(m, "layer2", nn.Conv2d(64, 1, 1), example=EXAMPLE), r"'layer2' takes \(2, 64"),
        (lambda m: insert_after(m, "layer2", Pair(), example=EXAMPLE), "gives a tuple"),
        (lambda m: insert_after(m, "layer9", nn.Identity()), "no layer 'layer9'; near it: layer"),
        (lambda m: insert_after(m, "layer2", nn.Identity(), as_name="0"), "cannot name"),
        (lambda m: insert_after(m, "layer2.0", nn.Identity(), as_name="conv1"), "already has 'conv1'"),
        (lambda m: replace_module(m, "", nn.Identity()), "the model itself"),
        (lambda m: replace_module(m, "layer2", nn.Identity(), example=EXAMPLE), "does not fit|instead of"),
        (lambda m: replace_module(m, "fc", nn.Linear(512, 9), example=EXAMPLE), r"\(2, 9\) instead of \(2, 7\)"),
        (lambda m: map_modules(m, type(m), lambda name, old: old), "the model itself"),
        (lambda m: Probe(m, "layer7"), "no layer"),
        (lambda m: recalibrate_bn(m, []), "no batches"),
        (lambda m: recalibrate_bn(nn.Linear(2, 2), [torch.zeros(1, 2)]), "no batch norm"),
        (lambda m: linear_to_conv(nn.Linear(10, 2), 3), "no map of 3x3"),
    ],
)
def test_bad_input_changes_nothing(resnet: nn.Module, call, message: str) -> None:
    before = copy.deepcopy(resnet.state_dict())
    with pytest.raises(ValueError, match=message):
        call(resnet)
    assert list(resnet.state_dict()) == list(before)
    assert hook_count(resnet) == 0
    assert not find_layers(resnet, Inserted)


def test_bad_where(unchecked: None, resnet: nn.Module) -> None:
    with pytest.raises(ValueError, match="where='both'"):
        Probe(resnet, "layer1", where="both")


def test_replace_inside_containers() -> None:
    model = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(2, 2), nn.ReLU()]), "b": nn.Sequential(nn.Tanh())})
    undo = replace_module(model, "a.1", nn.GELU())
    replace_module(model, "b.0", nn.SiLU())
    assert isinstance(model["a"][1], nn.GELU)
    assert isinstance(model["b"][0], nn.SiLU)
    undo()
    undo()
    assert isinstance(model["a"][1], nn.ReLU)


def test_replace_below_an_inserted_block(resnet: nn.Module) -> None:
    insert_after(resnet, "layer2", nn.Identity())
    replace_module(resnet, "layer2.0", nn.Identity())
    assert isinstance(resnet.layer2.host[0], nn.Identity)
    assert "layer2.1.conv1.weight" in resnet.state_dict()


def test_map_modules_replaces_shared_modules_once(resnet: nn.Module) -> None:
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Sequential(relu), nn.ReLU())
    seen: list[str] = []
    undo = map_modules(model, nn.ReLU, lambda name, old: seen.append(name) or nn.GELU())
    assert seen == ["0", "2"]
    assert model[0] is model[1][0]
    undo()
    assert model[0] is relu
    assert model[1][0] is relu
    with map_modules(resnet, nn.BatchNorm2d, lambda name, old: nn.GroupNorm(1, old.num_features)):
        assert not find_layers(resnet, nn.BatchNorm2d)
    assert "bn1" in find_layers(resnet, nn.BatchNorm2d)


@pytest.mark.parametrize("where", ["input", "output"])
def test_probe_reads_gradients_of_a_frozen_model(resnet: nn.Module, where: str) -> None:
    with frozen(resnet), Probe(resnet, ["layer3", ""], where=where) as probe:
        resnet(EXAMPLE)[:, 3].sum().backward()
    assert hook_count(resnet) == 0
    assert all(parameter.requires_grad for parameter in resnet.parameters())

    image = EXAMPLE.clone().requires_grad_()
    x = resnet.layer2(resnet.layer1(resnet.maxpool(resnet.bn1(resnet.conv1(image)).relu())))
    x = resnet.layer3(x) if where == "output" else x
    x.retain_grad()
    y = resnet.layer4(x if where == "output" else resnet.layer3(x))
    resnet.fc(y.mean((2, 3)))[:, 3].sum().backward()
    assert torch.allclose(probe["layer3"].activation, x, atol=1e-5)
    assert torch.allclose(probe["layer3"].gradient, x.grad, atol=1e-6)
    if where == "input":
        assert torch.allclose(probe[""].gradient, image.grad, atol=1e-6)
    assert EXAMPLE.grad is None
    assert not EXAMPLE.requires_grad


def test_probe_on_in_place_operations_and_tuples() -> None:
    model = Functional().eval()
    with Probe(model, ["bn", "pair", "conv"]) as probe:
        model(EXAMPLE).sum().backward()
    x = model.bn(model.conv(EXAMPLE))
    assert torch.allclose(probe["bn"].activation, x)  # the ReLU behind it works in place
    assert len(probe["pair"].tensors) == 2
    assert torch.allclose(probe["pair"].tensors[1], x.relu().sigmoid())
    assert all(tensor.grad is not None for tensor in probe["pair"].tensors)
    assert probe["bn"].gradient is not None


def test_probe_restores_in_place_flags_and_hooks_after_an_error(resnet: nn.Module) -> None:
    flags = [module.inplace for module in find_layers(resnet, nn.ReLU).values()]
    assert all(flags)
    probe = Probe(resnet, "layer1")
    with pytest.raises(RuntimeError), probe:  # noqa: PT012
        assert not any(module.inplace for module in find_layers(resnet, nn.ReLU).values())
        resnet(torch.zeros(1, 5, 8, 8))
    assert [module.inplace for module in find_layers(resnet, nn.ReLU).values()] == flags
    assert hook_count(resnet) == 0
    with pytest.raises(ValueError, match="was not run"):
        probe["layer1"]
    with pytest.raises(ValueError, match="does not watch 'fc'"):
        probe["fc"]


def test_probe_is_reentrant_and_nests(resnet: nn.Module) -> None:
    outer = Probe(resnet, "layer1")
    with outer, outer, Probe(resnet, "layer1", grad=False) as inner:
        resnet(EXAMPLE)
    assert hook_count(resnet) == 0
    assert all(module.inplace for module in find_layers(resnet, nn.ReLU).values())
    assert torch.equal(outer["layer1"].activation, inner["layer1"].activation)
    assert not inner["layer1"].activation.requires_grad


def test_edit_output_and_its_end(resnet: nn.Module) -> None:
    before = resnet(EXAMPLE)
    with edit_output(resnet, "avgpool", torch.zeros_like):
        assert torch.allclose(resnet(EXAMPLE), resnet.fc.bias.expand(2, -1))
    assert torch.equal(resnet(EXAMPLE), before)
    with pytest.raises(RuntimeError), edit_output(resnet, "avgpool", torch.zeros_like):
        raise RuntimeError
    assert hook_count(resnet) == 0


def test_frozen_restores_each_flag(resnet: nn.Module) -> None:
    resnet.train()
    resnet.layer1.eval()
    resnet.fc.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen(resnet):  # noqa: PT012
        assert not resnet.training
        assert not any(parameter.requires_grad for parameter in resnet.parameters())
        raise KeyError
    assert resnet.training
    assert not resnet.layer1.training
    assert resnet.fc.weight.requires_grad
    assert not resnet.fc.bias.requires_grad


def test_recalibrate_bn_is_the_plain_mean_over_batches() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3, momentum=0.3)).train()
    batches = [torch.randn(8, 3, 4, 4) * (i + 1) for i in range(4)]
    assert recalibrate_bn(model, batches) == 4
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    var = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(model[1].running_mean, mean, atol=1e-6)
    assert torch.allclose(model[1].running_var, var, rtol=1e-5)
    assert model[1].momentum == 0.3
    assert model[1].training


def test_linear_to_conv_slides() -> None:
    linear = nn.Linear(6 * 3 * 2, 5)
    conv = linear_to_conv(linear, (3, 2))
    maps = torch.randn(2, 6, 4, 3)
    out = conv(maps)
    assert out.shape == (2, 5, 2, 2)
    assert torch.allclose(out[:, :, 1, 0], linear(maps[:, :, 1:4, 0:2].flatten(1)), atol=1e-6)
