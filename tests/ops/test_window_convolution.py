"""The convolution of many small images is the convolution, with and without the norm before it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.ops.window_convolution import normalized_window_convolution, window_convolution


def usual(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    y = F.conv2d(x.permute(3, 2, 0, 1), weight, stride=stride, padding=padding)
    return y.permute(2, 3, 1, 0)


@given(
    rows=st.integers(3, 7),
    columns=st.integers(3, 7),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
@settings(max_examples=25, deadline=None)
def test_it_is_the_convolution(rows: int, columns: int, kernel: int, stride: int, padding: int) -> None:
    padding = min(padding, kernel - 1)
    torch.manual_seed(0)
    x = torch.randn(rows, columns, 2, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    ours, theirs = window_convolution(x, weight, stride, padding), usual(x, weight, stride, padding)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (x, weight), grad), torch.autograd.grad(theirs, (x, weight), grad)
    )


def plain(x: Tensor, norm: nn.Module, weight: Tensor, stride: int, padding: int) -> Tensor:
    return usual(norm(x.flatten(0, 1)).relu().view(x.shape), weight, stride, padding)


def sides(dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.BatchNorm1d, nn.BatchNorm1d, Tensor]:
    torch.manual_seed(0)
    x = (2 * torch.randn(5, 4, 3, 7, dtype=torch.float64) + 1).to(dtype).requires_grad_()
    norms = [nn.BatchNorm1d(3).to(dtype) for _ in range(2)]
    for norm in norms:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, -1.5, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
            norm.running_mean.copy_(torch.tensor([0.9, 1.1, 0.3]))
            norm.running_var.copy_(torch.tensor([3.0, 4.0, 5.0]))
    return x, norms[0], norms[1], torch.randn(6, 3, 3, 3, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_norm_and_relu_before_it(training: bool, momentum: float | None) -> None:
    x, ours, theirs, weight = sides()
    grads, outs = [], []
    for norm, function in ((ours, normalized_window_convolution), (theirs, plain)):
        norm.train(training).momentum = momentum
        for _ in range(2):  # statistics move twice
            out = function(x, norm, weight, 2, 1)
        grads.append(torch.autograd.grad(out.square().sum(), (x, weight, *norm.parameters())))
        outs.append(out)
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*grads)
    assert int(ours.num_batches_tracked) == (2 if training else 0)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_finite_differences(training: bool) -> None:
    x, norm, _, weight = sides()
    norm.train(training)

    assert torch.autograd.gradcheck(lambda x, weight: normalized_window_convolution(x, norm, weight, 2, 1), (x, weight))


def test_single_precision_and_autocast() -> None:
    x, norm, other, weight = sides(torch.float32)
    torch.testing.assert_close(
        normalized_window_convolution(x, norm, weight, 1, 1), plain(x, other, weight, 1, 1), atol=1e-5, rtol=1e-5
    )
    with torch.autocast("cpu", torch.bfloat16):
        low = normalized_window_convolution(x, norm, weight, 1, 1)
        assert window_convolution(x, weight).dtype == low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), plain(x, other, weight, 1, 1), atol=0.3, rtol=0.05)
    low.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_type", [torch.bfloat16, torch.float32])
def test_low_precision_throughout(training: bool, norm_type: torch.dtype) -> None:
    x, norm, exact, weight = sides(torch.bfloat16)
    norm.to(norm_type).train(training)
    y = normalized_window_convolution(x, norm, weight, 1, 1)
    grads = torch.autograd.grad(y.float().square().mean(), (x, weight))
    assert {y.dtype, *(grad.dtype for grad in grads)} == {torch.bfloat16}
    same = plain(x.double(), exact.double().train(training), weight.double(), 1, 1)
    expected = torch.autograd.grad(same.square().mean(), (x, weight))
    torch.testing.assert_close(y.double(), same, atol=0.3, rtol=0.05)
    torch.testing.assert_close(grads[1].double(), expected[1].double(), atol=0.15, rtol=0.1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda x, w: window_convolution(x.long(), w),
            TypeError,
            "x has to be a floating-point tensor, not torch.int64",
        ),
        (lambda x, w: window_convolution(x, w.double()), TypeError, "float32 and weight is torch.float64"),
        (lambda x, w: window_convolution(x[0], w), ValueError, r"x has to be \(h, w, c, n\)"),
        (lambda x, w: window_convolution(x, w[..., :2]), ValueError, r"\(d, c, k, k\)"),
        (lambda x, w: window_convolution(x, w[:, :1]), ValueError, "x has 2 channels, and the kernels take 1"),
        (lambda x, w: window_convolution(x, w, 0), ValueError, "stride >= 1"),
        (lambda x, w: window_convolution(x, w, 1, 3), ValueError, "padding from 0 to 2"),
        (lambda x, w: window_convolution(x[:2], w), ValueError, "a kernel of 3 does not fit images of 2 x 4"),
        (lambda x, w: normalized_window_convolution(x, nn.BatchNorm1d(3), w), ValueError, "and the norm 3"),
        (lambda x, w: normalized_window_convolution(x, nn.SyncBatchNorm(2), w), TypeError, "has to be a BatchNorm1d"),
        (lambda x, w: normalized_window_convolution(x, nn.BatchNorm1d(2, affine=False), w), TypeError, "with weight"),
        (
            lambda x, w: normalized_window_convolution(x[:1, :1, :, :1], nn.BatchNorm1d(2), w[..., :1, :1]),
            ValueError,
            "more than one value",
        ),
    ],
)
def test_bad_input(call: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(torch.randn(4, 4, 2, 5), torch.randn(3, 2, 3, 3))
