"""MSTN, CPUA, self-training, and the two stages that use them."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation import DomainBatch, DomainDiscriminator, Labelled, Moment, digit_classifier
from saccade.adaptation.dsbn import convert_dsbn, dsbn_layers, use_domain
from saccade.adaptation.dsbn_networks import LeNet, ResNet, dsbn_discriminator, dsbn_lenet, dsbn_resnet
from saccade.adaptation.dsbn_stages import DSBNStage1, DSBNStage2
from saccade.adaptation.mstn import CPUA, MSTN, MovingCentroids, check_source_classes, class_weights
from saccade.adaptation.self_training import SelfTrainingLoss, pseudo_labels
from saccade.checkpoints import write_state
from saccade.ops.collective import mean_over_processes

K = 4


def small(dim: int) -> nn.Module:
    return DomainDiscriminator(dim, 8, 0.0)


def batch(sources: int = 1, targets: int = 1, size: int = 6) -> DomainBatch:
    return DomainBatch(
        [Labelled(torch.randn(size, 1, 8, 8), torch.arange(size) % K) for _ in range(sources)],
        [torch.randn(size + 1, 1, 8, 8) + 1 for _ in range(targets)],
    )


def classifier() -> nn.Module:
    return digit_classifier(side=8, num_classes=K, features=5)


def stage1(sources: int = 1, targets: int = 1, **settings: object) -> DSBNStage1:
    alignment = MSTN(K, K, sources, targets, discriminator=small)
    return DSBNStage1(classifier(), alignment, sources, targets, **settings)


def test_centroids_are_the_formula_and_absent_classes_stay() -> None:
    part = MovingCentroids(3, 2, decay=0.25).double()
    part.centroids.copy_(torch.randn(3, 2))
    before = part.centroids.clone()
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    out = part(x, torch.tensor([0, 2, 0, 0]))
    torch.testing.assert_close(out[0], 0.25 * x[[0, 2, 3]].mean(0) + 0.75 * before[0])
    torch.testing.assert_close(out[2], 0.25 * x[1] + 0.75 * before[2])
    assert torch.equal(out[1], before[1])
    assert torch.equal(part.centroids, out)
    assert not part.centroids.requires_grad
    out.sum().backward()
    torch.testing.assert_close(x.grad[:, 0], torch.tensor([1 / 12, 0.25, 1 / 12, 1 / 12], dtype=torch.float64))


def test_centroids_do_not_depend_on_order_and_reach_through_two_batches() -> None:
    one, other = MovingCentroids(3, 2).double(), MovingCentroids(3, 2).double()
    x, y = torch.randn(7, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    order = torch.randperm(7)
    torch.testing.assert_close(one(x, y), other(x[order], y[order]))
    (one(x.requires_grad_(), y).sum() + one(x, y).sum()).backward()  # the stored values move in place between the two
    assert x.grad is not None


def test_the_losses_are_the_formulas() -> None:
    part = MSTN(K, 3, sources=2, targets=2, adversarial_weight=0.3, semantic_weight=0.7, discriminator=small).double()
    sources = [torch.randn(5, 3, dtype=torch.float64) for _ in range(2)]
    targets = [torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    labels = [torch.randint(K, (5,)) for _ in range(2)], [torch.randint(K, (4,)) for _ in range(2)]
    aligned = part(sources, labels[0], targets, labels[1])
    adversarial, semantic = [], []
    for t in range(2):
        for s in range(2):
            judge = part.discriminators[t * 2 + s]
            adversarial.append((-F.logsigmoid(-judge(sources[s])).mean() - F.logsigmoid(judge(targets[t])).mean()) / 2)
            semantic.append((part.source_centroids[s].centroids - part.target_centroids[t].centroids).square().mean())
    torch.testing.assert_close(aligned.generator, -0.3 * torch.stack(adversarial).mean())
    torch.testing.assert_close(aligned.semantic, 0.7 * torch.stack(semantic).mean())
    torch.testing.assert_close(part.discriminator_loss(sources, targets), -aligned.generator)


def test_network_and_discriminators_get_their_own_gradients_alone() -> None:
    stage, data = stage1(), batch()
    turns = stage.updates(data, Moment(9, 10))
    network = next(turns)
    assert network.player == "network"
    network.loss.backward()
    assert all(p.grad is None for p in stage.alignment.discriminators.parameters())
    assert all(p.requires_grad for p in stage.alignment.discriminators.parameters())
    assert all(p.grad is not None for p in stage.classifier.parameters())
    stage.zero_grad()
    next(turns).loss.backward()
    assert all(p.grad is None for p in stage.classifier.parameters())
    assert any(float(p.grad.abs().max()) > 0 for p in stage.alignment.discriminators.parameters())
    assert next(turns, None) is None


def test_the_discriminators_minimise_on_the_features_before_the_networks_step() -> None:
    stage, data = stage1(), batch()
    turns = stage.updates(data, Moment(9, 10))
    a = -next(turns).loss.detach() * 0 + stage.measures()["adversarial"]
    with torch.no_grad():
        for parameter in stage.classifier.parameters():
            parameter.add_(torch.randn_like(parameter))
    torch.testing.assert_close(next(turns).loss, stage.measures()["lambda"] * a)


def test_lambda_waits_for_the_warm_up() -> None:
    stage = stage1(warmup=20, max_step=70)
    assert stage.strength(Moment(19, 100)) == stage.strength(Moment(20, 100)) == 0
    assert stage.strength(Moment(30, 100)) == pytest.approx(2 / (1 + math.exp(-10 / 7)) - 1)
    assert stage.strength(Moment(99, 100)) == pytest.approx(2 / (1 + math.exp(-10 * 79 / 70)) - 1, abs=1e-4)
    losses = [update.loss for update in stage.updates(batch(), Moment(3, 100))]
    assert float(losses[1].detach()) == 0


def test_pseudo_labelling_leaves_the_running_statistics_alone() -> None:
    stage, data = stage1(), batch()
    list(stage.updates(data, Moment(0, 10)))
    layer = dsbn_layers(stage.classifier)[0]
    assert [int(norm.num_batches_tracked) for norm in layer.bns] == [1, 1]
    assert stage.classifier.training
    assert all(m.training for m in stage.classifier.modules())


def test_each_domain_runs_with_its_own_branch() -> None:
    stage, data = stage1(sources=2, targets=2), batch(2, 2)
    list(stage.updates(data, Moment(5, 10)))
    layer, x = dsbn_layers(stage.classifier)[0], [*(s.images for s in data.sources), *data.targets]
    for d, images in enumerate(x):
        values = stage.classifier.body[0](images).transpose(0, 1).flatten(1)
        torch.testing.assert_close(layer.bns[d].running_mean, 0.1 * values.mean(1))
    stage.eval()
    assert torch.equal(stage.predict(x[0]).probabilities, stage.predict(x[0], 3).probabilities)
    assert not torch.equal(stage.predict(x[0], 0).probabilities, stage.predict(x[0], 3).probabilities)
    torch.testing.assert_close(stage.deploy(1)(x[0]).softmax(1), stage.predict(x[0], 3).probabilities)
    torch.testing.assert_close(stage.deploy(0)(x[0]).softmax(1), stage.predict(x[0], -2).probabilities)


@pytest.mark.parametrize("norm", ["shared", "joint"])
def test_the_baselines_share_their_batch_norms(norm: str) -> None:
    stage, data = stage1(norm=norm), batch()
    assert not dsbn_layers(stage.classifier)
    list(stage.updates(data, Moment(5, 10)))
    x = [data.sources[0].images, data.targets[0]]
    mean = torch.zeros(16)
    for part in x if norm == "shared" else [torch.cat(x)]:
        mean = 0.9 * mean + 0.1 * stage.classifier.body[0](part).transpose(0, 1).flatten(1).mean(1)
    torch.testing.assert_close(stage.classifier.body[1].running_mean, mean)
    stage.eval()
    torch.testing.assert_close(stage.deploy()(data.targets[0]).softmax(1), stage.predict(data.targets[0]).probabilities)


def test_the_backbone_learns_at_a_tenth() -> None:
    groups = stage1().players()["network"]
    assert [group.get("lr_mult", 1.0) for group in groups] == [0.1, 1.0]
    assert sum(p.numel() for p in groups[1]["params"]) == 5 * K + K
    lenet = DSBNStage1(dsbn_lenet(), None)
    names = {id(p): name for name, p in lenet.classifier.named_parameters()}
    assert {names[id(p)][:3] for p in lenet.players()["network"][1]["params"]} == {"fc1", "fc2"}


def test_mstn_aligns_logits_or_features() -> None:
    for adapt_on, width in (("logits", K), ("features", 5)):
        stage = DSBNStage1(classifier(), adapt_on=adapt_on)
        assert stage.alignment.source_centroids[0].centroids.shape == (K, width)
        list(stage.updates(batch(), Moment(5, 10)))
        assert float(stage.alignment.target_centroids[0].centroids.abs().max()) > 0


def test_cpua_sees_logits_and_has_no_centroids() -> None:
    stage = DSBNStage1(classifier(), CPUA(K, discriminator=small))
    losses = [update.loss for update in stage.updates(batch(), Moment(5, 10))]
    assert len(losses) == 2
    assert stage.measures()["semantic"] == 0
    assert stage.alignment.discriminators[0][0].in_features == K


def test_cpua_balances_classes_on_request() -> None:
    part = CPUA(3, class_balance=True, discriminator=small)
    x, y, z = torch.randn(4, 3), torch.tensor([0, 0, 1, 0]), torch.tensor([2, 2, 1, 1])
    aligned = part([x], [y], [x + 1], [z])
    assert part.source_counts.tolist() == [[3, 1, 0]]
    assert part.target_counts.tolist() == [[0, 2, 2]]
    judge = part.discriminators[0]
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
    plain = -F.logsigmoid(-judge(x).flatten()) * weights, -F.logsigmoid(judge(x + 1).flatten())
    torch.testing.assert_close(aligned.generator, -0.1 * (plain[0].mean() + plain[1].mean()) / 2)
    torch.testing.assert_close(part.discriminator_loss([x], [x + 1]), -aligned.generator)
    torch.testing.assert_close(part.class_loss(x, y, 0), (F.cross_entropy(x, y, reduction="none") * weights).mean())
    assert class_weights(torch.zeros(2)).tolist() == [1, 1]


def test_pseudo_labels_of_each_mode() -> None:
    teacher, student = torch.randn(5, 3), torch.randn(5, 3)
    for mode, share, logits in (
        ("ensemble", 0.3, 0.7 * teacher + 0.3 * student),
        ("ensemble", 0.0, teacher),
        ("teacher", 0.9, teacher),
        ("mean", 0.9, 0.5 * teacher + 0.5 * student),
    ):
        found = pseudo_labels(teacher, student, share, mode)
        confidence, labels = logits.softmax(1).max(1)
        assert torch.equal(found.labels, labels)
        torch.testing.assert_close(found.confidence, confidence)


def test_the_authors_fixed_ensemble_counts_the_teacher_twice() -> None:
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    assert pseudo_labels(teacher, student, 0.5, "mean").labels.tolist() == [1]
    theirs = pseudo_labels(teacher, student, 0.5, "ensemble_fix")
    assert theirs.labels.tolist() == [0]
    torch.testing.assert_close(theirs.confidence, (teacher + student / 2).softmax(1).amax(1))


@pytest.mark.parametrize("scale", [False, True])
def test_the_self_training_loss_is_the_formula(scale: bool) -> None:
    source, target, teacher, student = (torch.randn(8, 3).double().requires_grad_() for _ in range(4))
    labels = torch.arange(8) % 3
    found = SelfTrainingLoss(0.6, scale_logits=scale)([source], [labels], [target], [teacher], [student], 0.4, 0.5)
    confidence, pseudo = (0.6 * teacher + 0.4 * student).softmax(1).max(1)
    chosen = confidence >= 0.6
    assert 0 < int(chosen.sum()) < 8
    assert torch.equal(found.selected[0], chosen)
    logits = target * confidence[:, None].detach() if scale else target
    expected = F.cross_entropy(source, labels) + 0.5 * F.cross_entropy(logits[chosen], pseudo[chosen])
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    assert teacher.grad is None
    assert student.grad is None


def test_no_confident_sample_is_no_loss() -> None:
    logits, labels = torch.zeros(3, 4), torch.tensor([0, 1, 2])
    target = torch.zeros(3, 4, requires_grad=True)
    found = SelfTrainingLoss(0.9)([logits], [labels], [target], [logits], [logits])
    assert float(found.target.detach()) == 0
    assert torch.isfinite(found.total)
    found.total.backward()
    assert float(target.grad.abs().max()) == 0


def test_stages_follow_one_another() -> None:
    first, data = stage1(), batch()
    second = first.teach(classifier(), loss=SelfTrainingLoss(mode="teacher"))
    third = second.teach(classifier())
    assert torch.equal(third.teacher.head.weight, second.classifier.head.weight)
    before = copy.deepcopy(second.teacher.state_dict())
    second.train()
    assert not second.teacher.training
    assert second.classifier.training
    updates = list(second.updates(data, Moment(5, 10)))
    assert [update.player for update in updates] == ["network"]
    updates[0].loss.backward()
    assert all(p.grad is None for p in second.teacher.parameters())
    assert all(p.grad is not None for p in second.classifier.parameters())
    for key, value in second.teacher.state_dict().items():
        assert torch.equal(value, before[key])
    assert [update.player for update in third.updates(data, Moment(5, 10))] == ["network"]


def test_the_second_stage_is_taught_by_the_target_branch_of_its_teacher() -> None:
    first, data = stage1(), batch()
    list(first.updates(data, Moment(0, 2)))
    second = first.teach(classifier(), loss=SelfTrainingLoss(mode="teacher"))
    with torch.no_grad(), use_domain(first.eval().classifier, 1):
        labels = first.classifier(data.targets[0]).argmax(1)
    student = copy.deepcopy(second.classifier)
    loss = next(second.updates(data, Moment(5, 10))).loss
    expected = F.cross_entropy(student(data.sources[0].images, domain=0), data.sources[0].labels)
    expected = expected + F.cross_entropy(student(data.targets[0], domain=1), labels)
    torch.testing.assert_close(loss, expected)


def test_a_ramped_target_starts_without_weight() -> None:
    first, data = stage1(), batch()
    second = first.teach(classifier(), ramp_target=True)
    assert second.measures() == {}
    loss = next(second.updates(data, Moment(0, 10))).loss
    assert float(loss) == pytest.approx(second.measures()["class_loss"])


def test_a_teacher_is_read_from_a_checkpoint(tmp_path: Path) -> None:
    first = stage1()
    torch.save({"state_dict": {f"method.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "last.ckpt")
    write_state(first.classifier.state_dict(), tmp_path / "network.safetensors")
    for name in ("last.ckpt", "network.safetensors"):
        second = DSBNStage2(classifier(), classifier(), teacher_weights=str(tmp_path / name))
        assert torch.equal(second.teacher.head.weight, first.classifier.head.weight)


def test_a_class_that_no_source_has_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"no source image has class 1, 3: 2 of 4 classes"):
        check_source_classes(torch.tensor([2.0, 0.0, 1.0, 0.0]))
    stage, data = stage1(), batch()
    data.sources[0].labels.fill_(0)
    list(stage.updates(data, Moment(0, 2)))
    with pytest.warns(UserWarning, match="class 1, 2, 3"):
        list(stage.updates(data, Moment(1, 2)))


def test_the_networks_start_as_the_paper_says() -> None:
    lenet = LeNet(in_features=7)
    assert float(lenet.conv2.weight.detach().abs().max()) == pytest.approx(0.02)
    assert 0.005 < float(lenet.fc1.weight.detach().std()) < 0.01
    assert float(lenet.fc3.bias.detach().abs().max()) == 0
    resnet = ResNet("basic", (1, 1, 1, 1), 5)
    assert 0.008 < float(resnet.fc.weight.detach().std()) < 0.012
    wide = dsbn_discriminator(10, "photos")
    assert float(wide[-1].weight.detach().abs().max()) == pytest.approx(0.6)
    assert [type(m).__name__ for m in dsbn_discriminator(10, "digits")] == [
        "Linear",
        "ReLU",
        "Linear",
        "ReLU",
        "Linear",
    ]
    assert sum(isinstance(m, nn.Dropout) for m in wide) == 2
    assert sum(isinstance(m, nn.Dropout) for m in dsbn_discriminator(10, "cpua")) == 0


def test_a_resnet_is_torchvisions_with_branches() -> None:
    from torchvision.models import resnet18

    theirs = resnet18(weights=None, num_classes=5).eval()
    ours = ResNet("basic", (2, 2, 2, 2), 5).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))
    converted = convert_dsbn(ours, 2)
    assert torch.equal(converted(x, domain=0), converted(x, domain=1))


X = torch.randn(4, 1, 8, 8)
Y = torch.arange(4)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "empty target": (
        lambda: list(stage1().updates(DomainBatch([Labelled(X, Y)], [X[:0]]), Moment(0, 2))),
        r"no images: \[4, 0\]",
    ),
    "two sources where one is asked for": (
        lambda: list(stage1().updates(batch(2), Moment(0, 2))),
        "2 source domains; 1 are wanted",
    ),
    "no target": (
        lambda: list(stage1().updates(DomainBatch([Labelled(X, Y)], []), Moment(0, 2))),
        "0 target domains",
    ),
    "label": (
        lambda: list(stage1().updates(DomainBatch([Labelled(X, Y + 1)], [X]), Moment(0, 2))),
        "labels go from 1 to 4; 0 to 3",
    ),
    "labelled target": (
        lambda: list(stage1().updates(DomainBatch([Labelled(X, Y)], [X], Labelled(X, Y)), Moment(0, 2))),
        "take none from the target",
    ),
    "domain to predict": (lambda: stage1().eval().predict(X, 2), "domain is 2; there are 2"),
    "target to deploy": (lambda: stage1().deploy(1), "target is 1; 0 to 0"),
    "branches": (lambda: DSBNStage1(convert_dsbn(classifier(), 3)), "branches for 3 domains; 2 are wanted"),
    "unwanted branches": (
        lambda: DSBNStage1(convert_dsbn(classifier(), 2), norm="joint"),
        "plain ones are wanted",
    ),
    "alignment": (lambda: DSBNStage1(classifier(), MSTN(K, K, 2)), "of 2 sources and 1 targets; 1 and 1"),
    "cpua on features": (
        lambda: DSBNStage1(classifier(), CPUA(K), adapt_on="features"),
        "logits with CPUA",
    ),
    "norm": (lambda: stage1(norm="none"), "norm is 'none'; domain, shared and joint"),
    "warm-up": (lambda: stage1(warmup=-1), "warmup is -1"),
    "no sources": (lambda: DSBNStage1(classifier(), sources=0), "0 sources and 1 targets"),
    "no domains": (lambda: MSTN(K, K, targets=0), "0 targets are named"),
    "decay": (lambda: MovingCentroids(3, 2, decay=0.0), r"decay 0.0 in \(0, 1\]"),
    "features": (lambda: MovingCentroids(3, 2)(torch.zeros(4, 3), Y), r"features are \(4, 3\); \(b, 2\)"),
    "centroid label": (lambda: MovingCentroids(3, 2)(torch.zeros(4, 2), Y), "labels go from 0 to 3; 0 to 2"),
    "discriminator": (lambda: dsbn_discriminator(3, "office"), "digits, photos and cpua"),  # type: ignore[arg-type]
    "threshold": (lambda: SelfTrainingLoss(1.5), "threshold is 1.5"),
    "mode": (lambda: SelfTrainingLoss(mode="none"), "mode is 'none'; ensemble"),  # type: ignore[arg-type]
    "share": (lambda: pseudo_labels(torch.zeros(1, 2), torch.zeros(1, 2), 1.5), "share is 1.5"),
    "shapes": (lambda: pseudo_labels(torch.zeros(1, 2), torch.zeros(2, 2), 0.5), r"teacher gives \(1, 2\)"),
    "nothing to train on": (lambda: SelfTrainingLoss()([], [], [], [], []), "0 sources and 0 targets"),
    "student as teacher": ((lambda net: lambda: DSBNStage2(net, net))(classifier()), "two networks"),
    "classes of the teacher": (
        lambda: DSBNStage2(classifier(), digit_classifier(8)),
        "the teacher has 10 classes and the student 4",
    ),
    "resnet": (lambda: dsbn_resnet("resnet20"), "resnet18, resnet34"),  # type: ignore[arg-type]
    "stages": (lambda: ResNet("basic", (1, 1), 5), "four stages"),
    "classes": (lambda: LeNet(1), "at least 2"),
    "size": (lambda: LeNet()(X), r"\(b, 1, 28, 28\) is accepted"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_named(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_means_count_the_selected() -> None:
    values = torch.tensor([1.0, 3.0, 5.0])
    assert float(mean_over_processes(values)) == 3
    assert float(mean_over_processes(values, torch.tensor([0.0, 1.0, 1.0]))) == 4
    assert float(mean_over_processes(values, torch.zeros(3))) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_trains(dtype: torch.dtype) -> None:
    stage = stage1()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        for update in stage.updates(batch(), Moment(5, 10)):
            update.loss.backward()
            assert torch.isfinite(update.loss)
    assert stage.alignment.source_centroids[0].centroids.dtype == torch.float32


def test_runs_are_deterministic() -> None:
    def losses() -> list[Tensor]:
        torch.manual_seed(3)
        stage = stage1()
        return [update.loss for step in range(3) for update in stage.updates(batch(), Moment(step, 3))]

    assert all(torch.equal(one, other) for one, other in zip(losses(), losses(), strict=True))
