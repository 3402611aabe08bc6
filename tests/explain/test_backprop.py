"""Back-propagation methods: against captum, on functional and in-place ReLUs, and left as they were found."""

import threading

import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop, LayerGradCam, Saliency
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import explain
from saccade.explain.backward_rules import ExcitationRule, ReluRule
from tests.explain.models import WithFunctions, with_modules

IMAGE = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(5))
TARGET = [1, 3]
PEERS = {"gradient": Saliency, "guided_backprop": GuidedBackprop, "deconvnet": Deconvolution}
METHODS = ["gradient", "guided_backprop", "deconvnet", "linear_approx", "excitation_backprop"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", PEERS)
def test_captum_agrees_on_relu_modules(method: str) -> None:
    theirs = PEERS[method](with_modules()).attribute(IMAGE.clone().requires_grad_(), target=torch.tensor(TARGET))
    ours = getattr(explain, method)(with_modules(), IMAGE, TARGET)
    assert torch.allclose(ours, theirs.abs().amax(1, keepdim=True), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_captum_agrees_on_grad_cam() -> None:
    model = with_modules()
    theirs = LayerGradCam(model, model[4]).attribute(IMAGE, target=torch.tensor(TARGET), relu_attributions=True)
    assert torch.allclose(explain.grad_cam(model, IMAGE, TARGET, layer="4"), theirs, atol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_functional_and_in_place_relus_are_reached(method: str, in_place: bool) -> None:
    ours = getattr(explain, method)(WithFunctions(in_place), IMAGE, TARGET)
    assert torch.allclose(ours, getattr(explain, method)(with_modules(), IMAGE, TARGET), atol=1e-6)
    if method in ("guided_backprop", "deconvnet"):
        assert not torch.allclose(ours, explain.gradient(WithFunctions(in_place), IMAGE, TARGET), atol=1e-4)


@pytest.mark.parametrize(
    "relu",
    [
        F.relu, torch.relu, Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True),
        lambda x: F.relu(x, inplace=True), lambda x: F.relu(x, True), lambda x: x.relu_(), lambda x: torch.relu_(x),
    ],
)  # fmt: skip
def test_relu_rules(relu) -> None:
    values = torch.tensor([[-2.0, 0.0, 3.0, 4.0]])
    arriving = torch.tensor([[1.0, 1.0, -1.0, 2.0]])
    for guided, expected in ((False, [1.0, 1.0, 0.0, 2.0]), (True, [0.0, 1.0, 0.0, 2.0])):
        x = values.clone().requires_grad_()
        with ReluRule(guided=guided):
            out = relu(x * 1)
        (gradient,) = torch.autograd.grad(out, x, arriving)
        assert out.tolist() == [[0.0, 0.0, 3.0, 4.0]]
        assert gradient.tolist() == [expected]


def test_in_place_relu_changes_its_input() -> None:
    x = torch.tensor([-1.0, 2.0]) * 1
    with ReluRule(guided=True):
        F.relu(x, inplace=True)
    assert x.tolist() == [0.0, 2.0]


def test_rules_belong_to_their_thread() -> None:
    found: list[Tensor] = []

    def other() -> None:
        x = torch.tensor([1.0], requires_grad=True)
        found.append(torch.autograd.grad(x.relu(), x, torch.tensor([-1.0]))[0])

    with ReluRule(guided=True):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found[0].item() == -1.0


@pytest.mark.parametrize("method", [*METHODS, "grad_cam", "contrastive_excitation_backprop"])
def test_model_is_left_as_it_was(method: str) -> None:
    model = with_modules().train()
    model[1].inplace = True
    model[0].bias.requires_grad_(False)
    extra = {"layer": "4"} if method == "grad_cam" else {}
    if method == "contrastive_excitation_backprop":
        extra = {"layer": "1", "contrast_layer": "5"}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = IMAGE.clone()
    maps = getattr(explain, method)(model, image, TARGET, **extra)
    with pytest.raises(ValueError, match="out of range"):
        getattr(explain, method)(model, image, 99, **extra)
    assert not maps.requires_grad
    assert maps.shape[:2] == (2, 1)
    assert model.training
    assert model[1].inplace
    assert [p.requires_grad for p in model.parameters()] == [True, False, *[True] * 4]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(image, IMAGE)
    assert not image.requires_grad


def test_works_under_no_grad_and_per_item() -> None:
    model = with_modules()
    with torch.no_grad():
        maps = explain.gradient(model, IMAGE, TARGET)
    for i in range(2):
        assert torch.allclose(maps[i : i + 1], explain.gradient(model, IMAGE[i : i + 1], TARGET[i]), atol=1e-7)


def test_one_call_equals_by_hand() -> None:
    model, image = with_modules(), IMAGE[:1]
    with explain.Probe(model, "4") as probe:
        model(image)[0, 2].backward()
    activation, gradient = probe["4"].activation, probe["4"].gradient
    by_hand = (activation * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    assert torch.allclose(explain.grad_cam(model, image, 2, layer="4"), by_hand, atol=1e-7)
    cam = explain.class_activation_map(activation, gradient, reduce="elementwise")
    assert torch.allclose(explain.linear_approx(model, image, 2, layer="4"), cam, atol=1e-7)
    head = model[7].weight[2] / activation[0, 0].numel()
    plain = explain.class_activation_map(activation, head, reduce="weights", relu=True)
    assert torch.allclose(by_hand, plain, atol=1e-6)
    unit = explain.class_activation_map(activation, head, reduce="weights", normalise="minmax")
    assert (unit.min().item(), unit.max().item()) == (0.0, 1.0)


def test_pointing_gradient_weighs_positions() -> None:
    output = torch.randn(2, 3, 2, 2)
    gradient = explain.output_gradient(output, [0, 2], pointing=True)
    assert torch.allclose(gradient[1, 2].flatten(), output[1, 2].flatten().softmax(0))
    assert gradient[1, :2].abs().sum() == 0
    given = torch.randn(2, 3, 2, 2)
    assert torch.equal(explain.output_gradient(output, given), given)


# excitation backprop ------------------------------------------------------------------------------------------------


def test_excitation_of_a_linear_layer_by_hand() -> None:
    x, w = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[1.0, -1.0, 2.0], [0.5, 1.0, 0.0]])
    leaf = x.clone().requires_grad_()
    with ExcitationRule():
        out = F.linear(leaf, w, torch.tensor([7.0, 7.0]))
    assert torch.allclose(out, F.linear(x, w, torch.tensor([7.0, 7.0])))
    (shares,) = torch.autograd.grad(out, leaf, torch.tensor([[1.0, 1.0]]))
    # first unit: excited by 1*1 and 0.5*2, equal parts; second: 1*0.5 and 2*1
    assert torch.allclose(shares, torch.tensor([[0.5 + 0.2, 0.8, 0.5]]))


class Residual(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.branch(x)
        if self.form == "function":
            z = torch.add(y, x)
        elif self.form == "in_place":
            y += x
            z = y
        elif self.form == "method":
            z = y.add_(x)
        else:
            z = y + x
        z = z.relu()
        pooled = z.mean((2, 3)) if self.form == "method" else F.adaptive_avg_pool2d(z, 1).flatten(1)
        return self.head(pooled)


@pytest.mark.parametrize("form", ["function", "in_place", "method", "operator"])
def test_excitation_is_conserved_through_sums(form: str) -> None:
    maps = explain.excitation_backprop(Residual(form), IMAGE.abs(), TARGET[:1], layer="stem")
    reference = explain.excitation_backprop(Residual("operator"), IMAGE.abs(), TARGET[:1], layer="stem")
    assert torch.allclose(maps, reference, atol=1e-7)
    # probabilities of winning sum to one at the ReLU behind the stem; its derivative passes them on
    assert torch.allclose(maps.sum((1, 2, 3)), torch.ones(2), atol=1e-5)


def test_zero_sums_give_zero_not_nan() -> None:
    a = torch.zeros(1, 4, requires_grad=True)
    with ExcitationRule():
        out = a + a.detach() * 0
    (gradient,) = torch.autograd.grad(out.sum(), a)
    assert gradient.tolist() == [[0.0] * 4]


def test_contrastive_equals_two_passes_with_the_head_negated() -> None:
    model, image = with_modules(), IMAGE.abs()
    one_call = explain.contrastive_excitation_backprop(model, image, TARGET, layer="1", contrast_layer="5")

    def excited(weight_sign: float) -> Tensor:
        with torch.no_grad():
            model[7].weight.mul_(weight_sign)
        rule = ExcitationRule()
        with explain.Probe(model, "5") as probe, rule:
            output = model(image)
        start = explain.output_gradient(output, TARGET)
        (arrived,) = torch.autograd.grad(output, probe["5"].activation, start)
        with torch.no_grad():
            model[7].weight.mul_(weight_sign)
        return arrived

    difference = excited(1.0) - excited(-1.0)
    rule = ExcitationRule()
    with explain.Probe(model, "1") as low, explain.Probe(model, "5") as high, rule:
        model(image)
    (arrived,) = torch.autograd.grad(high["5"].activation, low["1"].activation, difference)
    assert torch.allclose(one_call, arrived.sum(1, keepdim=True).relu(), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: explain.gradient(m, IMAGE[0], 0), ValueError, r"images \(n, c, h, w\), got torch.float32 \(3, 16"),
        (lambda m: explain.gradient(m, IMAGE.int(), 0), ValueError, "int32"),
        (lambda m: explain.gradient(m, IMAGE, 5), ValueError, "target 5 is out of range: the model has classes 0 to 4"),
        (lambda m: explain.gradient(m, IMAGE, 0.5), TypeError, "class index"),
        (lambda m: explain.gradient(m, IMAGE, [0, 1, 2]), ValueError, "3 targets for 2 images"),
        (lambda m: explain.gradient(m, IMAGE, torch.zeros(2, 4)), ValueError, "an output gradient has"),
        (lambda m: explain.gradient(m, IMAGE, 0, layer="44"), ValueError, "no layer '44'"),
        (lambda m: explain.gradient(m, IMAGE, 0, layer="6"), ValueError, r"gives \(2, 8\): wanted"),
        (lambda m: explain.gradient(m, IMAGE, 0, resize=(0, 4)), ValueError, "height, width"),
        (lambda m: explain.grad_cam(m, IMAGE, 0), ValueError, "name one"),
        (lambda m: explain.grad_cam(m, IMAGE, 0, layer="6"), ValueError, r"output \(n, c, h, w\); '6' gives \(2, 8\)"),
        (lambda m: explain.gradient(m[:5].append(nn.Flatten(0)), IMAGE, 0), ValueError, r"wanted float \(n, k\)"),
        (lambda m: explain.contrastive_excitation_backprop(m, IMAGE, 0, contrast_layer="5", classifier_layer="6"),
         ValueError, "'6' has no weight"),
        (lambda m: explain.rise(m, IMAGE, 0, layer="1"), ValueError, "reads no layer"),
        (lambda m: explain.rise_maps(m, IMAGE, num_masks=3, filter_masks=torch.rand(4, 1, 16, 12)), ValueError,
         "4 masks were given, num_masks says 3"),
        (lambda m: explain.rise_maps(m, IMAGE, num_masks=4, filter_masks=torch.rand(4, 1, 12, 12)), ValueError,
         r"\(m, 1, 16, 12\)"),
        (lambda m: explain.rise(m, IMAGE, 0, p=0.0), ValueError, "probability"),
    ],
)  # fmt: skip
def test_bad_input(unchecked: None, call, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        call(with_modules())


# RISE ---------------------------------------------------------------------------------------------------------------


def test_rise_against_a_plain_loop() -> None:
    model, image = with_modules(), IMAGE[:, :, :14, :11]
    ours = explain.rise_maps(model, image, num_masks=20, cells=4, p=0.4, batch=8, seed=7)
    generator = torch.Generator().manual_seed(7)
    total = torch.zeros(2, 5, 14, 11)
    for count in (8, 8, 4):
        grid = (torch.rand(count, 1, 4, 4, generator=generator) < 0.4).float()
        rows, columns = (torch.randint(cell, (count,), generator=generator) for cell in (4, 3))
        fine = [-(-(14 + 4) // 4), -(-(11 + 3) // 4)]
        up = F.interpolate(F.pad(grid, [1] * 4, mode="reflect"), size=[6 * f for f in fine], mode="bilinear")
        up = up[:, :, fine[0] : fine[0] + 18, fine[1] : fine[1] + 14]
        for one, y, x in zip(up, rows.tolist(), columns.tolist(), strict=True):
            mask = one[:, y : y + 14, x : x + 11]
            total += model(image * mask).sigmoid()[:, :, None, None] * mask
    assert torch.allclose(ours, total.detach() / 20, atol=1e-6)
    single = explain.rise_maps(model, image, num_masks=20, cells=4, p=0.4, batch=8, seed=7, target=[4, 0])
    assert torch.allclose(single[:, 0], torch.stack([ours[0, 4], ours[1, 0]]), atol=1e-6)


def test_rise_leaves_the_global_generator() -> None:
    model = with_modules()
    before = torch.get_rng_state()
    first = explain.rise(model, IMAGE, 0, num_masks=6)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(first, explain.rise(model, IMAGE, 0, num_masks=6))
