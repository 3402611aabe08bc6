"""What the benchmark compares gives the same result on both sides."""

import torch
from benchmarks import autox3d as benchmark

from saccade.nn.x3d import X3D


def test_both_sides_give_the_same_logits_and_gradients() -> None:
    torch.manual_seed(0)
    model = X3D(4, 64, 1, 0.6, dim_c1=8, dim_c5=12, num_classes=3, dropout=0.0).double()
    ours, fused, peer = benchmark.sides(model)
    clips = torch.randn(2, 3, 4, 64, 64, dtype=torch.float64)
    wanted = benchmark.infer(peer, clips)
    assert wanted.std() > 1e-6
    torch.testing.assert_close(benchmark.infer(ours, clips), wanted)
    torch.testing.assert_close(benchmark.infer(fused, clips), wanted)
    kinds = {type(module) for module in peer.modules()}
    assert not kinds & {benchmark.PointwiseConv3d, benchmark.SpatialConv3d, benchmark.DepthwiseConv3d}
    for side in (ours, peer):
        benchmark.train(side.train(), clips)
    for mine, theirs in zip(ours.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
