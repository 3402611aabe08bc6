import pytest
import torch
from torch import Tensor

from saccade.ops.trajectories import attend_along

CLIPS, FRAMES, CELLS, DIM = 2, 4, 3, 6


def tensors(heads: int, *, projected: bool = True, bias: bool = True) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(heads)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    y, query, key = draw(CLIPS, FRAMES, 2 * CELLS, DIM), draw(DIM, DIM), draw(DIM, DIM)
    return [
        y,
        draw(DIM) if bias else None,
        query,
        key,
        draw(DIM, DIM) if projected else None,
        draw(DIM) if projected and bias else None,
    ]


def along(heads: int, frames: range, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    y, query_bias, query, key, value, value_bias = inputs
    assert y is not None
    assert query is not None
    assert key is not None
    return attend_along(y, frames, heads, query, query_bias, key, value, value_bias)


@pytest.mark.parametrize("heads", [2, 6])  # fewer than frames, and more: kept, and computed again on the way back
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_way_back_is_the_derivative_of_both_results(heads: int, projected: bool, bias: bool) -> None:
    inputs = tensors(heads, projected=projected, bias=bias)
    assert torch.autograd.gradcheck(lambda *x: along(heads, range(1, 3), *x), inputs)
    for result in (0, 1):  # one of them alone: the other has no gradient
        assert torch.autograd.gradcheck(lambda *x, i=result: along(heads, range(1, 3), *x)[i], inputs)


@pytest.mark.parametrize("frozen", range(6))
def test_what_is_frozen_gets_no_gradient_and_the_others_keep_theirs(frozen: int) -> None:
    inputs = tensors(2)
    along(2, range(1, 3), *inputs)[0].square().sum().backward()
    wanted = [x.grad for x in inputs if x is not None]
    again = [x.detach().requires_grad_(i != frozen) for i, x in enumerate(tensors(2)) if x is not None]
    along(2, range(1, 3), *again)[0].square().sum().backward()
    assert again[frozen].grad is None
    for i, x in enumerate(again):
        if i != frozen:
            torch.testing.assert_close(x.grad, wanted[i])


@pytest.mark.parametrize("heads", [2, 6])
def test_queries_of_some_frames_are_a_part_of_those_of_all(heads: int) -> None:
    y, *weights = tensors(heads)
    assert y is not None
    y = torch.cat([y, y.flip(2)], dim=2)  # queries of four frames
    whole = along(heads, range(4), y, *weights)
    for start in range(4):
        some = y[:, :, start * CELLS : (start + 1) * CELLS]
        out, attention = along(heads, range(start, start + 1), some, *weights)
        torch.testing.assert_close(out, whole[0][:, start * CELLS : (start + 1) * CELLS])
        torch.testing.assert_close(attention, whole[1][:, :, start * CELLS : (start + 1) * CELLS])


def test_it_composes_with_functional_gradients() -> None:
    y, *weights = tensors(2)
    assert y is not None
    found = torch.func.grad(lambda x: along(2, range(1, 3), x, *weights)[0].square().sum())(y)
    along(2, range(1, 3), y, *weights)[0].square().sum().backward()
    torch.testing.assert_close(found, y.grad)


@pytest.mark.parametrize("frames", [range(0), range(4, 6), range(-1, 1), range(4)])
@pytest.mark.usefixtures("unchecked")
def test_frames_that_do_not_fit_are_refused(frames: range) -> None:
    y, *weights = tensors(2)
    with pytest.raises(ValueError, match="the trajectories have 4 frames"):
        along(2, frames, y, *weights)
