r"""MiCo / DeCoTa: two networks with different tasks teach each other, with mixup as the bridge.

In semi-supervised domain adaptation there are many labelled source images, very few labelled target images (one or
three a class) and many target images without labels. Trained on all labels together, the many source labels drown the
few of the target. DeCoTa (Yang et al., ICCV 2021; first called MiCo) takes the task apart: a network $f$ learns inside
the target from its few labels (semi-supervised learning), a network $g$ learns from the source (unsupervised
adaptation). They see different labels, so they err differently, and each gives its confident predictions to the
other. There is no adversary.

With source images $x_s$, labelled target images $x_t$ and unlabelled ones $x_u$, and means over each, an iteration has

$$\mathcal{L}_f = \mathrm{CE}(f(x_t), y_t) + \lambda\, \mathrm{CE}(f(\tilde x), y_t)
               + (1 - \lambda)\, \mathrm{CE}(f(\tilde x), \hat y_g),
\qquad \tilde x = \lambda x_t + (1 - \lambda) x_u,$$

over those $x_u$ of which $g$ is sure, $\max p_g(x_u) \ge \tau$, each with a labelled target image as its partner; and
for $g$ likewise with $f$'s labels, source images as partners, and $1 - \lambda$ in place of $\lambda$. One
$\lambda \sim \mathrm{Beta}(1, 1)$ an iteration serves both. The answer for an image is the class with the largest sum
of both softmax outputs.

Pseudo labels carry no gradient, so their forward needs no graph; and $f$ takes its step before the graph of $g$ is
built. With several processes every loss is that of the joined batch, and $\lambda$ is the same in all of them.

    method = DeCoTa(cosine_classifier("resnet34", num_classes=126, pretrained=True), pretrain=5000)
    task = DomainAdaptation(method, ...)

[`MiST`][saccade.adaptation.MiST] is the paper's ablation with one network,
[`PseudoLabelling`][saccade.adaptation.PseudoLabelling] does without mixup as well; the baseline S+T, all labels and
nothing else, is [`SourceOnly`][saccade.adaptation.baselines.SourceOnly] on batches with labelled target images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saccade.adaptation.baselines import supervised_loss
from saccade.adaptation.cosine_predictor import CosinePredictor
from saccade.adaptation.method import Labelled, Moment, Predictions, Update, check_labels
from saccade.adaptation.networks import Classifier
from saccade.adaptation.semi_supervised import SemiSupervised, check_threshold, joined_counts
from saccade.ops.collective import of_first_process, process_count, sum_over_processes


@dataclass
class PseudoLabels:
    """What a network says about images without labels; no gradient flows through it.

    Args:
        labels: The likeliest class.
        confidences: Its probability.
    """

    labels: Int[Tensor, " b"]
    confidences: Float[Tensor, " b"]

    def sure(self, threshold: float) -> Bool[Tensor, " b"]:
        """Where the confidence reaches the threshold."""
        return self.confidences >= threshold


@dataclass
class Stream:
    """The loss of one network.

    Args:
        loss: The sum of the next two.
        supervised: Cross-entropy of its labelled images.
        mixed: Cross-entropy of the mixed images; 0 where there are none.
        selected: Which unlabelled images it is taught with.
        images: The mixed images, one for each of these.
    """

    loss: Float[Tensor, ""]
    supervised: Float[Tensor, ""]
    mixed: Float[Tensor, ""]
    selected: Bool[Tensor, " b"]
    images: Float[Tensor, "n c h w"]


@dataclass
class DeCoTaOutput:
    """One iteration's losses and what they were made of.

    Args:
        loss_f: Of the target network.
        loss_g: Of the source network.
        selected_f: Which unlabelled images teach f, with g's labels.
        selected_g: Which teach g, with f's labels.
        labels_f: What f says about the unlabelled images.
        labels_g: What g says.
        lam: The λ of the iteration.
        f: The target network's loss in parts.
        g: The source network's.
    """

    loss_f: Float[Tensor, ""]
    loss_g: Float[Tensor, ""]
    selected_f: Bool[Tensor, " b"]
    selected_g: Bool[Tensor, " b"]
    labels_f: PseudoLabels
    labels_g: PseudoLabels
    lam: float
    f: Stream
    g: Stream


@torch.no_grad()
def pseudo_labels(network: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]) -> PseudoLabels:
    """What a network, in the mode that it is in, says about images.

    Args:
        network: Images to logits.
        images: Without labels.

    Returns:
        Class and confidence of each.
    """
    confidences, labels = _wide(network(images)).softmax(1).max(1)
    return PseudoLabels(labels, confidences)


def draw_lambda(device: torch.device, generator: torch.Generator | None = None) -> float:
    """A number from Beta(1, 1), which is uniform on [0, 1), the same in all processes.

    Args:
        device: Where processes talk to each other.
        generator: Of any device; the global one of the CPU where `None`.

    Returns:
        λ.
    """
    drawn = torch.rand((), generator=generator, device=generator.device if generator else "cpu")
    return float(of_first_process(drawn.to(device)) if process_count() > 1 else drawn)


def draw_partners(count: int, labelled: int, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
    """Indices of labelled images for so many unlabelled ones, no index twice where they suffice.

    Args:
        count: Unlabelled images.
        labelled: Labelled ones; where they are fewer, they are drawn with replacement.
        generator: Of any device; the global one of the CPU where `None`.

    Returns:
        On the generator's device.
    """
    device = generator.device if generator else torch.device("cpu")
    if count > labelled:
        return torch.randint(labelled, (count,), generator=generator, device=device)
    return torch.randperm(labelled, generator=generator, device=device)[:count]


def mixed_stream(
    network: Callable[[Tensor], Tensor],
    labelled: Labelled,
    unlabelled: Float[Tensor, "b c h w"],
    teacher: PseudoLabels,
    share: float,
    threshold: float = 0.5,
    partners: Int[Tensor, " p"] | None = None,
    generator: torch.Generator | None = None,
) -> Stream:
    """The loss of one network: of its labelled images, and of these mixed with what its teacher is sure of.

    With several processes both parts are means over all of their images. A network with `BatchNorm1d` or
    `SyncBatchNorm` in training mode cannot learn from a single image: one alone is not selected then.

    Args:
        network: Images to logits; it is called twice, on the labelled and on the mixed images.
        labelled: Images and classes of its own domain.
        unlabelled: Of the target.
        teacher: Labels of these.
        share: Weight of the labelled image and its class in a mix, in [0, 1].
        threshold: Confidence from which a pseudo label is taken.
        partners: Indices of the labelled images for the selected ones, in their order; more than needed are cut off.
            Drawn where `None`.
        generator: For the partners.

    Returns:
        The loss and its parts.

    Raises:
        ValueError: Labels outside the classes, fewer partners than needed.
    """
    logits = network(labelled.images)
    check_labels(labelled.labels, len(labelled.images), logits.shape[1])
    selected = teacher.sure(threshold)
    chosen = selected.nonzero().squeeze(1)
    if len(chosen) < least_images(network):
        chosen, selected = chosen[:0], torch.zeros_like(selected)
    total, joined = joined_counts(logits.device, len(logits), len(chosen))
    if joined == 1 and talks(network):
        chosen, selected, joined = chosen[:0], torch.zeros_like(selected), 0.0
    own = F.cross_entropy(logits, labelled.labels, reduction="sum") / total
    mixed, images = own.new_zeros(()), unlabelled[:0]
    # where another process has selected images this one takes part too: its layers may talk to theirs
    if len(chosen) or (joined and talks(network)):
        if partners is None:
            partners = draw_partners(len(chosen), len(labelled.images), generator)
        if len(partners) < len(chosen):
            raise ValueError(f"{len(chosen)} unlabelled images are selected and {len(partners)} partners are given")
        taken = partners[: len(chosen)].to(unlabelled.device)
        images = torch.lerp(unlabelled[chosen], labelled.images[taken], share)
        log_probabilities = _wide(network(images)).log_softmax(1)
        both = torch.stack([labelled.labels[taken], teacher.labels[chosen]], dim=1)
        weights = log_probabilities.new_tensor([share, 1.0 - share])
        mixed = -(log_probabilities.gather(1, both) @ weights).sum() / joined
    supervised, mixed = sum_over_processes(torch.stack([own, mixed.to(own.dtype)])).unbind()
    return Stream(supervised + mixed, supervised, mixed, selected, images)


def decota_losses(
    f: Callable[[Tensor], Tensor],
    g: Callable[[Tensor], Tensor],
    source: Labelled,
    target: Labelled,
    unlabelled: Float[Tensor, "b c h w"],
    threshold: float = 0.5,
    lam: float | None = None,
    generator: torch.Generator | None = None,
    partners_f: Int[Tensor, " p"] | None = None,
    partners_g: Int[Tensor, " q"] | None = None,
) -> DeCoTaOutput:
    """Both networks' losses of one iteration (arXiv:2007.12684, sections 3.2 to 3.4).

    Both graphs are built; [`DeCoTa`][saccade.adaptation.DeCoTa] builds one at a time.

    Args:
        f: The target network, images to logits.
        g: The source network.
        source: Labelled source images.
        target: The few labelled target images; where more unlabelled ones are selected, partners are drawn with
            replacement.
        unlabelled: Target images.
        threshold: τ, the confidence from which a pseudo label is taken, in [0, 1].
        lam: λ in [0, 1], drawn from Beta(1, 1) where `None`.
        generator: For λ and the partners, of any device; the CPU's global one where `None`.
        partners_f: Indices of labelled target images for the images that teach f, drawn where `None`.
        partners_g: The same of source images.

    Returns:
        Losses, pseudo labels, selections, mixed images.

    Raises:
        ValueError: A threshold or λ outside [0, 1], images of different shapes, labels outside the classes.

    Example:
        >>> from saccade.adaptation import Labelled, digit_classifier
        >>> few = Labelled(torch.randn(4, 1, 16, 16), torch.arange(4))
        >>> output = decota_losses(digit_classifier(), digit_classifier(), few, few, torch.randn(6, 1, 16, 16))
        >>> output.selected_f.shape
        torch.Size([6])
    """
    check_inputs(threshold, lam, source.images, target.images, unlabelled)
    labels_f, labels_g = pseudo_labels(f, unlabelled), pseudo_labels(g, unlabelled)
    lam = draw_lambda(unlabelled.device, generator) if lam is None else lam
    stream_f = mixed_stream(f, target, unlabelled, labels_g, lam, threshold, partners_f, generator)
    stream_g = mixed_stream(g, source, unlabelled, labels_f, 1.0 - lam, threshold, partners_g, generator)
    return DeCoTaOutput(
        stream_f.loss, stream_g.loss, stream_f.selected, stream_g.selected, labels_f, labels_g, lam, stream_f, stream_g
    )


class DeCoTa(SemiSupervised):
    """Two networks, `f` for the target and `g` for the source, that teach each other (arXiv:2007.12684).

    They start equal, from one phase of S+T whose result is copied (our choice); a second network given as `other` goes
    through an S+T phase of its own, as in the authors' code, which loads two files.

    Running statistics of batch norm see the unlabelled batch first, then the labelled and the mixed one.

    Args:
        classifier: The network f.
        other: The network g, a copy of f where `None`.
        threshold: τ in [0, 1].
        pretrain: Length of S+T before, a share of all iterations where below 1, else their number.
        lr_mult: Factor of the learning rate for the bodies.
        head_lr_mult: The same for the heads.

    Attributes:
        f: The target network.
        g: The source network.

    Raises:
        ValueError: A threshold outside [0, 1], or two networks of different classes.

    Example:
        >>> from saccade.adaptation import digit_classifier
        >>> DeCoTa(digit_classifier()).eval().predict(torch.zeros(2, 1, 16, 16)).probabilities.shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        classifier: Classifier,
        other: Classifier | None = None,
        threshold: float = 0.5,
        pretrain: float = 0.0,
        lr_mult: float = 0.1,
        head_lr_mult: float = 0.1,
    ) -> None:
        super().__init__(classifier, threshold, pretrain, lr_mult, head_lr_mult)
        if other is not None and other.num_classes != classifier.num_classes:
            raise ValueError(
                f"the networks know {classifier.num_classes} and {other.num_classes} classes; they must be the same"
            )
        self.same_start = other is None
        self.other = copy.deepcopy(classifier) if other is None else other

    @classmethod
    def from_backbone(
        cls, backbone_factory: Callable[[], nn.Module], num_classes: int, in_features: int = 512, **options: Any
    ) -> DeCoTa:
        """Two networks of a backbone each, with a [`CosinePredictor`][saccade.adaptation.CosinePredictor].

        Args:
            backbone_factory: Gives a new module, images to features (b, d).
            num_classes: Classes.
            in_features: d.
            **options: Of the class.

        Returns:
            The method; its networks start apart.

        Example:
            >>> DeCoTa.from_backbone(nn.Flatten, 3, in_features=16).f.num_classes
            3
        """
        first, second = (
            Classifier(backbone_factory(), CosinePredictor(in_features, num_classes), in_features, num_classes)
            for _ in range(2)
        )
        return cls(first, second, **options)

    @property
    def f(self) -> Classifier:
        """The target network."""
        return self.classifier

    @property
    def g(self) -> Classifier:
        """The source network."""
        return self.other

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """`f` and `g`."""
        return {"f": self.groups(self.f), "g": self.groups(self.g)}

    def pretraining(self, source: Labelled, target: Labelled) -> Iterator[Update]:
        """S+T of f, and of g where it started apart."""
        yield Update("f", supervised_loss(self.f, [source, target]))
        if not self.same_start:
            yield Update("g", supervised_loss(self.g, [source, target]))

    def adaptation(  # noqa: D102
        self, source: Labelled, target: Labelled, unlabelled: Tensor, moment: Moment
    ) -> Iterator[Update]:
        if self.same_start and moment.iteration == self.pretrain_iterations(moment) > 0:
            self.g.load_state_dict(self.f.state_dict())
        labels_f, labels_g = pseudo_labels(self.f, unlabelled), pseudo_labels(self.g, unlabelled)
        lam = draw_lambda(unlabelled.device)
        agreed = (labels_f.labels == labels_g.labels).float().mean()
        stream = mixed_stream(self.f, target, unlabelled, labels_g, lam, self.threshold)
        self._measures = {"selected_f": float(stream.selected.float().mean()), "agreement": float(agreed)}
        yield Update("f", stream.loss)
        stream = mixed_stream(self.g, source, unlabelled, labels_f, 1.0 - lam, self.threshold)
        self._measures["selected_g"] = float(stream.selected.float().mean())
        yield Update("g", stream.loss)

    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """The mean of both softmax outputs: the class with the largest sum is the answer. Embeddings: f's, then g's."""
        features = [network.features(images) for network in (self.f, self.g)]
        heads = (self.f.head, self.g.head)
        probabilities = [_wide(head(x)).softmax(1) for head, x in zip(heads, features, strict=True)]
        return Predictions((probabilities[0] + probabilities[1]) / 2, torch.cat(features, dim=1))


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _modules(network: Any, *kinds: type[nn.Module]) -> bool:
    """Whether a network has a layer of these kinds that is in training mode."""
    if not isinstance(network, nn.Module):
        return False
    return any(isinstance(module, kinds) and module.training for module in network.modules())


def talks(network: Any) -> bool:
    """Whether processes exchange statistics in a network's layers, so that all have to run it."""
    return _modules(network, nn.SyncBatchNorm)


def least_images(network: Any) -> int:
    """How many images a process needs to train the network on them."""
    return 2 if _modules(network, nn.BatchNorm1d) else 1


def check_inputs(threshold: float, lam: float | None = None, *images: Tensor) -> None:
    """Check a threshold, a λ, and that images are of one shape.

    Raises:
        ValueError: They are not as wanted.
    """
    check_threshold(threshold)
    if lam is not None and not 0.0 <= lam <= 1.0:
        raise ValueError(f"lam is {lam}; 0 to 1 is accepted")
    if len({part.shape[1:] for part in images}) > 1:
        shapes = ", ".join(str(tuple(part.shape)) for part in images)
        raise ValueError(f"source, labelled and unlabelled target images differ in shape: {shapes}")
