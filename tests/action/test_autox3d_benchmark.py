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


def test_the_three_ways_to_sum_up_samples_give_the_same_gradients() -> None:
    supernet, search = benchmark.settled_search(6)
    supernet.double()
    batch = benchmark.a_batch(3)
    batch["video"] = batch["video"].double()
    found = []
    for step in (benchmark.our_step, benchmark.plain_step, benchmark.graphs_step):
        step(search, batch)
        found.append([parameter.grad for parameter in search.parameters])
    assert any(gradient is not None and float(gradient.abs().max()) > 1e-4 for gradient in found[0])
    for other, exactness in ((found[1], 1e-12), (found[2], 1e-6)):
        for mine, theirs in zip(found[0], other, strict=True):
            if mine is None or theirs is None:
                assert mine is theirs
            else:
                torch.testing.assert_close(mine, theirs, atol=exactness, rtol=1e-5)


def test_masks_and_slices_give_the_same() -> None:
    supernet, _ = benchmark.settled_search()
    supernet.double()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.uniform_(-0.5, 0.5)
    batch = benchmark.a_batch(3)
    batch["video"] = batch["video"].double()
    for row in benchmark.SPACE.space.sample(4, torch.Generator().manual_seed(1)):
        row = benchmark.SPACE.space.encode(
            {**benchmark.SPACE.space.decode(row)}
            | {name: "none" for name in benchmark.SPACE.space.names if name.endswith("attention")}
        )
        sliced, masked = (
            f(batch, row) for f in (supernet.log_likelihood, lambda b, r: benchmark.masked(supernet, b, r))
        )
        torch.testing.assert_close(sliced, masked)
