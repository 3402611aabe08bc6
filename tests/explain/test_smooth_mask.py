"""The smooth mask: the fast form against the plain one and against float64, geometry, pooling, perturbation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F

from saccade.explain import Perturbation, SmoothMask
from saccade.explain.plain import PlainMask
from saccade.ops.smoothing import gaussian_smooth


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(9, 30), st.integers(9, 30)),
    step=st.integers(2, 7),
    sigma=st.sampled_from([2.0, 3.0, 5.5, 7.0, 11.0]),
    binary=st.booleans(),
    seed=st.integers(0, 99),
)
def test_fast_form_equals_the_plain_one(shape, step, sigma, binary, seed) -> None:
    masks = SmoothMask(shape, step, sigma)
    random = torch.rand(2, 1, *masks.shape_in, generator=torch.Generator().manual_seed(seed))
    parameters = (random > 0.6).float() if binary else random
    plain = PlainMask(masks)
    values, gradients = [], []
    for form in (masks.full, plain.full, lambda p: masks._full(p, bounded=True)):
        p = parameters.clone().requires_grad_()
        full = form(p)
        values.append(full)
        gradients.append(torch.autograd.grad(full.square().sum(), p)[0])
    for value, gradient in zip(values, gradients, strict=True):
        assert torch.allclose(value, values[1], atol=1e-5)
        assert torch.allclose(gradient, gradients[1], rtol=1e-4, atol=1e-4 * float(gradients[1].abs().max()))


def test_gradcheck_in_float64() -> None:
    masks = SmoothMask((7, 6), 3, 3.0).double()
    parameters = 0.1 + 0.8 * torch.rand(2, 1, *masks.shape_in, dtype=torch.float64)
    parameters.requires_grad_()
    assert gradcheck(masks.full, (parameters,))
    assert gradcheck(lambda p: masks._full(p, bounded=True), (parameters,))


def test_the_crop_always_fits() -> None:
    for step in range(1, 8):
        for sigma in (1.0, 2.5, 6.0, 9.0):
            masks = SmoothMask((32, 17), step, sigma)
            assert masks(torch.ones(1, 1, *masks.shape_in)).shape == (1, 1, 32, 17)
    # where the library's own padding would be one too small (full 37, crop needs 38)
    masks = SmoothMask((32, 32), 4, 6)
    assert masks.padding == 1 + math.ceil(12 / 4) + 1
    assert SmoothMask((224, 224)).padding == 1 + math.ceil(42 / 7)


def test_poolings_against_a_direct_sum() -> None:
    masks = {
        pooling: SmoothMask((12, 10), 4, 4.0, pooling=pooling, clamp=False) for pooling in ("softmax", "sum", "sigmoid")
    }
    geometry = masks["sum"]
    parameters = torch.rand(1, 1, *geometry.shape_in)
    uy, ux = torch.meshgrid(*[torch.arange(side, dtype=torch.float64) for side in geometry.shape_out], indexing="ij")
    total = torch.zeros_like(uy)
    window = geometry.radius
    for iy in range(geometry.shape_in[0]):
        for ix in range(geometry.shape_in[1]):
            dy, dx = uy - geometry.margin - 4 * iy, ux - geometry.margin - 4 * ix
            kernel = torch.exp(-2 * ((dy**2 + dx**2).sqrt() / 4.0 - 0.5).clamp(min=0) ** 2)
            cell_y = (uy / 4).floor() - geometry.padding
            cell_x = (ux / 4).floor() - geometry.padding
            seen = (iy - cell_y >= 0) & (iy - cell_y <= 2 * window) & (ix - cell_x >= 0) & (ix - cell_x <= 2 * window)
            total += torch.where(seen, kernel * parameters[0, 0, iy, ix], 0)
    assert torch.allclose(masks["sum"].full(parameters)[0, 0].double(), total, atol=1e-5)
    assert torch.allclose(masks["sigmoid"].full(parameters)[0, 0].double(), (20 * total - 3).sigmoid(), atol=1e-5)


def test_infinite_coldness_is_the_limit() -> None:
    hard = SmoothMask((16, 16), 4, 4.0, coldness=math.inf)
    cold = SmoothMask((16, 16), 4, 4.0, coldness=20000.0)
    parameters = torch.rand(1, 1, *hard.shape_in, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hard(parameters), cold(parameters), atol=1e-3)
    step = SmoothMask((16, 16), 4, 4.0, coldness=math.inf, pooling="sigmoid")
    assert set(step(parameters).unique().tolist()) <= {0.0, 1.0}


def test_negative_and_large_parameters_stay_finite() -> None:
    masks = SmoothMask((16, 16), 4, 4.0, clamp=False)
    parameters = (100 * torch.randn(1, 1, *masks.shape_in)).requires_grad_()
    full = masks(parameters)
    full.sum().backward()
    assert full.isfinite().all()
    assert parameters.grad.isfinite().all()


def test_nan_is_not_hidden() -> None:
    masks = SmoothMask((16, 16), 4, 4.0)
    assert masks(torch.full((1, 1, *masks.shape_in), math.nan)).isnan().all()


def test_compiles_without_breaks(unchecked: None) -> None:
    masks = SmoothMask((12, 12), 4, 4.0)
    parameters = torch.rand(1, 1, *masks.shape_in)
    compiled = torch.compile(lambda p: masks._full(p, bounded=True), fullgraph=True, backend="eager")
    assert torch.allclose(compiled(parameters), masks._full(parameters, bounded=True))


def test_autocast_leaves_masks_exact() -> None:
    masks = SmoothMask((12, 12), 4, 4.0, pooling="sum")
    parameters = torch.rand(1, 1, *masks.shape_in)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(masks.full(parameters), SmoothMask((12, 12), 4, 4.0, pooling="sum").full(parameters))
        smoothed = gaussian_smooth(parameters, 1.0)
    assert torch.equal(smoothed, gaussian_smooth(parameters, 1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0}, "step is 0"),
        ({"step": 2.5}, r"step is 2\.5"),
        ({"step": True}, "step is True"),
        ({"sigma": 0.0}, r"sigma is 0\.0"),
        ({"sigma": -1.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"pooling": "mean"}, "softmax, sum, sigmoid"),
        ({"coldness": 0.0}, "coldness"),
        ({"shape": (0, 3)}, "height, width"),
    ],
)
def test_bad_settings(unchecked: None, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothMask(**{"shape": (8, 8), **settings})


def test_bad_parameters(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"have to be \(n, 1, 2, 2\); got \(1, 1, 3, 2\)"):
        SmoothMask((8, 8), 4, 4.0)(torch.zeros(1, 1, 3, 2))


# Gaussian smoothing and perturbation ------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["zero", "replicate", "reflect"])
@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.7])
def test_smoothing_is_a_padded_convolution(padding: str, sigma: float) -> None:
    x = torch.randn(2, 3, 15, 11, dtype=torch.float64)
    reach = math.ceil(4 * sigma)
    taps = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2 + 1e-12))
    kernel = (taps / taps.sum())[:, None] * (taps / taps.sum())
    mode = {"zero": "constant"}.get(padding, padding)
    wide = F.pad(x, [reach] * 4, mode=mode) if reach else x
    expected = F.conv2d(wide.flatten(0, 1)[:, None], kernel[None, None]).view_as(x)
    assert torch.allclose(gaussian_smooth(x, sigma, padding), expected, atol=1e-6)


def test_smoothing_refuses() -> None:
    with pytest.raises(ValueError, match="sigma is -1"):
        gaussian_smooth(torch.zeros(4, 4), -1.0)
    with pytest.raises(ValueError, match="reflect padding of 8 values needs more than 4"):
        gaussian_smooth(torch.zeros(4, 4), 2.0, "reflect")


def test_unknown_padding(unchecked: None) -> None:
    with pytest.raises(ValueError, match="zero, replicate, reflect"):
        gaussian_smooth(torch.zeros(4, 4), 1.0, "wrap")


def test_perturbation_of_a_batch_equals_one_by_one() -> None:
    images, masks = torch.rand(2, 3, 12, 10), torch.rand(6, 1, 12, 10)
    together = Perturbation(images, max_blur=3.0).apply(masks)
    apart = [Perturbation(images[i : i + 1], max_blur=3.0).apply(masks[3 * i : 3 * i + 3]) for i in range(2)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-6)


def test_perturbation_ends() -> None:
    image = torch.rand(1, 3, 12, 10)
    blur = Perturbation(image, max_blur=2.0)
    assert torch.equal(blur.apply(torch.ones(1, 1, 12, 10)), image)
    assert torch.allclose(blur.apply(torch.zeros(1, 1, 12, 10)), gaussian_smooth(image, 2.0), atol=1e-6)
    fade = Perturbation(image, "fade")
    mask = torch.rand(1, 1, 12, 10).requires_grad_()
    assert torch.allclose(fade.apply(mask), mask * image, atol=1e-6)
    full = torch.ones(1, 1, 12, 10, requires_grad=True)
    fade.apply(full).sum().backward()
    assert not full.grad.any()  # the library's interpolation is flat at exactly 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: Perturbation(x[0]), r"float tensor \(b, c, h, w\), not torch.float32 \(3, 8, 8\)"),
        (lambda x: Perturbation((255 * x).byte()), "torch.uint8"),
        (lambda x: Perturbation(x, "noise"), "blur, fade"),
        (lambda x: Perturbation(x, num_levels=1), "num_levels is 1: wanted at least 2"),
        (lambda x: Perturbation(x, max_blur=-1.0), "max_blur"),
        (lambda x: Perturbation(x).apply(torch.full((1, 1, 8, 8), 1.1)), r"in \[0, 1\]; got 1.1"),
        (lambda x: Perturbation(x).apply(torch.full((1, 1, 8, 8), math.nan)), r"in \[0, 1\]"),
        (lambda x: Perturbation(x).apply(torch.zeros(1, 1, 8, 7)), r"masks have to be \(n, 1, 8, 8\)"),
    ],
)
def test_bad_perturbations(unchecked: None, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.rand(1, 3, 8, 8))
