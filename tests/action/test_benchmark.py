"""What the benchmark compares gives the same result on both sides."""

from pathlib import Path

import torch
from benchmarks import motion_squeeze as benchmark
from benchmarks import selfy as self_similarity

from saccade.data.sampling import segment_center
from tests.data.media import video


def test_correlations_and_gradients_are_the_same() -> None:
    a, b, _ = benchmark.correlation_sides()
    a, b = (x.detach()[:1, :8, :9, :11].requires_grad_() for x in (a, b))
    ours, plain = benchmark.local_correlation(a, b, 5), benchmark.unfolded_correlation(a, b, 5)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (a, b), weight), torch.autograd.grad(plain, (a, b), weight), atol=1e-5, rtol=1e-5
    )


def test_blocks_are_the_same() -> None:
    torch.manual_seed(0)
    ours = benchmark.MotionSqueeze(8, 16, 5, hidden=(4, 6)).double()
    plain = benchmark.PlainMotionSqueeze(8, 16, 5, hidden=(4, 6)).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(6, 8, 9, 9, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x, 3), plain(x, 3))
    torch.testing.assert_close(
        torch.autograd.grad(ours(x, 3).square().sum(), x), torch.autograd.grad(plain(x, 3).square().sum(), x)
    )


def test_clips_are_the_same(tmp_path: Path) -> None:
    path, indices = video(tmp_path / "clip.mp4", frames=40), segment_center(40, 8)
    assert torch.equal(benchmark.read_clip(path, indices), benchmark.decode_whole(path, indices))


def test_self_similarity_and_its_extraction_are_the_same() -> None:
    ours, plain, _ = self_similarity.sides(3, 8, 6)
    x = torch.randn(2, 3, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    ours, plain = ours.double(), plain.double()
    similarity, unfolded = (
        self_similarity.spatio_temporal_self_similarity(x),
        self_similarity.unfolded_self_similarity(x),
    )
    torch.testing.assert_close(similarity, unfolded)
    left, right = ours(similarity), plain(unfolded)
    torch.testing.assert_close(left, right)
    weight = torch.randn_like(left)
    torch.testing.assert_close(
        torch.autograd.grad(left, [x, *ours.parameters()], weight),
        tuple(
            g.squeeze(2) if g.ndim == 5 and g.shape != x.shape else g
            for g in torch.autograd.grad(right, [x, *plain.parameters()], weight)
        ),
    )
