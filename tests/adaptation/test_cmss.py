"""The curriculum manager's weights, the losses, and the three updates of an iteration."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from saccade.adaptation import (
    CMSS,
    Classifier,
    CMSSObjective,
    CurriculumManager,
    DomainBatch,
    GradientReversal,
    Labelled,
    Moment,
    curriculum_weights,
    digits_five_classifier,
    digits_five_discriminator,
    digits_five_manager,
    effective_sample_size,
    source_share,
    timm_manager,
    weighted_domain_loss,
)
from saccade.adaptation.schedules import adaptation_factor

SCORES = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12)


def classifier(side: int = 4, features: int = 5, classes: int = 3) -> Classifier:
    body = nn.Sequential(nn.Flatten(), nn.Linear(side * side, features), nn.Tanh())
    return Classifier(body, nn.Linear(features, classes), features, classes)


def manager(side: int = 4, **options: Any) -> CurriculumManager:
    return CurriculumManager(
        nn.Sequential(nn.Flatten(), nn.Linear(side * side, 4), nn.Tanh(), nn.Linear(4, 1)), **options
    )


def discriminator(features: int = 5) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 6), nn.ReLU(), nn.Linear(6, 1))


def make(**options: Any) -> CMSS:
    torch.manual_seed(1)
    inputs = 15 if options.get("conditional") else 5
    return CMSS(classifier(), manager(), discriminator(inputs), **options).double()


def batch(sizes: tuple[int, ...] = (4, 3), target: int = 5, seed: int = 0) -> DomainBatch:
    generator = torch.Generator().manual_seed(seed)

    def images(count: int) -> Tensor:
        return torch.randn(count, 1, 4, 4, dtype=torch.float64, generator=generator)

    return DomainBatch([Labelled(images(n), torch.arange(n) % 3) for n in sizes], [images(target)])


def step(method: CMSS, given: DomainBatch, moment: Moment, lr: float = 0.1) -> dict[str, Tensor]:
    """An iteration of plain gradient descent; gives the losses."""
    optimizers = {name: torch.optim.SGD(groups, lr=lr) for name, groups in plain_groups(method).items()}
    losses = {}
    for player, loss in method.updates(given, moment):
        optimizers[player].zero_grad()
        loss.backward()
        optimizers[player].step()
        losses[player] = loss.detach()
    return losses


def plain_groups(method: CMSS) -> dict[str, list[dict[str, Any]]]:
    return {name: [{"params": group["params"]} for group in groups] for name, groups in method.players().items()}


# --- weights


@settings(deadline=None, max_examples=40)
@given(SCORES, st.randoms(use_true_random=False), st.floats(-5, 5))
def test_weights_are_a_softmax_that_knows_no_order_and_no_offset(scores: list[float], random: Any, by: float) -> None:
    x = torch.tensor(scores, dtype=torch.float64)
    powers = [math.exp(score - max(scores)) for score in scores]
    expected = torch.tensor([power / sum(powers) for power in powers], dtype=torch.float64)
    weights = curriculum_weights(x)
    torch.testing.assert_close(weights, expected)
    order = list(range(len(scores)))
    random.shuffle(order)
    torch.testing.assert_close(curriculum_weights(x[order]), weights[order])
    torch.testing.assert_close(curriculum_weights(x + by), weights)


@settings(deadline=None, max_examples=60)
@given(SCORES, st.floats(0.05, 0.95))
def test_the_floor_of_the_effective_sample_size(scores: list[float], share: float) -> None:
    x = torch.tensor(scores, dtype=torch.float64)
    free, held = curriculum_weights(x), curriculum_weights(x, min_ess=share)
    floor = share * len(scores)
    assert float(held.sum()) == pytest.approx(1.0)
    assert float(held.min()) >= 0.0
    if float(effective_sample_size(free)) >= floor * (1 + 1e-9):
        torch.testing.assert_close(held, free)  # nothing to do
    else:
        assert float(effective_sample_size(held)) == pytest.approx(max(floor, 1.0), rel=1e-6)
    assert float(((held[:, None] - held) * (free[:, None] - free)).min()) >= -1e-12  # the order stays


def test_the_floor_at_uniform_weights_has_gradients() -> None:
    scores = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    weights = curriculum_weights(scores, min_ess=0.5)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 6))
    (gradient,) = torch.autograd.grad(weights[0], scores)
    assert gradient.isfinite().all()
    assert float(gradient[0]) > 0


@settings(deadline=None, max_examples=40)
@given(SCORES, st.floats(0.5, 4.0))
def test_a_bound_keeps_weights_within_a_factor(scores: list[float], bound: float) -> None:
    x = torch.tensor(scores, dtype=torch.float64)
    weights = curriculum_weights(x, bound=bound)
    assert float(weights.max() / weights.min()) <= math.exp(2 * bound) * (1 + 1e-9)
    torch.testing.assert_close(weights, (bound * torch.tanh(x / bound)).softmax(0))


def test_effective_sample_size_and_shares() -> None:
    assert float(effective_sample_size(torch.full((8,), 0.125))) == pytest.approx(8)
    assert float(effective_sample_size(torch.eye(8)[2])) == pytest.approx(1)
    weights, ids = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([2, 0, 0, 2])
    torch.testing.assert_close(source_share(weights, ids), torch.tensor([0.5, 0.0, 0.5]))
    torch.testing.assert_close(source_share(weights, ids, 4), torch.tensor([0.5, 0.0, 0.5, 0.0]))


# --- losses


@pytest.mark.parametrize("shape", [(), (1,)])
def test_losses_are_the_papers_equations(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    source, target = (torch.randn(n, *shape, dtype=torch.float64) for n in (7, 4))
    weights = torch.rand(7, dtype=torch.float64).softmax(0)

    def sigmoid(z: Tensor) -> float:
        return 1 / (1 + math.exp(-float(z)))

    on_target = -sum(math.log(1 - sigmoid(z)) for z in target) / 4
    unweighted = -sum(math.log(sigmoid(z)) for z in source) / 7 + on_target
    weighted = -sum(float(w) * math.log(sigmoid(z)) for w, z in zip(weights, source, strict=True)) + on_target
    assert float(weighted_domain_loss(source, target)) == pytest.approx(unweighted, abs=1e-12)
    assert float(weighted_domain_loss(source, target, weights)) == pytest.approx(weighted, abs=1e-12)
    uniform = torch.full((7,), 1 / 7, dtype=torch.float64)
    assert float(weighted_domain_loss(source, target, uniform)) == pytest.approx(unweighted, abs=1e-12)

    logits, labels = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0, 1])
    cross_entropy = sum(
        float(torch.logsumexp(z, 0) - z[y]) for z, y in zip(logits, labels.tolist(), strict=True)
    ) / len(labels)
    objective = CMSSObjective(0.6)
    assert float(objective.manager_loss(source, target, weights)) == pytest.approx(-0.6 * weighted)
    assert float(objective.discriminator_loss(source, target)) == pytest.approx(0.6 * unweighted)
    assert float(objective.discriminator_loss(source, target, weights)) == pytest.approx(0.6 * weighted)
    assert float(objective.task_loss(logits, labels, source, target, weights)) == pytest.approx(
        cross_entropy - 0.6 * weighted
    )


def test_each_loss_has_gradients_where_its_player_is_and_nowhere_else() -> None:
    source, target = torch.randn(5, 1, requires_grad=True), torch.randn(3, 1, requires_grad=True)
    weights = torch.rand(5).softmax(0).requires_grad_()
    logits, labels = torch.randn(5, 3, requires_grad=True), torch.arange(5) % 3
    objective = CMSSObjective(1.0)

    def touched(loss: Tensor) -> list[bool]:
        found = torch.autograd.grad(loss, [source, target, weights, logits], allow_unused=True)
        return [gradient is not None and bool(gradient.any()) for gradient in found]

    assert touched(objective.manager_loss(source, target, weights)) == [False, False, True, False]
    assert touched(objective.discriminator_loss(source, target)) == [True, True, False, False]
    assert touched(objective.discriminator_loss(source, target, weights)) == [True, True, False, False]
    assert touched(objective.task_loss(logits, labels, source, target, weights)) == [True, True, False, True]


def test_the_managers_step_moves_weight_to_what_the_discriminator_takes_for_the_target() -> None:
    scores = torch.zeros(4, requires_grad=True)
    answers = torch.tensor([3.0, 1.0, -1.0, -3.0])  # the last looks most like the target
    loss = CMSSObjective(1.0).manager_loss(answers, torch.zeros(2), curriculum_weights(scores))
    (gradient,) = torch.autograd.grad(loss, scores)
    moved = curriculum_weights(scores - gradient)
    assert torch.equal(moved.argsort(), torch.arange(4))
    assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-6)


def test_gradcheck() -> None:
    torch.manual_seed(2)
    scores, source, target = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (6, 6, 4))
    for options in ({}, {"bound": 2.0}, {"min_ess": 0.9}):
        assert gradcheck(
            lambda s, a, b, o=options: weighted_domain_loss(a, b, curriculum_weights(s, **o)), (scores, source, target)
        )


def test_it_is_what_a_reversal_of_gradients_gives() -> None:
    torch.manual_seed(4)
    head, judge = nn.Linear(5, 3).double(), discriminator().double()
    features = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.arange(6) % 3, torch.rand(6, dtype=torch.float64).softmax(0)
    logits = head(features[:6])
    direct = CMSSObjective(0.3).task_loss(logits, labels, judge(features[:6]), judge(features[6:]), weights)
    turned = judge(GradientReversal(0.3)(features))
    reversed_ = F.cross_entropy(logits, labels) + weighted_domain_loss(turned[:6], turned[6:], weights)
    torch.testing.assert_close(
        torch.autograd.grad(direct, features, retain_graph=True), torch.autograd.grad(reversed_, features)
    )


def test_large_logits_stay_finite() -> None:
    source, target = torch.tensor([-1e4, 1e4]), torch.tensor([1e4])
    weights = torch.tensor([0.5, 0.5])
    assert float(weighted_domain_loss(source, target, weights)) == pytest.approx(1.5e4)
    half = weighted_domain_loss(source.bfloat16(), target.bfloat16(), weights)
    assert half.dtype == torch.float32


# --- the iteration


def test_the_updates_come_in_the_papers_order_with_one_pass_of_the_extractor() -> None:
    method = make()
    calls = {"body": 0, "discriminator": 0, "manager": 0}

    def count(name: str) -> Any:
        return lambda *_: calls.update({name: calls[name] + 1})

    method.classifier.body.register_forward_hook(count("body"))
    method.discriminator.register_forward_hook(count("discriminator"))
    method.manager.register_forward_hook(count("manager"))
    assert list(step(method, batch(), Moment(3, 10))) == ["manager", "discriminator", "classifier"]
    assert calls == {"body": 1, "discriminator": 2, "manager": 2}
    assert set(method.players()) == {"manager", "discriminator", "classifier"}
    ours = [id(p) for groups in method.players().values() for group in groups for p in group["params"]]
    assert sorted(ours) == sorted(id(parameter) for parameter in method.parameters())


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_iteration_is_the_card_line_by_line(conditional: bool, weighted: bool) -> None:
    """The slow way: everything computed anew for every step, each in a loop of its own."""
    options = {"weight": 0.7, "conditional": conditional, "weighted_discriminator": weighted}
    method, slow = make(**options), make(**options)
    given, moment = batch(), Moment(2, 10)
    losses = step(method, given, moment)

    strength = 0.7 * (2 / (1 + math.exp(-10 * 0.2)) - 1)
    assert strength == pytest.approx(0.7 * adaptation_factor(0.2))
    source, target = torch.cat([part.images for part in given.sources]), given.targets[0]
    labels = torch.cat([part.labels for part in given.sources])

    def domain_loss(weights: Tensor) -> Tensor:
        def answers(images: Tensor) -> Tensor:
            features = slow.classifier.features(images)
            if conditional:
                probabilities = slow.classifier.head(features).softmax(1).detach()
                features = (probabilities[:, :, None] * features[:, None, :]).flatten(1)
            return slow.discriminator(features).sigmoid().squeeze(1)

        return -(weights * answers(source).log()).sum() - (1 - answers(target)).log().mean()

    def weights() -> Tensor:
        return slow.manager.backbone(source).squeeze(1).softmax(0)

    def descend(module: nn.Module, loss: Tensor) -> Tensor:
        parameters = list(module.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.1 * gradient
        return loss.detach()

    uniform = torch.full((7,), 1 / 7, dtype=torch.float64)
    expected = {"manager": descend(slow.manager, -strength * domain_loss(weights()))}
    of_discriminator = weights().detach() if weighted else uniform
    expected["discriminator"] = descend(slow.discriminator, strength * domain_loss(of_discriminator))
    cross_entropy = F.cross_entropy(slow.classifier(source), labels)
    final = weights().detach()
    expected["classifier"] = descend(slow.classifier, cross_entropy - strength * domain_loss(final))

    torch.testing.assert_close(losses, expected, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(dict(method.named_parameters()), dict(slow.named_parameters()), atol=1e-12, rtol=1e-10)
    measured = method.measures()
    assert measured["effective_sample_size"] == pytest.approx(float(1 / final.square().sum()))
    assert measured["weight_source_0"] == pytest.approx(float(final[:4].sum()))
    assert measured["weight_source_1"] == pytest.approx(float(final[4:].sum()))


def test_the_last_step_leaves_no_gradient_in_manager_and_discriminator() -> None:
    method = make()
    for player, loss in method.updates(batch(), Moment(5, 10)):
        if player == "classifier":
            method.zero_grad()
            loss.backward()
    assert all(parameter.grad is None for parameter in method.manager.parameters())
    assert all(parameter.grad is None for parameter in method.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in method.parameters())
    assert all(parameter.grad is not None for parameter in method.classifier.parameters())


def test_which_source_an_image_came_from_makes_no_difference() -> None:
    given = batch((4, 3))
    images = torch.cat([part.images for part in given.sources])
    labels = torch.cat([part.labels for part in given.sources])
    pooled = DomainBatch([Labelled(images, labels)], given.targets)
    one, other = make(), make()
    torch.testing.assert_close(step(one, given, Moment(5, 10)), step(other, pooled, Moment(5, 10)))
    assert len(one.measures()) == 3
    assert len(other.measures()) == 2


def test_the_manager_finds_the_source_that_is_like_the_target() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    method = CMSS(Classifier(body, nn.Linear(4, 2), 4, 2), manager(), discriminator(4))
    shift = torch.zeros(1, 4, 4)
    shift[0, :2] = 1.5
    optimizers = {name: torch.optim.Adam(groups, lr=5e-3) for name, groups in plain_groups(method).items()}
    for iteration in range(200):
        like, other, target = torch.randn(3, 16, 1, 4, 4)
        labels = torch.arange(16) % 2
        given = DomainBatch([Labelled(other + shift, labels), Labelled(like, labels)], [target])
        for player, loss in method.updates(given, Moment(iteration, 200)):
            optimizers[player].zero_grad()
            loss.backward()
            optimizers[player].step()
    assert method.measures()["weight_source_1"] > 0.8


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_mixed_precision_keeps_the_losses_full() -> None:
    method = make().float()
    given = batch()
    given = DomainBatch([Labelled(p.images.float(), p.labels) for p in given.sources], [given.targets[0].float()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _, loss in method.updates(given, Moment(5, 10)):
            assert loss.dtype == torch.float32
            loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in method.parameters())


@pytest.mark.usefixtures("unchecked")
def test_compile_and_export() -> None:
    torch.manual_seed(0)
    part, images = manager(bound=2.0, min_ess=0.5), torch.randn(6, 1, 4, 4)
    source, target = torch.randn(6, 1), torch.randn(4, 1)
    expected = part(images)
    torch.testing.assert_close(torch.compile(part, fullgraph=True, backend="eager")(images), expected)
    torch.testing.assert_close(torch.export.export(part, (images,)).module()(images), expected)

    objective = CMSSObjective(0.5)
    for loss in (objective.manager_loss, objective.discriminator_loss):
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(source, target, expected), loss(source, target, expected))


def test_predictions_are_the_classifiers() -> None:
    method = make()
    images = batch().targets[0]
    predicted = method.predict(images)
    torch.testing.assert_close(predicted.probabilities, method.classifier(images).softmax(1))
    assert predicted.embeddings.shape == (5, 5)
    assert method.measures() == {}


def test_the_networks_for_digits_are_the_cards() -> None:
    network, judge, scores = digits_five_classifier(), digits_five_discriminator(), digits_five_manager()
    linear = [m for m in network.body if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(8192, 3072), (3072, 2048)]
    convolutions = [m.out_channels for m in network.body if isinstance(m, nn.Conv2d)]
    assert convolutions == [64, 64, 128]
    assert [m.out_features for m in judge if isinstance(m, nn.Linear)] == [1024, 1]
    assert [m.in_features for m in scores.backbone if isinstance(m, nn.Linear)] == [400, 120]
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert judge(torch.zeros(2, 2048)).shape == (2, 1)
    default = CMSS(network, scores)
    shapes = [parameter.shape for parameter in default.discriminator.parameters()]
    assert shapes == [parameter.shape for parameter in judge.parameters()]
    conditional = CMSS(network, scores, conditional=True)
    assert conditional.conditioning is not None
    assert conditional.conditioning.out_features == 4096  # 2048 x 10 is above: a random map
    assert conditional.discriminator[0].in_features == 4096
    assert timm_manager("resnet18", bound=2.0)(torch.randn(3, 3, 64, 64)).shape == (3,)


def test_the_state_of_a_copy_is_the_same() -> None:
    method = make(conditional=True)
    torch.manual_seed(9)
    other = CMSS(classifier(), manager(), discriminator(15), conditional=True).double()
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    torch.testing.assert_close(step(method, batch(), Moment(5, 10)), step(other, batch(), Moment(5, 10)))


# --- bad input

W = torch.tensor([0.5, 0.5])
TWO, THREE, NONE = torch.zeros(2, 1), torch.zeros(3, 1), torch.zeros(0, 1)
IMAGES = torch.zeros(2, 1, 4, 4, dtype=torch.float64)


def run(method: CMSS, given: DomainBatch) -> None:
    list(method.updates(given, Moment(1, 2)))


def wrong_judge(out: int) -> CMSS:
    return CMSS(classifier(), manager(), nn.Linear(5, out)).double()


BAD: dict[str, tuple[Any, str]] = {
    "weights' length": (lambda: weighted_domain_loss(TWO, THREE, torch.ones(3)), r"weights are \(3,\) for 2"),
    "negative weight": (lambda: weighted_domain_loss(TWO, THREE, torch.tensor([1.5, -0.5])), "a weight is -0.5"),
    "no source": (lambda: weighted_domain_loss(NONE, TWO), "the source batch is empty"),
    "no target": (lambda: weighted_domain_loss(TWO, NONE), "the target batch is empty"),
    "two logits": (lambda: weighted_domain_loss(torch.zeros(2, 2), TWO), r"source logits are \(2, 2\)"),
    "target logits": (lambda: weighted_domain_loss(TWO, torch.zeros(2, 1, 1)), r"target logits are \(2, 1, 1\)"),
    "lambda": (lambda: CMSSObjective(1.2), "lambda_ is 1.2; 0 to 1"),
    "negative lambda": (lambda: CMSSObjective(-0.1), "lambda_ is -0.1"),
    "reversal": (lambda: GradientReversal(2.0), "lambda_ is 2.0; 0 to 1"),
    "label": (
        lambda: CMSSObjective(1.0).task_loss(torch.zeros(2, 3), torch.tensor([0, 3]), TWO, THREE, W),
        "labels go from 0 to 3; 0 to 2",
    ),
    "bound": (lambda: CurriculumManager(nn.Identity(), bound=0.0), "bound is 0.0"),
    "floor": (lambda: CurriculumManager(nn.Identity(), min_ess=1.0), r"min_ess is 1.0; .* in \[0, 1\)"),
    "scores": (lambda: curriculum_weights(torch.zeros(2, 2)), r"scores are \(2, 2\)"),
    "no scores": (lambda: curriculum_weights(torch.zeros(0)), r"scores are \(0,\)"),
    "two scores": (lambda: CurriculumManager(nn.Flatten())(IMAGES), r"gives \(2, 16\) for 2 images"),
    "ids": (lambda: source_share(W, torch.tensor([0])), r"\(1,\) domain ids for \(2,\) weights"),
    "id": (lambda: source_share(W, torch.tensor([0, 2]), 2), "domain ids go from 0 to 2; 0 to 1"),
    "weight": (lambda: make(weight=1.5), "weight is 1.5; 0 to 1"),
    "rate": (lambda: make(manager_lr_mult=0.0), "manager_lr_mult is 0.0"),
    "no source domain": (lambda: run(make(), DomainBatch([], [IMAGES])), "no source domain"),
    "empty source": (
        lambda: run(make(), DomainBatch([Labelled(IMAGES[:0], torch.zeros(0).long())], [IMAGES])),
        "a domain of the batch has no images",
    ),
    "empty target": (lambda: run(make(), batch(target=0)), "a domain of the batch has no images"),
    "class": (
        lambda: run(make(), DomainBatch([Labelled(IMAGES, torch.tensor([0, 7]))], [IMAGES])),
        "labels go from 0 to 7; 0 to 2",
    ),
    "labelled target": (
        lambda: run(make(), DomainBatch(batch().sources, [IMAGES], Labelled(IMAGES, torch.tensor([0, 1])))),
        "CMSS takes a target without labels",
    ),
    "discriminator": (lambda: run(wrong_judge(2), batch()), r"the discriminator gives \(12, 2\) for 12 images"),
    "timm": (lambda: timm_manager("resnet17"), "timm has no model 'resnet17'"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
