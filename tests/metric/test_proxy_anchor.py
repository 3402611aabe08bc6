import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.checkpoints import load_strict
from saccade.metric import EmbeddingHead, ProxyAnchorLoss, ProxyAnchorModel, ProxyNCALoss, proxy_anchor_param_groups
from saccade.metric.checkpoints import convert_proxy_anchor


def by_definition(x: Tensor, y: Tensor, p: Tensor, margin: float, alpha: float) -> Tensor:
    """The paper's equation 4, one pair at a time, in float64."""
    x = x.double() / x.double().norm(dim=1, keepdim=True)
    p = p.double() / p.double().norm(dim=1, keepdim=True)
    positive, negative, present = torch.zeros(()).double(), torch.zeros(()).double(), set(y.tolist())
    for c in range(len(p)):
        own = [math.exp(-alpha * (float(x[i] @ p[c]) - margin)) for i in range(len(x)) if y[i] == c]
        other = [math.exp(alpha * (float(x[i] @ p[c]) + margin)) for i in range(len(x)) if y[i] != c]
        positive += math.log1p(sum(own)) if own else 0.0
        negative += math.log1p(sum(other))
    return positive / len(present) + negative / len(p)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 9),
    classes=st.integers(1, 7),
    margin=st.floats(-0.5, 0.5),
    alpha=st.floats(0.5, 40),
)
def test_the_loss_is_equation_4(seed: int, batch: int, classes: int, margin: float, alpha: float) -> None:
    torch.manual_seed(seed)
    loss = ProxyAnchorLoss(classes, 5, margin, alpha).double()
    x, y = torch.randn(batch, 5).double(), torch.randint(classes, (batch,))
    torch.testing.assert_close(loss(x, y), by_definition(x, y, loss.proxies.detach(), margin, alpha))


def test_its_gradient_is_right() -> None:
    loss = ProxyAnchorLoss(4, 3, alpha=5.0).double()
    x, y = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), torch.tensor([0, 0, 1, 1, 1, 3])
    assert torch.autograd.gradcheck(lambda e: loss(e, y), (x,))


def test_a_batch_of_one_class_has_finite_gradients() -> None:
    loss, x = ProxyAnchorLoss(1, 4), torch.randn(5, 4, requires_grad=True)
    loss(x, torch.zeros(5, dtype=torch.int64)).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_large_scales_do_not_overflow() -> None:
    loss = ProxyAnchorLoss(5, 4, alpha=500.0)
    x = torch.randn(8, 4, requires_grad=True)
    value = loss(x, torch.randint(5, (8,)))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()


def test_it_does_not_depend_on_the_order_or_the_norm() -> None:
    loss, x, y = ProxyAnchorLoss(6, 8), torch.randn(10, 8), torch.randint(6, (10,))
    order = torch.randperm(10)
    torch.testing.assert_close(loss(x[order], y[order]), loss(x, y))
    torch.testing.assert_close(loss(x * torch.rand(10, 1) * 9, y), loss(x, y))


def test_hard_samples_get_more_gradient_which_proxy_nca_does_not_relate_to_the_batch() -> None:
    """The gradient of a sample depends on how hard the other samples of its class are (section 3.3)."""

    def pull(loss: nn.Module, companion: Tensor) -> float:
        easy = torch.tensor([1.0, 0.1])
        x = torch.stack([easy, companion]).requires_grad_()
        loss(x, torch.tensor([0, 0])).backward()
        return float(x.grad[0].norm()) * (1 if isinstance(loss, ProxyAnchorLoss) else 2)

    anchor, nca = ProxyAnchorLoss(2, 2), ProxyNCALoss(2, 2)
    for loss in (anchor, nca):
        loss.proxies.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    easy, hard = torch.tensor([1.0, 0.12]), torch.tensor([-0.5, 0.8])
    assert pull(anchor, hard) < 0.5 * pull(anchor, easy)
    assert pull(nca, hard) == pytest.approx(pull(nca, easy), rel=1e-5)


def test_a_miners_tuple_weighs_the_samples() -> None:
    loss, x, y = ProxyAnchorLoss(3, 4, alpha=2.0), torch.randn(4, 4), torch.tensor([0, 0, 1, 2])
    everyone = tuple(torch.tensor(i) for i in ([0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]))
    torch.testing.assert_close(loss(x, y, everyone), loss(x, y))
    only_two = tuple(torch.tensor(i) for i in ([0, 1], [1, 0], [2, 2]))
    assert not torch.isclose(loss(x, y, only_two), loss(x, y))


def test_under_autocast_it_computes_in_float32() -> None:
    loss, x, y = ProxyAnchorLoss(9, 16), torch.randn(12, 16), torch.randint(9, (12,))
    outside = loss(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, y), outside)
        assert loss(x.bfloat16(), y).dtype == torch.float32
    torch.testing.assert_close(loss(x.bfloat16().float(), y), loss(x.bfloat16(), y))


@pytest.mark.usefixtures("unchecked")
def test_it_compiles_without_a_graph_break() -> None:
    loss, x, y = ProxyAnchorLoss(9, 16), torch.randn(12, 16), torch.randint(9, (12,))
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, y), loss(x, y))


def test_logits_are_cosines() -> None:
    loss, x = ProxyAnchorLoss(5, 6), torch.randn(3, 6)
    expected = nn.functional.cosine_similarity(x[:, None], loss.proxies[None], dim=-1)
    torch.testing.assert_close(loss.get_logits(x), expected)


GOOD = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (GOOD[0][0], GOOD[1], ValueError, r"shape \(8,\); \(number, size\) is accepted"),
        (torch.randn(4, 9), GOOD[1], ValueError, r"shape \(4, 9\); \(batch, 8\)"),
        (GOOD[0], GOOD[1].float(), TypeError, "labels are torch.float32"),
        (GOOD[0], GOOD[1] + 3, ValueError, r"label 5 is outside the classes 0 to 4 \(5 classes\)"),
        (GOOD[0], GOOD[1] - 1, ValueError, "label -1 is outside"),
        (GOOD[0], GOOD[1][:3], ValueError, r"shape \(3,\); one for each of the 4"),
        (torch.randn(0, 8), torch.zeros(0, dtype=torch.int64), ValueError, "embeddings are empty"),
        (GOOD[0].long(), GOOD[1], TypeError, "floating-point"),
    ],
)
def test_bad_batches_are_named(x: Tensor, y: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ProxyAnchorLoss(5, 8)(x, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "both must be >= 1"),
        ({"margin": math.nan}, "margin is nan"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": math.inf}, "alpha is inf"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProxyAnchorLoss(**{"num_classes": 3, "embedding_size": 4, **arguments})


def test_the_authors_freezing_trains_the_affine_parameters_and_the_flag_does_not() -> None:
    """Errata: unfreezing after the warm-up sets requires_grad on batch norm too; `freeze_bn_affine` keeps it off."""
    for freeze, trained in ((False, True), (True, False)):
        model = ProxyAnchorModel("resnet18", 16, freeze_bn_affine=freeze).train()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(not norm.training and norm.weight.requires_grad is trained for norm in norms)


def test_frozen_statistics_stay() -> None:
    model = ProxyAnchorModel("resnet18", 16).train()
    before = model.backbone.bn1.running_mean.clone()
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(model.backbone.bn1.running_mean, before)
    unfrozen = ProxyAnchorModel("resnet18", 16, freeze_bn=False).train()
    unfrozen(torch.randn(2, 3, 64, 64))
    assert not torch.equal(unfrozen.backbone.bn1.running_mean, before)


def test_the_head_is_average_plus_maximum() -> None:
    head, x = EmbeddingHead(4, 3, normalize=False), torch.randn(2, 4, 5, 5)
    pooled = nn.functional.adaptive_avg_pool2d(x, 1) + nn.functional.adaptive_max_pool2d(x, 1)
    torch.testing.assert_close(head(x), head.linear(pooled.flatten(1)))


def test_proxies_learn_a_hundred_times_as_fast() -> None:
    model, loss = nn.Linear(4, 2), ProxyAnchorLoss(3, 2)
    groups = proxy_anchor_param_groups(model, loss, 1e-4)
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 1e-2])
    assert groups[1]["params"][0] is loss.proxies


def official(model: ProxyAnchorModel, inception: bool) -> dict[str, Tensor]:
    """A state dict in the authors' layout, made from ours by hand."""
    stem = {"conv1": "conv1_7x7_s2", "conv2_reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}
    branches = {
        "one": "1x1",
        "three.0": "3x3_reduce",
        "three.1": "3x3",
        "twice.0": "double_3x3_reduce",
        "twice.1": "double_3x3_1",
        "twice.2": "double_3x3_2",
        "project": "pool_proj",
    }
    state = {}
    for key, value in model.state_dict().items():
        name = key.removeprefix("backbone.")
        if key.startswith("head."):
            name = key.replace("head.linear", "embedding")
        elif inception:
            place, layer, leaf = name.rsplit(".", 2)
            bn = "_bn" if layer == "norm" else ""
            if place.startswith("blocks."):
                block, branch = place.removeprefix("blocks.").split(".", 1)
                name = f"{block}_{branches[branch]}{bn}.{leaf}"
            else:
                name = f"{stem[place]}{bn}.{leaf}"
        state[f"model.{name}"] = value
    state |= {f"model.{'last_linear' if inception else 'fc'}.weight": torch.zeros(1000, 8)}
    return state


@pytest.mark.parametrize("backbone", ["bn_inception", "resnet50"])
def test_the_authors_checkpoints_convert(backbone: str) -> None:
    source, target = ProxyAnchorModel(backbone, 16).eval(), ProxyAnchorModel(backbone, 16).eval()
    load_strict(target, convert_proxy_anchor(official(source, backbone == "bn_inception")))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(target(x), source(x))


def test_an_unknown_key_of_a_checkpoint_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1 key.s. that are not known here: model.surprise.weight"):
        convert_proxy_anchor({"model.embedding.weight": torch.zeros(1), "model.surprise.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="missing"):
        load_strict(
            ProxyAnchorModel("resnet18", 4), convert_proxy_anchor({"model.embedding.weight": torch.zeros(4, 512)})
        )


def test_it_agrees_with_pytorch_metric_learning() -> None:
    peer = pytest.importorskip("pytorch_metric_learning.losses").ProxyAnchorLoss(7, 6)
    ours = ProxyAnchorLoss(7, 6)
    load_strict(ours, peer.state_dict())
    x, y = torch.randn(9, 6), torch.randint(7, (9,))
    torch.testing.assert_close(ours(x, y), peer(x, y))
    triplets = tuple(torch.randint(9, (20,)) for _ in range(3))
    torch.testing.assert_close(ours(x, y, triplets), peer(x, y, triplets))
