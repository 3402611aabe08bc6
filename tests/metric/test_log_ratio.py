import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.checkpoints import load_strict
from saccade.metric import BinaryTripletLoss, DenseTripletLoss, LogRatioLoss, LogRatioModel, label_triplets
from saccade.metric.checkpoints import convert_log_ratio
from saccade.metric.label_distances import joint_distances, segmentation_distances
from saccade.metric.label_triplets import triplet_hinge


def by_definition(x: Tensor, g: Tensor, anchor: int, eps: float = 1e-6) -> float:
    """One triplet after the other, in float64; `g` are label distances of all rows to the anchor."""
    x, d = x.double(), x.shape[1]
    rows = [i for i in range(len(x)) if i != anchor]
    e = {i: math.sqrt(float((x[anchor] - x[i]).square().sum()) + 1e-4 / d) for i in rows}
    total, count = 0.0, 0
    for place, i in enumerate(rows):
        for j in rows[place + 1 :]:
            f_ratio = math.log((e[i] + eps) / (e[j] + eps))
            g_ratio = math.log((float(g[i]) + eps) / (float(g[j]) + eps))
            total += (f_ratio - g_ratio) ** 2
            count += 1
    return total / count


def dense_by_definition(x: Tensor, g: Tensor, anchor: int, margin: float) -> float:
    x = nn.functional.normalize(x.double(), dim=1)
    rows = sorted((i for i in range(len(x)) if i != anchor), key=lambda i: float(g[i]))
    s = [float((x[anchor] - x[i]).square().sum()) for i in rows]
    hinges = [max(0.0, s[i] - s[j] + margin) for i in range(len(s)) for j in range(i + 1, len(s))]
    return sum(hinges) / len(hinges)


def binary_by_definition(x: Tensor, g: Tensor, anchor: int, margin: float, positives: int) -> float:
    x = nn.functional.normalize(x.double(), dim=1)
    rows = sorted((i for i in range(len(x)) if i != anchor), key=lambda i: float(g[i]))
    s = [float((x[anchor] - x[i]).square().sum()) for i in rows]
    hinges = [max(0.0, p - n + margin) for p in s[:positives] for n in s[positives:]]
    return sum(hinges) / len(hinges)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), m=st.integers(2, 9), d=st.integers(1, 6))
def test_the_losses_are_their_definitions(seed: int, m: int, d: int) -> None:
    torch.manual_seed(seed)
    x, labels = torch.randn(m + 1, d, dtype=torch.float64), torch.randn(m + 1, m + 3, dtype=torch.float64)
    g = torch.cdist(labels, labels)
    expected = [by_definition(x, g[a], a) for a in range(m + 1)]
    dense = [dense_by_definition(x, g[a], a, 0.03) for a in range(m + 1)]
    assert float(LogRatioLoss()(x, g[0, 1:])) == pytest.approx(expected[0], rel=1e-9)
    assert float(LogRatioLoss()(x, g)) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert float(LogRatioLoss()(x, labels)) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    chosen = torch.tensor([m, 0])
    assert float(LogRatioLoss()(x, g, chosen)) == pytest.approx((expected[m] + expected[0]) / 2, rel=1e-9)
    assert float(DenseTripletLoss()(x, g[0, 1:])) == pytest.approx(dense[0], rel=1e-9, abs=1e-12)
    assert float(DenseTripletLoss()(x, g)) == pytest.approx(sum(dense) / len(dense), rel=1e-9, abs=1e-12)
    binary = binary_by_definition(x, g[0], 0, 0.2, 1)
    assert float(BinaryTripletLoss(num_positives=1)(x, g[0, 1:])) == pytest.approx(binary, rel=1e-9, abs=1e-12)


LOSSES = [LogRatioLoss(), DenseTripletLoss(0.3), BinaryTripletLoss(0.3, 2)]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_right(loss: nn.Module, whole: bool) -> None:
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    g = torch.cdist(labels := torch.randn(6, 4).double(), labels)
    assert torch.autograd.gradcheck(lambda e: loss(e, g if whole else g[0, 1:]), (x,))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_order_of_neighbours_does_not_matter(loss: nn.Module) -> None:
    x, g = torch.randn(9, 4), torch.rand(8) + 0.1
    order = torch.randperm(8)
    torch.testing.assert_close(loss(x[torch.cat([torch.zeros(1).long(), order + 1])], g[order]), loss(x, g))
    labels = torch.randn(9, 3)
    rows = torch.randperm(9)
    torch.testing.assert_close(loss(x[rows], labels[rows]), loss(x, labels))


def test_what_the_log_ratio_loss_ignores() -> None:
    """Scale of either space, and any rigid motion; it is 0 where distances are proportional."""
    labels = torch.randn(12, 5, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    exact = LogRatioLoss(eps=0, distance_eps=0)
    assert float(exact(7 * labels @ turn + 3, labels)) < 1e-20
    x = torch.randn(12, 4, dtype=torch.float64)
    torch.testing.assert_close(exact(0.01 * x, 50 * labels), exact(x, labels))


def test_distances_not_squares_enter() -> None:
    """Errata: the paper squares both sides, which multiplies the loss by four."""
    x, g = torch.randn(6, 3).double(), torch.rand(5).double() + 0.1
    exact = LogRatioLoss(eps=0, distance_eps=0)
    u = ((x[1:] - x[0]).square().sum(1) / g**2).log()
    pairs = torch.combinations(u)
    torch.testing.assert_close(4 * exact(x, g), (pairs[:, 0] - pairs[:, 1]).square().mean())


def test_without_labels_rows_are_taken_as_sorted_and_with_them_they_are_sorted() -> None:
    """Errata: the authors' dense triplet loss takes the order of rows for that of labels."""
    x, g = torch.randn(7, 4), torch.tensor([0.9, 0.1, 0.5, 0.3, 0.8, 0.2])
    order = torch.cat([torch.zeros(1).long(), g.argsort() + 1])
    loss = DenseTripletLoss(0.2)
    torch.testing.assert_close(loss(x, g), loss(x[order]))
    assert not torch.isclose(loss(x, g), loss(x))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = torch.randn(12, 4), torch.randn(12, 3)
    whole = DenseTripletLoss(0.2)(x, labels)
    monkeypatch.setattr(label_triplets, "CHUNK", 300)
    torch.testing.assert_close(DenseTripletLoss(0.2)(x, labels), whole)


def test_the_dense_loss_keeps_no_matrix_of_pairs_for_the_backward_pass() -> None:
    kept: list[int] = []
    x = torch.randn(60, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        DenseTripletLoss()(x, torch.rand(59))
    assert max(kept) <= 60 * 8


def test_anchors_that_coincide_with_a_neighbour_have_finite_gradients() -> None:
    x = torch.ones(5, 3, requires_grad=True)
    for targets in (torch.rand(4) + 0.1, torch.rand(5, 2)):
        x.grad = None
        LogRatioLoss()(x, targets).backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


def test_a_label_distance_of_zero_is_kept_with_a_warning() -> None:
    """Errata: the logarithm of eps alone enters."""
    x, g = torch.randn(4, 3).double(), torch.tensor([0.0, 1.0, 2.0]).double()
    with pytest.warns(UserWarning, match=r"1 label distance\(s\) between different samples are 0"):
        value = LogRatioLoss()(x, g)
    assert float(value) == pytest.approx(by_definition(x, torch.cat([torch.zeros(1), g]), 0), rel=1e-6)
    with pytest.warns(UserWarning, match="are 0"):
        assert LogRatioLoss(eps=0.1)(x, g) < value


def test_under_autocast_it_computes_in_float32() -> None:
    x, g = torch.randn(9, 16), torch.rand(8) + 0.1
    labels = torch.randn(9, 3)
    for loss in LOSSES:
        outside = loss(x, g), loss(x, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(x, g), outside[0])
            assert torch.equal(loss(x, labels), outside[1])
            assert loss(x.bfloat16(), g).dtype == torch.float32


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_it_compiles_without_a_graph_break(loss: nn.Module) -> None:
    x, g, labels = torch.randn(9, 6), torch.rand(8) + 0.1, torch.randn(9, 3)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, g), loss(x, g))
    torch.testing.assert_close(compiled(x, labels), loss(x, labels))


X, G = torch.randn(5, 3), torch.rand(4) + 0.1
EYE = torch.eye(5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("x", "g", "error", "message"),
    [
        (X[:2], G[:1], ValueError, "at least 2 neighbours are needed to form a triplet; the batch has 1"),
        (X[:1], G[:0], ValueError, "at least 2 neighbours are needed to form a triplet; the batch has 0"),
        (X, -G, ValueError, "a label distance is -.*; finite numbers of 0 and above"),
        (X, G * torch.nan, ValueError, "a label distance is nan"),
        (X, G / 0, ValueError, "a label distance is inf"),
        (X, G[:3], ValueError, r"targets have the shape \(3,\) and embeddings \(5, 3\)"),
        (X, torch.rand(4, 4), ValueError, r"targets have the shape \(4, 4\) and embeddings \(5, 3\)"),
        (X, EYE, ValueError, r"are read as label distances, and their diagonal is not 0; .* torch.cdist"),
        (X, G.long(), TypeError, "label distances are torch.int64"),
        (X[0], G, ValueError, r"shape \(3,\); \(batch, d\)"),
        (X.long(), G, TypeError, "floating-point"),
    ],
)
def test_bad_batches_are_named(loss: nn.Module, x: Tensor, g: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        loss(x, g)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LogRatioLoss(eps=-1), "eps is -1; a finite number of 0 or above"),
        (lambda: LogRatioLoss(distance_eps=math.nan), "distance_eps is nan"),
        (lambda: DenseTripletLoss(-0.1), "margin is -0.1"),
        (lambda: BinaryTripletLoss(math.inf), "margin is inf"),
        (lambda: BinaryTripletLoss(num_positives=0), "num_positives is 0; at least 1"),
        (lambda: BinaryTripletLoss(num_positives=4)(X, G), "4 neighbours leave no negative beside 4 positives"),
        (lambda: LogRatioLoss()(X, G, torch.tensor([0])), "anchors are given, but the targets are distances to row 0"),
        (lambda: LogRatioLoss()(X, X, torch.rand(2)), "anchors are torch.float32"),
        (lambda: triplet_hinge(X, X, X[:2]), r"have the shapes \(5, 3\), \(5, 3\), \(2, 3\)"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_label_distances_by_hand() -> None:
    poses = torch.randn(3, 4, 2)
    slow = [[sum(float((a[j] - b[j]).norm()) for j in range(4)) for b in poses] for a in poses]
    torch.testing.assert_close(joint_distances(poses, poses), torch.tensor(slow))
    rooms = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [2, 1]]])  # IoU 1/2, 1/3, 0
    expected = 1 - (1 / 2 + 1 / 3 + 0) / 3
    torch.testing.assert_close(segmentation_distances(rooms, rooms), torch.tensor([[0.0, expected], [expected, 0.0]]))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_authors_checkpoints_convert(backbone: str) -> None:
    """Errata: `resnet50` is a ResNet-50 here; a file of the authors' ResNet-18 by that name does not fit it."""
    source, target = (LogRatioModel(backbone, 16).eval() for _ in range(2))
    state = {}
    for key, value in source.state_dict().items():
        state["model." + key.removeprefix("backbone.").replace("head.", "fc.")] = value
    load_strict(target, convert_log_ratio(state))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(target(x), source(x))
    other = LogRatioModel("resnet50" if backbone == "resnet18" else "resnet18", 16)
    with pytest.raises(ValueError, match="does not fit LogRatioModel"):
        load_strict(other, convert_log_ratio(state))
    with pytest.raises(ValueError, match=r"1 key.s. that are not known here: model.surprise"):
        convert_log_ratio(state | {"model.surprise": torch.zeros(1)})


def test_a_plain_imagenet_network_gives_the_backbone_alone() -> None:
    converted = convert_log_ratio({"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1000, 512)})
    assert list(converted) == ["backbone.conv1.weight"]


def test_the_networks_embedding_is_not_normalised_unless_asked() -> None:
    x = torch.randn(2, 3, 64, 64)
    raw, unit = (LogRatioModel("resnet18", 8, normalize=choice).eval() for choice in (False, True))
    unit.load_state_dict(raw.state_dict())
    pooled = raw.backbone(x).mean(dim=(2, 3))
    torch.testing.assert_close(raw(x), pooled @ raw.head.weight.T)
    torch.testing.assert_close(unit(x), nn.functional.normalize(raw(x)))
