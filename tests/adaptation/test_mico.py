import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.adaptation import (
    Classifier,
    CosinePredictor,
    DeCoTa,
    DomainBatch,
    Labelled,
    MiST,
    MiSTLoss,
    Moment,
    PseudoLabelling,
    cosine_classifier,
    decota_losses,
    digit_classifier,
)
from saccade.adaptation.baselines import SourceOnly
from saccade.adaptation.checkpoints import convert_mico
from saccade.adaptation.cosine_predictor import ceil_pooling
from saccade.adaptation.mico import PseudoLabels, draw_lambda, draw_partners, mixed_stream, pseudo_labels
from saccade.adaptation.semi_supervised import SemiSupervised
from saccade.checkpoints import load_strict

CLASSES = 4


def tiny(seed: int, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Dropout(dropout))
    return Classifier(body, CosinePredictor(8, CLASSES, 16, 0.25), 8, CLASSES).double()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch(labelled: int = 6, source: int = 9, unlabelled: int = 8) -> tuple[Labelled, Labelled, Tensor]:
    return (
        Labelled(images(source, 1), torch.arange(source) % CLASSES),
        Labelled(images(labelled, 2), torch.arange(labelled) % CLASSES),
        images(unlabelled, 3),
    )


def soft(classes: Tensor) -> Tensor:
    return F.one_hot(classes, CLASSES).double()


def test_it_is_the_papers_equations() -> None:
    """One image at a time, with mixed one-hot labels."""
    f, g, lam, threshold = tiny(0), tiny(1), 0.3, 0.45
    source, target, unlabelled = batch()
    order_f, order_g = torch.tensor([4, 1, 0, 2, 5, 3, 1, 1]), torch.tensor([8, 0, 3, 5, 1, 2, 6, 4])
    output = decota_losses(f, g, source, target, unlabelled, threshold, lam, partners_f=order_f, partners_g=order_g)

    def cross_entropy(network: nn.Module, image: Tensor, wanted: Tensor) -> Tensor:
        return -(wanted * network(image[None])[0].softmax(0).log()).sum()

    def stream(network: nn.Module, teacher: nn.Module, own: Labelled, order: Tensor, share: float) -> list[Tensor]:
        supervised = [cross_entropy(network, x, soft(y)) for x, y in zip(own.images, own.labels, strict=True)]
        mixed, used = [], 0
        for x in unlabelled:
            p = teacher(x[None])[0].softmax(0)
            if p.max() >= threshold:
                at = int(order[used])
                wanted = share * soft(own.labels[at]) + (1 - share) * soft(p.argmax())
                mixed.append(cross_entropy(network, share * own.images[at] + (1 - share) * x, wanted))
                used += 1
        return [torch.stack(supervised).mean(), torch.stack(mixed).mean()]

    for found, wanted in (
        (output.f, stream(f, g, target, order_f, lam)),
        (output.g, stream(g, f, source, order_g, 1 - lam)),
    ):
        assert 0 < int(found.selected.sum()) < len(unlabelled)
        torch.testing.assert_close(torch.stack([found.supervised, found.mixed]), torch.stack(wanted))
        torch.testing.assert_close(found.loss, sum(wanted))
    assert not torch.equal(output.selected_f, output.selected_g)


def test_no_gradient_goes_through_pseudo_labels_or_to_the_other_network() -> None:
    f, g = tiny(0), tiny(1)
    output = decota_losses(f, g, *batch(), threshold=0.0, lam=0.3)
    output.loss_f.backward()
    assert all(parameter.grad is not None for parameter in f.parameters())
    assert all(parameter.grad is None for parameter in g.parameters())
    assert not output.labels_f.confidences.requires_grad


def test_the_gradient_is_right() -> None:
    f, g, lam = tiny(0), tiny(1), 0.3
    _, target, unlabelled = batch()
    order = torch.arange(6).repeat(2)

    def loss(weight: Tensor) -> Tensor:
        def network(x: Tensor) -> Tensor:
            return torch.func.functional_call(f, {"body.1.weight": weight}, (x,))

        return mixed_stream(network, target, unlabelled, pseudo_labels(g, unlabelled), lam, 0.4, order).loss

    assert torch.autograd.gradcheck(loss, (f.body[1].weight.detach().requires_grad_(),))  # type: ignore[index]


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), threshold=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_the_order_of_unlabelled_images_and_partners_together_does_not_matter(
    seed: int, share: float, threshold: float
) -> None:
    f, g = tiny(0), tiny(1)
    _, target, unlabelled = batch()
    order = torch.randint(6, (8,), generator=torch.Generator().manual_seed(seed))
    shuffle = torch.randperm(8, generator=torch.Generator().manual_seed(seed))

    def stream(x: Tensor, per_image: Tensor) -> Any:
        teacher = pseudo_labels(g, x)
        return mixed_stream(f, target, x, teacher, share, threshold, per_image[teacher.sure(threshold)])

    first, second = stream(unlabelled, order), stream(unlabelled[shuffle], order[shuffle])
    torch.testing.assert_close(first.loss, second.loss)
    assert torch.equal(first.selected[shuffle], second.selected)


def test_without_confident_images_the_labelled_ones_teach_alone() -> None:
    f, g = tiny(0), tiny(1)
    source, target, unlabelled = batch()
    output = decota_losses(f, g, source, target, unlabelled, threshold=1.0)
    torch.testing.assert_close(output.loss_f, F.cross_entropy(f(target.images), target.labels))
    torch.testing.assert_close(output.loss_g, F.cross_entropy(g(source.images), source.labels))
    assert output.f.mixed == 0
    assert output.f.images.shape == (0, 1, 3, 4)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_the_ends_of_lambda_are_unmixed_images(lam: float) -> None:
    source, target, unlabelled = batch(unlabelled=5)
    output = decota_losses(tiny(0), tiny(1), source, target, unlabelled, 0.0, lam, partners_f=torch.arange(5))
    expected = target.images[:5] if lam else unlabelled
    torch.testing.assert_close(output.f.images, expected)


def test_partners_are_all_different_where_they_suffice_and_drawn_again_where_not() -> None:
    generator = torch.Generator().manual_seed(0)
    few = draw_partners(4, 6, generator)
    assert len(few.unique()) == 4
    many = draw_partners(500, 6, generator)
    assert len(many) == 500
    assert set(many.tolist()) == set(range(6))
    source, target, unlabelled = batch(labelled=2)
    output = decota_losses(tiny(0), tiny(1), source, target, unlabelled, threshold=0.0)
    assert len(output.f.images) == 8 > len(target.images)


def test_lambda_is_uniform_and_shared_by_the_streams() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([draw_lambda(torch.device("cpu"), generator) for _ in range(4000)]).double()
    quantiles = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(drawn.quantile(quantiles), quantiles, atol=0.03, rtol=0)
    source, _, unlabelled = batch()
    same = torch.arange(8)
    output = decota_losses(tiny(0), tiny(1), source, source, unlabelled, 0.0, partners_f=same, partners_g=same)
    torch.testing.assert_close(output.f.images + output.g.images, source.images[:8] + unlabelled)


def test_a_seed_decides_all_that_is_drawn() -> None:
    def losses(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        output = decota_losses(tiny(0), tiny(1), *batch(), threshold=0.0, generator=generator)
        return torch.stack([output.loss_f, output.loss_g]).detach()

    assert torch.equal(losses(1), losses(1))
    assert not torch.equal(losses(1), losses(2))


def test_a_single_image_is_left_out_where_batch_norm_could_not_train_on_it() -> None:
    classifier = digit_classifier(side=4, num_classes=CLASSES, features=8)
    labelled = Labelled(torch.randn(5, 1, 4, 4), torch.arange(5) % CLASSES)
    teacher = PseudoLabels(torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.9, 0.1]))
    unlabelled = torch.randn(3, 1, 4, 4)
    assert mixed_stream(classifier, labelled, unlabelled, teacher, 0.5).mixed == 0
    assert mixed_stream(classifier.eval(), labelled, unlabelled, teacher, 0.5).mixed > 0
    assert mixed_stream(tiny(0).float(), *shaped(labelled, unlabelled), teacher, 0.5).mixed > 0


def shaped(labelled: Labelled, unlabelled: Tensor) -> tuple[Labelled, Tensor]:
    return Labelled(labelled.images[:, :, :3], labelled.labels), unlabelled[:, :, :3]


def test_mist_is_both_streams_of_one_network_that_teaches_itself() -> None:
    network = tiny(0)
    source, target, unlabelled = batch()
    order = torch.arange(8) % 6
    mist = MiSTLoss(0.4)(network, source, target, unlabelled, 0.3, partners_target=order, partners_source=order)
    both = decota_losses(network, network, source, target, unlabelled, 0.4, 0.3, partners_f=order, partners_g=order)
    torch.testing.assert_close(mist.loss, both.loss_f + both.loss_g)
    assert mist.loss > mist.target.supervised + mist.source.supervised


def methods() -> dict[str, Callable[..., SemiSupervised]]:
    return {"decota": DeCoTa, "mist": MiST, "pseudo": PseudoLabelling}


def train(method: SemiSupervised, steps: int, lr: float = 0.05) -> list[str]:
    source, target, unlabelled = batch()
    optimizers = {name: torch.optim.SGD(groups, lr=lr) for name, groups in method.players().items()}
    order = []
    for iteration in range(steps):
        for update in method.updates(DomainBatch([source], [unlabelled], target), Moment(iteration, steps)):
            optimizers[update.player].zero_grad()
            update.loss.backward()
            optimizers[update.player].step()
            order.append(update.player)
    return order


@pytest.mark.parametrize("name", methods())
def test_the_methods_learn_their_labelled_images(name: str) -> None:
    torch.manual_seed(0)
    _, target, unlabelled = batch()
    method = methods()[name](tiny(0), pretrain=5)
    before = F.nll_loss(method.predict(target.images).probabilities.log(), target.labels)
    train(method, 40, lr=0.2)
    after = F.nll_loss(method.predict(target.images).probabilities.log(), target.labels)
    assert after < 0.5 * before
    predictions = method.predict(unlabelled)
    torch.testing.assert_close(predictions.probabilities.sum(1).float(), torch.ones(8))
    assert all(0 <= value <= 1 for value in method.measures().values())


def test_pretraining_is_s_t() -> None:
    source, target, unlabelled = batch()
    everything = DomainBatch([source], [unlabelled], target)
    (update,) = MiST(tiny(0), pretrain=1).updates(everything, Moment(0, 1))
    wanted = [F.cross_entropy(tiny(0)(part.images), part.labels) for part in (source, target)]
    torch.testing.assert_close(update.loss, (wanted[0] + wanted[1]) / 2)
    (baseline,) = SourceOnly(tiny(0)).updates(everything, Moment(0, 1))
    torch.testing.assert_close(update.loss, baseline.loss)


def test_plain_pseudo_labels_are_labels_like_any_other() -> None:
    source, target, unlabelled = batch()
    method = PseudoLabelling(tiny(0), threshold=0.4)
    (update,) = method.updates(DomainBatch([source], [unlabelled], target), Moment(0, 1))
    probabilities = method.classifier(unlabelled).softmax(1)
    sure = probabilities.amax(1) >= 0.4
    assert 0 < int(sure.sum()) < 8
    own = -probabilities.amax(1)[sure].log().mean()
    logits = [method.classifier(part.images) for part in (source, target)]
    wanted = F.cross_entropy(logits[0], source.labels) + F.cross_entropy(logits[1], target.labels) + own
    torch.testing.assert_close(update.loss, wanted)


def test_both_networks_start_equal_and_f_steps_first() -> None:
    method = DeCoTa(tiny(0), pretrain=3)
    assert train(method, 3) == ["f"] * 3
    first, second = (copy.deepcopy(network.state_dict()) for network in (method.f, method.g))
    assert not torch.equal(first["head.fc2.weight"], second["head.fc2.weight"])  # g waits
    source, target, unlabelled = batch()
    updates = method.updates(DomainBatch([source], [unlabelled], target), Moment(3, 4))
    assert next(updates).player == "f"
    assert all(torch.equal(method.g.state_dict()[key], value) for key, value in first.items())
    assert [update.player for update in updates] == ["g"]


def test_the_first_phase_is_a_number_of_iterations_or_a_share() -> None:
    assert [DeCoTa(tiny(0), pretrain=length).pretrain_iterations(Moment(0, 40)) for length in (0, 0.25, 1, 7)] == [
        0, 10, 1, 7,
    ]  # fmt: skip


def test_networks_that_start_apart_are_both_pretrained() -> None:
    method = DeCoTa(tiny(0), tiny(1), pretrain=2)
    assert train(method, 3) == ["f", "g"] * 3
    assert not torch.equal(method.f.head.fc1.weight, method.g.head.fc1.weight)  # type: ignore[arg-type, union-attr]


def test_g_learns_from_what_f_said_before_its_step() -> None:
    """The losses of the two turns are those that `decota_losses` gives before both."""
    source, target, unlabelled = batch()
    method = DeCoTa(tiny(0), tiny(1), threshold=0.4, lr_mult=1.0, head_lr_mult=1.0)
    torch.manual_seed(7)
    expected = decota_losses(method.f, method.g, source, target, unlabelled, 0.4)
    torch.manual_seed(7)
    found = []
    for update in method.updates(DomainBatch([source], [unlabelled], target), Moment(0, 1)):
        found.append(update.loss.detach())
        update.loss.backward()
        with torch.no_grad():
            for parameter in method.groups(method.f if update.player == "f" else method.g)[1]["params"]:
                parameter -= 10.0 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.stack(found), torch.stack([expected.loss_f, expected.loss_g]).detach())


def test_the_answer_is_the_largest_sum_of_both() -> None:
    method = DeCoTa(tiny(0), tiny(1)).eval()
    x = images(50)
    both = method.f(x).softmax(1) + method.g(x).softmax(1)
    predictions = method.predict(x)
    assert torch.equal(predictions.labels, both.argmax(1))
    assert not torch.equal(predictions.labels, method.f(x).argmax(1))
    torch.testing.assert_close(2 * predictions.probabilities, both)
    assert predictions.embeddings.shape == (50, 16)


def test_predictor_and_head_learn_at_a_tenth_of_the_rate_unless_told_otherwise() -> None:
    body, head = DeCoTa(tiny(0)).players()["f"]
    assert (body["lr_mult"], head["lr_mult"]) == (0.1, 0.1)
    body, head = DeCoTa(tiny(0), head_lr_mult=1.0).players()["g"]
    assert (body["lr_mult"], head["lr_mult"]) == (0.1, 1.0)


def test_the_card_s_interface_builds_two_networks() -> None:
    method = DeCoTa.from_backbone(lambda: nn.Flatten(), CLASSES, in_features=12, threshold=0.7)
    assert method.threshold == 0.7
    assert not method.same_start
    assert method.predict(torch.zeros(2, 1, 3, 4)).probabilities.shape == (2, CLASSES)


def test_the_predictor_is_a_cosine_up_to_the_length_of_its_class_vectors() -> None:
    predictor = CosinePredictor(6, CLASSES, 16, 0.05).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    hidden = x @ predictor.fc1.weight.T + predictor.fc1.bias
    wanted = [[hidden[i] @ w / hidden[i].norm() / 0.05 for w in predictor.fc2.weight] for i in range(5)]
    torch.testing.assert_close(predictor(x), torch.stack([torch.stack(row) for row in wanted]))
    assert not predictor.fc1.bias.any()
    assert abs(float(CosinePredictor(500, 4).fc1.weight.detach().std()) - math.sqrt(2 / 1012)) < 1e-3
    with torch.no_grad():
        torch.testing.assert_close(predictor(7 * x), predictor(x))  # the bias is 0 at the start


def test_the_predictor_stays_exact_under_autocast() -> None:
    predictor, x = CosinePredictor(6, CLASSES), torch.randn(64, 6)
    with torch.autocast("cpu", torch.bfloat16):
        logits = predictor(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, predictor(x), atol=0.2, rtol=0)


def test_the_losses_run_under_autocast_and_in_float32() -> None:
    source, target, unlabelled = batch()
    single = [Labelled(part.images.float(), part.labels) for part in (source, target)]

    def losses() -> Tensor:
        order = torch.arange(8) % 6
        networks = tiny(0).float(), tiny(1).float()
        output = decota_losses(*networks, *single, unlabelled.float(), 0.0, 0.3, partners_f=order, partners_g=order)
        assert output.loss_f.dtype == torch.float32
        return torch.stack([output.loss_f, output.loss_g])

    with torch.autocast("cpu", torch.bfloat16):
        half = losses()
    torch.testing.assert_close(half, losses(), atol=0.05, rtol=0.05)


def test_the_predictor_compiles_and_exports(unchecked: None) -> None:
    predictor, x = CosinePredictor(6, CLASSES), torch.randn(5, 6)
    torch.testing.assert_close(torch.compile(predictor, fullgraph=True, backend="eager")(x), predictor(x))
    rows = torch.export.Dim("b", min=2)
    exported = torch.export.export(predictor, (x,), dynamic_shapes=({0: rows},)).module()
    torch.testing.assert_close(exported(x[:3]), predictor(x[:3]))


def test_the_older_stem_gives_the_same_sizes_on_another_grid() -> None:
    old = cosine_classifier("resnet18", CLASSES).body.eval()
    x = torch.randn(1, 3, 64, 64)
    grid = old.maxpool(old.act1(old.bn1(old.conv1(x))))  # type: ignore[operator]
    assert grid.shape[-1] == 16  # as with padding: 32 -> 16
    reference = nn.MaxPool2d(2, 2)  # the first two columns of a window; the third belongs to the next
    assert (grid >= reference(old.act1(old.bn1(old.conv1(x))))).all()  # type: ignore[operator]
    with pytest.raises(ValueError, match="Flatten has no module `maxpool`"):
        ceil_pooling(nn.Flatten())


def official(classifier: Classifier, counters: bool = False) -> dict[str, Tensor]:
    """A state dict with the authors' keys."""
    renamed = {
        key.replace("body.", "G.").replace("head.", "F1."): value for key, value in classifier.state_dict().items()
    }
    return {key: value for key, value in renamed.items() if counters or "num_batches" not in key}


@pytest.mark.parametrize("counters", [False, True])
def test_the_authors_checkpoints_convert(counters: bool) -> None:
    first, second = cosine_classifier("resnet18", CLASSES), cosine_classifier("resnet18", CLASSES)
    keys = official(first, counters)
    assert {"G.layer1.0.conv1.weight", "G.layer2.0.downsample.0.weight", "F1.fc1.bias", "F1.fc2.weight"} <= set(keys)
    loaded = cosine_classifier("resnet18", CLASSES)
    load_strict(loaded, convert_mico(keys))
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded.eval()(x), first.eval()(x))
    both = {f"{name}.{k}": v for name, c in (("net", first), ("twin", second)) for k, v in official(c).items()}
    method = DeCoTa(cosine_classifier("resnet18", CLASSES)).eval()
    load_strict(method, convert_mico(both))
    assert torch.equal(method.g(x), second.eval()(x))
    with pytest.raises(ValueError, match=r"not known here: F2\.weight"):
        convert_mico({"F2.weight": torch.zeros(1)})


few = Labelled(torch.zeros(2, 1, 3, 4), torch.tensor([0, 1]))
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: CosinePredictor(0, 4), "in_features is 0, hidden 512 and num_classes 4; at least 1, 1 and 2"),
    (lambda: CosinePredictor(8, 1), "num_classes 1"),
    (lambda: CosinePredictor(8, 4, temperature=0.0), "temperature is 0.0; a finite number above 0 is accepted"),
    (lambda: DeCoTa(tiny(0), threshold=1.2), "threshold is 1.2; 0 to 1 is accepted"),
    (lambda: MiST(tiny(0), threshold=-0.1), "threshold is -0.1; 0 to 1 is accepted"),
    (lambda: PseudoLabelling(tiny(0), threshold=math.nan), "threshold is nan; 0 to 1 is accepted"),
    (lambda: DeCoTa(tiny(0), pretrain=-1), "pretrain is -1, .* none may be negative"),
    (lambda: DeCoTa(tiny(0), digit_classifier()), "the networks know 4 and 10 classes; they must be the same"),
    (lambda: decota_losses(tiny(0), tiny(1), few, few, few.images, threshold=2.0), "threshold is 2.0"),
    (lambda: decota_losses(tiny(0), tiny(1), few, few, few.images, lam=-0.1), "lam is -0.1; 0 to 1 is accepted"),
    (
        lambda: decota_losses(tiny(0), tiny(1), few, few, torch.zeros(5, 1, 4, 4)),
        r"differ in shape: \(2, 1, 3, 4\), \(2, 1, 3, 4\), \(5, 1, 4, 4\)",
    ),
    (
        lambda: decota_losses(tiny(0).float(), tiny(1).float(), few, Labelled(few.images, few.labels + 3), few.images),
        "labels go from 3 to 4; 0 to 3 are accepted",
    ),
    (
        lambda: decota_losses(
            tiny(0).float(), tiny(1).float(), few, few, few.images, 0.0, partners_f=torch.tensor([1])
        ),
        "2 unlabelled images are selected and 1 partners are given",
    ),
    (
        lambda: list(DeCoTa(tiny(0)).updates(DomainBatch([few], [few.images]), Moment(0, 1))),
        "DeCoTa adapts with a few labelled target images, and the batch has none",
    ),
    (
        lambda: list(MiST(tiny(0)).updates(DomainBatch([few, few], [few.images], few), Moment(0, 1))),
        "the batch has 2 source domains; 1 are wanted",
    ),
    (
        lambda: list(
            DeCoTa(tiny(0)).updates(DomainBatch([few], [few.images[:0]], few), Moment(0, 1))
        ),
        r"a domain of the batch has no images: \[2, 2, 0\]",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_named(unchecked: None, call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
