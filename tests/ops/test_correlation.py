import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.ops.correlation import l2_normalize, local_correlation, spatio_temporal_self_similarity
from saccade.ops.temporal import temporal_shift


def plain(a: Tensor, b: Tensor, window: int, dilation: int) -> Tensor:
    """The definition, position by position, in float64."""
    a, b = a.double(), b.double()
    n, _, h, w = a.shape
    r = window // 2
    out = torch.zeros(n, window, window, h, w, dtype=torch.float64)
    for i in range(window):
        for j in range(window):
            for y in range(h):
                for x in range(w):
                    v, u = y + (i - r) * dilation, x + (j - r) * dilation
                    if 0 <= v < h and 0 <= u < w:
                        out[:, i, j, y, x] = (a[:, :, y, x] * b[:, :, v, u]).sum(1)
    return out


@pytest.mark.parametrize(
    ("shape", "window", "dilation"),
    [((2, 3, 5, 7), 5, 1), ((1, 4, 6, 3), 3, 2), ((2, 2, 2, 2), 9, 1), ((1, 1, 4, 4), 1, 3), ((1, 2, 3, 4), 5, 3)],
)
def test_it_is_the_definition(shape: tuple[int, ...], window: int, dilation: int) -> None:
    a, b = torch.randn(2, *shape)
    torch.testing.assert_close(
        local_correlation(a, b, window, dilation).double(), plain(a, b, window, dilation), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradients(dilation: int, normalize: bool) -> None:
    a, b = (torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: local_correlation(a, b, 5, dilation, normalize), (a, b))


def test_gradient_agrees_with_unfolded_features() -> None:
    a, b = (torch.randn(2, 8, 9, 11, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, 7, 7, 9, 11)
    ours = torch.autograd.grad(local_correlation(a, b, 7), (a, b), weight)
    patches = torch.nn.functional.unfold(b, 7, padding=3).view(2, 8, 7, 7, 9, 11)
    theirs = torch.autograd.grad((a[:, :, None, None] * patches).sum(1), (a, b), weight)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@given(dy=st.integers(-2, 2), dx=st.integers(-2, 2))
@settings(max_examples=15, deadline=None)
def test_a_rolled_map_matches_at_its_displacement(dy: int, dx: int) -> None:
    a = l2_normalize(torch.randn(1, 16, 9, 9, generator=torch.Generator().manual_seed(dy * 7 + dx)))
    correlation = local_correlation(a, a.roll((dy, dx), (2, 3)), window=5)
    torch.testing.assert_close(correlation[0, dy + 2, dx + 2, 2:-2, 2:-2], torch.ones(5, 5), atol=1e-4, rtol=0)


def test_the_two_maps_change_roles_under_the_opposite_displacement() -> None:
    a, b = torch.randn(2, 1, 3, 6, 6)
    forward, backward = local_correlation(a, b, 5), local_correlation(b, a, 5)
    torch.testing.assert_close(forward[:, 3, 4, :5, :4], backward[:, 1, 0, 1:, 2:])


def test_layouts_do_not_matter() -> None:
    a, b = torch.randn(2, 2, 4, 6, 6)
    channels_last = local_correlation(a.to(memory_format=torch.channels_last), b.transpose(2, 3).contiguous().mT, 3)
    torch.testing.assert_close(channels_last, local_correlation(a, b, 3))


def test_normalised_similarities_stay_in_range_for_zeros_and_large_values() -> None:
    a = torch.cat([torch.zeros(1, 4, 3, 3), 1e6 * torch.randn(1, 4, 3, 3)])
    out = local_correlation(a, a, 3, normalize=True)
    assert out[0].abs().max() == 0
    assert out.abs().max() <= 1 + 1e-5


def test_precision_is_kept_under_autocast() -> None:
    a, b = torch.randn(2, 1, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = local_correlation(a, b, 5)
    assert torch.equal(inside, local_correlation(a, b, 5))


@pytest.mark.usefixtures("unchecked")
def test_operator_is_registered_for_compile_and_export() -> None:
    a, b = (torch.randn(1, 3, 4, 5, requires_grad=True) for _ in range(2))
    torch.library.opcheck(torch.ops.saccade.local_correlation, (a, b, 3, 2))
    compiled = torch.compile(lambda a, b: local_correlation(a, b, 3).relu().sum(), fullgraph=True, backend="aot_eager")
    grads = torch.autograd.grad(compiled(a, b), (a, b))
    torch.testing.assert_close(grads, torch.autograd.grad(local_correlation(a, b, 3).relu().sum(), (a, b)))


def test_no_clips_give_no_similarities() -> None:
    a = torch.zeros(0, 3, 4, 4, requires_grad=True)
    out = local_correlation(a, a, 3)
    assert out.shape == (0, 3, 3, 4, 4)
    out.sum().backward()


X = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, X, 4), ValueError, "odd"),
        ((X, X, 0), ValueError, "odd"),
        ((X, X, 3, 0), ValueError, "dilation has to be at least 1"),
        ((X, X[:, :1]), ValueError, r"one shape .*\(1, 2, 4, 4\) and \(1, 1, 4, 4\)"),
        ((X[0], X[0]), ValueError, "one shape"),
        ((X.long(), X.long()), TypeError, "floating-point"),
        ((X, X.double()), TypeError, "one type"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        local_correlation(*arguments)


def test_temporal_shift_takes_from_neighbours_and_zeros_beyond_the_clip() -> None:
    x = torch.randn(2 * 3, 16, 2, 2)
    clips, out = x.view(2, 3, 16, 2, 2), temporal_shift(x, 3).view(2, 3, 16, 2, 2)
    for b in range(2):
        for t in range(3):
            assert torch.equal(out[b, t, :2], clips[b, t + 1, :2] if t < 2 else torch.zeros(2, 2, 2))
            assert torch.equal(out[b, t, 2:4], clips[b, t - 1, 2:4] if t > 0 else torch.zeros(2, 2, 2))
            assert torch.equal(out[b, t, 4:], clips[b, t, 4:])


@pytest.mark.parametrize(("frames", "fold", "message"), [(4, 8, "no multiple"), (0, 8, "at least 1"), (3, 1, "fold")])
def test_temporal_shift_bad_input(frames: int, fold: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temporal_shift(torch.zeros(6, 8, 2, 2), frames, fold)


def plain_self_similarity(f: Tensor, window: tuple[int, int, int]) -> Tensor:
    """The definition, position by position."""
    n, t, _, h, w = f.shape
    out = torch.zeros(n, t, h, w, *window, dtype=f.dtype)
    middle = [size // 2 for size in window]
    for place in torch.cartesian_prod(*(torch.arange(size) for size in (t, h, w, *window))).tolist():
        s, y, x, *offset = place
        then, v, u = (a + b - m for a, b, m in zip((s, y, x), offset, middle, strict=True))
        if 0 <= then < t and 0 <= v < h and 0 <= u < w:
            out[:, s, y, x, offset[0], offset[1], offset[2]] = (f[:, s, :, y, x] * f[:, then, :, v, u]).sum(1)
    return out


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3, 4, 4, 5), (3, 3, 3)),
        ((1, 2, 3, 2, 2), (5, 7, 7)),  # larger than the clip and than the map
        ((1, 4, 2, 3, 3), (1, 5, 5)),
        ((2, 1, 3, 3, 2), (7, 1, 1)),
    ],
)
def test_self_similarity_is_the_definition(shape: tuple[int, ...], window: tuple[int, int, int]) -> None:
    features = torch.randn(shape, dtype=torch.float64)
    unit = features / (features.square().sum(2, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(spatio_temporal_self_similarity(features, window), plain_self_similarity(unit, window))
    torch.testing.assert_close(
        spatio_temporal_self_similarity(features, window, normalize=False), plain_self_similarity(features, window)
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_of_self_similarity(normalize: bool) -> None:
    features = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: spatio_temporal_self_similarity(f, (5, 3, 3), normalize), (features,))


def test_between_two_frames_it_is_the_local_correlation() -> None:
    features = torch.randn(2, 4, 8, 6, 7)
    similarity = spatio_temporal_self_similarity(features, (5, 5, 5))
    for offset in (-2, 1):
        then = local_correlation(features[:, 2], features[:, 2 + offset], 5, normalize=True) if offset < 2 else None
        torch.testing.assert_close(similarity[:, 2, :, :, offset + 2], then.permute(0, 3, 4, 1, 2))


@given(l=st.integers(-1, 1), u=st.integers(-2, 2), v=st.integers(-2, 2))
@settings(max_examples=10, deadline=None)
def test_similarity_is_mutual(l: int, u: int, v: int) -> None:  # noqa: E741
    """What one position says of another, that one says of it at the opposite offset."""
    features = torch.randn(1, 3, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    s = spatio_temporal_self_similarity(features, (3, 5, 5))
    here, there = s[0, 1, 2:5, 2:5, l + 1, u + 2, v + 2], s[0, 1 + l, 2 + u : 5 + u, 2 + v : 5 + v, 1 - l, 2 - u, 2 - v]
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)


def test_time_reversal_reverses_offsets() -> None:
    features = torch.randn(1, 5, 4, 4, 4)
    backwards = spatio_temporal_self_similarity(features.flip(1), (3, 3, 3))
    torch.testing.assert_close(backwards, spatio_temporal_self_similarity(features, (3, 3, 3)).flip(1, 4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("features", "window", "kind", "message"),
    [
        (torch.zeros(1, 2, 3, 4, 4).long(), (3, 3, 3), TypeError, "floating-point tensor .*, not torch.int64"),
        (torch.zeros(2, 3, 4, 4), (3, 3, 3), ValueError, r"\(b, t, c, h, w\), not \(2, 3, 4, 4\)"),
        (torch.zeros(1, 2, 3, 4, 4), (2, 3, 3), ValueError, "all odd"),
        (torch.zeros(1, 2, 3, 4, 4), (3, 4, 4), ValueError, "all odd"),
        (torch.zeros(1, 2, 3, 4, 4), (3, 3, 5), ValueError, "with U == V, not \\(3, 3, 5\\)"),
        (torch.zeros(1, 2, 3, 4, 4), (3, -3, -3), ValueError, "all odd"),
    ],
)
def test_bad_windows(features: Tensor, window: tuple[int, int, int], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        spatio_temporal_self_similarity(features, window)
