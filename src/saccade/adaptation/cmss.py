"""CMSS: a curriculum manager for source selection (arXiv:2007.01261).

Several labelled source sets are poured together, nobody says which image came from which, and a classifier is wanted
for a target set without labels. Some sources help, some lead astray, and which do changes while the network learns. So
a small extra network, the curriculum manager, looks at the source images of each batch and shares out one unit of
weight among them: only what has weight pulls the features towards the target.

Who plays: the extractor F and the classifier C, the domain discriminator D, which says source (1) or target (0), and
the manager G. With weights w = softmax of G's scores over the batch,

- L_cls = mean of the source images' cross-entropies, never weighted,
- L_dom = -mean log D(F(source)) - mean log(1 - D(F(target))),
- L_wdom = -sum of w log D(F(source)) - mean log(1 - D(F(target))),

an iteration takes three steps, lambda growing from 0 to 1 over training:

1. G minimises -lambda L_wdom: it points at source images that D takes for the target.
2. D minimises lambda L_dom, without the weights.
3. F and C minimise L_cls - lambda L_wdom, with the weights of the new G.

How it is used: [`CMSS`][saccade.adaptation.cmss.CMSS] is a method of the domain's task;
[`CurriculumManager`][saccade.adaptation.cmss.CurriculumManager] and
[`CMSSObjective`][saccade.adaptation.cmss.CMSSObjective] serve a loop of your own, and the weights any other adversarial
method. In training `measures` tells the effective sample size, 1 / sum of w^2, which falls to 1 where the manager
collapses on one image, and the share of weight of each source, which the method itself never needs to know.

Three things are ours and off by default: a `bound` on the scores and a floor `min_ess` of the effective sample size,
both against collapse, and `weighted_discriminator`, where step 2 minimises lambda L_wdom with the new weights. In the
published rule D goes on learning to reject sources that nobody aligns any more; weighted, it looks where F is asked to
align. The claim compares the two.

About speed: F runs once an iteration. G's step leaves D as it is and D's step leaves F as it is, so the features and
D's first answers serve both; D answers source and target in one pass, twice an iteration instead of three times. The
losses are computed from logits, and no gradient is computed that no step takes.

In several processes softmax and losses are those of the joined batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation.adversary import DomainDiscriminator, PredictionConditioning
from saccade.adaptation.baselines import classify
from saccade.adaptation.method import (
    AdaptationMethod,
    DomainBatch,
    Moment,
    Predictions,
    Update,
    check_batch,
    check_labels,
    frozen,
)
from saccade.adaptation.networks import Classifier
from saccade.adaptation.schedules import adaptation_factor
from saccade.ops.collective import mean_over_processes, softmax_over_processes, sum_over_processes


def curriculum_weights(
    scores: Float[Tensor, " b"], bound: float | None = None, min_ess: float = 0.0
) -> Float[Tensor, " b"]:
    """Scores of source images to weights (arXiv:2007.01261, section 3.2).

    With a floor, weights whose effective sample size is below it are mixed with the uniform ones, u + c (w - u), where
    c is the largest that reaches the floor; 1 / sum of w^2 gives it in closed form, and gradients flow through it.

    Args:
        scores: One an image; any real number.
        bound: Scores become bound * tanh(score / bound), so that no weight exceeds another by more than a factor of
            exp(2 bound); `None`: as they are.
        min_ess: Least effective sample size, as a share of the batch, in [0, 1); 0: no floor.

    Returns:
        Not negative, summing to 1 over the batch, in several processes over the joined batch.

    Raises:
        ValueError: No scores, a bound that is not positive, a floor outside [0, 1).

    Example:
        >>> curriculum_weights(torch.tensor([0.0, 0.0, 50.0]))
        tensor([1.9287e-22, 1.9287e-22, 1.0000e+00])
        >>> curriculum_weights(torch.tensor([0.0, 0.0, 50.0]), bound=2.0)
        tensor([0.1065, 0.1065, 0.7870])
    """
    _check_curriculum(bound, min_ess)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores are {tuple(scores.shape)}; one an image (b,), at least one, is accepted")
    scores = _full_precision(scores)
    if bound is not None:
        scores = bound * torch.tanh(scores / bound)
    weights = softmax_over_processes(scores)
    if min_ess == 0.0:
        return weights
    sums = torch.stack([weights.square().sum(), weights.new_full((), len(weights))])
    squares, count = sum_over_processes(sums)
    allowed = (1 / min_ess - 1) / count  # the floor's sum of squares beyond that of uniform weights
    excess = (squares - 1 / count).clamp(min=0.0)
    mixing = (allowed / torch.maximum(excess, allowed)).sqrt()
    return 1 / count + mixing * (weights - 1 / count)


class CurriculumManager(nn.Module):
    """The curriculum manager G: source images to weights that sum to 1 (arXiv:2007.01261, section 3.2).

    Args:
        backbone: Images to one score each, (b, 1) or (b,).
        bound: Of the scores; see `curriculum_weights` (ours, off by default).
        min_ess: Least effective sample size, as a share of the batch (ours, off by default).

    Raises:
        ValueError: A bound that is not positive, a floor outside [0, 1); in the forward pass, a backbone that gives
            anything but one score an image.

    Example:
        >>> manager = CurriculumManager(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)))
        >>> weights = manager(torch.randn(6, 1, 4, 4))
        >>> weights.shape, round(float(weights.sum().detach()), 4)
        (torch.Size([6]), 1.0)
    """

    def __init__(self, backbone: nn.Module, bound: float | None = None, min_ess: float = 0.0) -> None:
        super().__init__()
        _check_curriculum(bound, min_ess)
        self.backbone = backbone
        self.bound = bound
        self.min_ess = min_ess

    def scores(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """The scores before bound and softmax; they do not depend on who else is in the batch, but for batch norm."""
        found = self.backbone(images)
        if found.numel() != len(images) or found.shape[0] != len(images):
            raise ValueError(
                f"the manager's backbone gives {tuple(found.shape)} for {len(images)} images; one score each is wanted"
            )
        return found.reshape(len(images))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Weights of the source images of a batch."""
        return curriculum_weights(self.scores(images), self.bound, self.min_ess)


def weighted_domain_loss(
    source_logits: Float[Tensor, "b ..."],
    target_logits: Float[Tensor, "m ..."],
    weights: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """The discriminator's loss, with one unit of weight shared out among the source images (arXiv:2007.01261, 3.2).

    -sum of w log D(source) - mean log(1 - D(target)); without weights both are means. The weights' sum is 1, so the
    source's part is not divided by their number.

    Args:
        source_logits: D's answers to source images before the sigmoid, (b, 1) or (b,); source counts as 1.
        target_logits: To target images.
        weights: Of the source images; `None`: 1 / b each.

    Returns:
        The loss, in several processes that of the joined batch.

    Raises:
        ValueError: An empty batch, logits of another shape, weights of another length or negative.

    Example:
        >>> weighted_domain_loss(torch.zeros(4, 1), torch.zeros(2, 1))
        tensor(1.3863)
    """
    source, target = _one_logit_each(source_logits, "source"), _one_logit_each(target_logits, "target")
    on_source, on_target = F.softplus(-source), mean_over_processes(F.softplus(target))
    if weights is None:
        return mean_over_processes(on_source) + on_target
    if weights.shape != source.shape:
        raise ValueError(f"weights are {tuple(weights.shape)} for {len(source)} source images; one each is wanted")
    if not torch.compiler.is_compiling() and bool((weights < 0).any()):
        raise ValueError(f"a weight is {float(weights.min()):g}; weights are at least 0")
    return sum_over_processes((weights * on_source).sum()) + on_target


class CMSSObjective:
    """The three losses of an iteration, in the order of their steps (arXiv:2007.01261, section 3.3).

    Args:
        lambda_: Strength of the game, in [0, 1].

    Raises:
        ValueError: `lambda_` is outside.

    Example:
        >>> objective, w = CMSSObjective(0.5), torch.tensor([0.25, 0.75])
        >>> source, target = torch.tensor([1.0, -1.0]), torch.tensor([0.0])
        >>> objective.manager_loss(source, target, w)
        tensor(-0.8782)
    """

    def __init__(self, lambda_: float) -> None:
        if not 0.0 <= lambda_ <= 1.0:
            raise ValueError(f"lambda_ is {lambda_}; 0 to 1 is accepted")
        self.lambda_ = lambda_

    def manager_loss(
        self,
        source_logits: Float[Tensor, "b ..."],
        target_logits: Float[Tensor, "m ..."],
        weights: Float[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """-lambda L_wdom, which has a gradient in the weights alone."""
        return -self.lambda_ * weighted_domain_loss(source_logits.detach(), target_logits.detach(), weights)

    def discriminator_loss(
        self,
        source_logits: Float[Tensor, "b ..."],
        target_logits: Float[Tensor, "m ..."],
        weights: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """Lambda L_dom, the published rule; with weights lambda L_wdom (ours), which has no gradient in them."""
        weights = None if weights is None else weights.detach()
        return self.lambda_ * weighted_domain_loss(source_logits, target_logits, weights)

    def task_loss(
        self,
        class_logits: Float[Tensor, "b k"],
        labels: Int[Tensor, " b"],
        source_logits: Float[Tensor, "b ..."],
        target_logits: Float[Tensor, "m ..."],
        weights: Float[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """L_cls - lambda L_wdom, which has no gradient in the weights.

        Differentiated with respect to F and C it is what a `GradientReversal` of strength lambda before D gives with
        L_cls + L_wdom.
        """
        check_labels(labels, len(class_logits), class_logits.shape[1])
        cross_entropy = mean_over_processes(F.cross_entropy(class_logits, labels, reduction="none"))
        return cross_entropy - self.lambda_ * weighted_domain_loss(source_logits, target_logits, weights.detach())


def effective_sample_size(weights: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """(sum of w)^2 / sum of w^2: how many images share the weight, from 1 to b.

    Args:
        weights: Not negative.

    Returns:
        Their number, in several processes in the joined batch.

    Example:
        >>> effective_sample_size(torch.tensor([0.5, 0.5, 0.0]))
        tensor(2.)
    """
    total, squares = sum_over_processes(torch.stack([weights.sum(), weights.square().sum()]))
    return total.square() / squares


def source_share(
    weights: Float[Tensor, " b"], domain_ids: Int[Tensor, " b"], num_domains: int | None = None
) -> Float[Tensor, " n"]:
    """How much of the weight lies on each source: for plots, the method does not use it.

    Args:
        weights: Of the source images.
        domain_ids: The source of each, from 0.
        num_domains: Number of sources; in several processes it has to be given. `None`: the largest id + 1.

    Returns:
        A weight for each source; they sum to 1 where the weights do.

    Raises:
        ValueError: Not one id an image, or one outside [0, num_domains).

    Example:
        >>> source_share(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0, 2, 2]))
        tensor([0.5000, 0.0000, 0.5000])
    """
    if domain_ids.shape != weights.shape or weights.ndim != 1 or len(weights) == 0:
        raise ValueError(f"{tuple(domain_ids.shape)} domain ids for {tuple(weights.shape)} weights; one each is wanted")
    count = int(domain_ids.max()) + 1 if num_domains is None else num_domains
    if int(domain_ids.min()) < 0 or int(domain_ids.max()) >= count:
        raise ValueError(
            f"domain ids go from {int(domain_ids.min())} to {int(domain_ids.max())}; 0 to {count - 1} are accepted"
        )
    return sum_over_processes(weights.new_zeros(count).index_add(0, domain_ids, weights))


class CMSS(AdaptationMethod):
    """Adversarial adaptation whose source images are weighted by a curriculum manager.

    All sources of a batch are poured together, and the extractor sees them and the target in one pass, so that batch
    norm shares its statistics.

    Args:
        classifier: F and C; its `body` is the extractor, its `head` the classifier.
        manager: G, which sees the same source images.
        discriminator: D, features to one logit; the paper's for digits, one hidden layer of 1024 with dropout, where
            `None`. With `conditional` it takes as many inputs as `conditioning.out_features` says.
        weight: Factor of lambda, in [0, 1] (ours; the paper's is 1).
        conditional: D sees features and predictions together, as in CDAN: their outer product, above 4096 values a
            random map of it.
        weighted_discriminator: D learns on the weighted loss too (ours).
        gamma: How fast lambda grows, 2 / (1 + exp(-gamma p)) - 1 at progress p.
        manager_lr_mult: Learning rate of the manager, as a factor of the others'.

    Raises:
        ValueError: `weight` outside [0, 1], or `manager_lr_mult` not positive.

    Example:
        >>> from saccade.adaptation.networks import digit_classifier
        >>> scores = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))
        >>> method = CMSS(digit_classifier(side=16), CurriculumManager(scores))
        >>> method.predict(torch.zeros(2, 1, 16, 16)).probabilities.shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        classifier: Classifier,
        manager: CurriculumManager,
        discriminator: nn.Module | None = None,
        weight: float = 1.0,
        conditional: bool = False,
        weighted_discriminator: bool = False,
        gamma: float = 10.0,
        manager_lr_mult: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"weight is {weight}; 0 to 1 is accepted")
        if manager_lr_mult <= 0.0:
            raise ValueError(f"manager_lr_mult is {manager_lr_mult}; more than 0 is accepted")
        self.classifier = classifier
        self.manager = manager
        width = classifier.in_features
        self.conditioning = PredictionConditioning(width, classifier.num_classes) if conditional else None
        if discriminator is None:
            inputs = width if self.conditioning is None else self.conditioning.out_features
            discriminator = DomainDiscriminator(inputs, layers=1)
        self.discriminator = discriminator
        self.weight = weight
        self.weighted_discriminator = weighted_discriminator
        self.gamma = gamma
        self.manager_lr_mult = manager_lr_mult
        self._last: tuple[Tensor, Tensor] | None = None

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """The manager, the discriminator, and extractor and classifier together."""
        return {
            "manager": [{"params": list(self.manager.parameters()), "lr_mult": self.manager_lr_mult}],
            "discriminator": [{"params": list(self.discriminator.parameters())}],
            "classifier": [{"params": list(self.classifier.parameters())}],
        }

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """The manager's step, the discriminator's, and that of extractor and classifier.

        Args:
            batch: Any number of sources and targets; the targets are poured together as the sources are.
            moment: How far training is.

        Yields:
            The three losses.

        Raises:
            ValueError: No source or target, an empty one, labels outside the classes, labelled target images, which
                the method does not know.
        """
        check_batch(batch, self.classifier.num_classes)
        if batch.labelled_target is not None:
            raise ValueError("the batch has labelled target images; CMSS takes a target without labels")
        objective = CMSSObjective(self.weight * adaptation_factor(moment.progress, self.gamma))
        source = torch.cat([part.images for part in batch.sources])
        labels = torch.cat([part.labels for part in batch.sources])
        n = len(source)

        features = self.classifier.features(torch.cat([source, *batch.targets]))
        logits = self.classifier.head(features)
        judged = features if self.conditioning is None else self.conditioning(features, logits)

        answers = self._answers(judged.detach())
        yield Update("manager", objective.manager_loss(answers[:n], answers[n:], self.manager(source)))

        with torch.no_grad():
            weights = self.manager(source)
        self._remember(weights, batch)
        of_discriminator = weights if self.weighted_discriminator else None
        yield Update("discriminator", objective.discriminator_loss(answers[:n], answers[n:], of_discriminator))

        with frozen(self.discriminator):
            answers = self._answers(judged)
        yield Update("classifier", objective.task_loss(logits[:n], labels, answers[:n], answers[n:], weights))

    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """C(F(images)); manager and discriminator play no part, and all domains share one network."""
        return classify(self.classifier, images)

    def measures(self) -> dict[str, float]:
        """Effective sample size and the sources' shares of the weight in the last iteration."""
        if self._last is None:
            return {}
        size, shares = self._last
        return {
            "effective_sample_size": float(size),
            **{f"weight_source_{at}": share for at, share in enumerate(shares.tolist())},
        }

    def _answers(self, judged: Tensor) -> Tensor:
        answers = self.discriminator(judged)
        if answers.shape not in ((len(judged), 1), (len(judged),)):
            raise ValueError(
                f"the discriminator gives {tuple(answers.shape)} for {len(judged)} images; "
                f"({len(judged)}, 1) or ({len(judged)},) is wanted"
            )
        return answers

    def _remember(self, weights: Tensor, batch: DomainBatch) -> None:
        sizes = torch.tensor([len(part.images) for part in batch.sources])
        ids = torch.arange(len(sizes)).repeat_interleave(sizes).to(weights.device)
        self._last = effective_sample_size(weights), source_share(weights, ids, len(sizes))


def _check_curriculum(bound: float | None, min_ess: float) -> None:
    if bound is not None and not bound > 0.0:
        raise ValueError(f"bound is {bound}; a number above 0, or None, is accepted")
    if not 0.0 <= min_ess < 1.0:
        raise ValueError(f"min_ess is {min_ess}; a share of the batch in [0, 1) is accepted")


def _full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _one_logit_each(logits: Tensor, domain: str) -> Tensor:
    if logits.ndim not in (1, 2) or (logits.ndim == 2 and logits.shape[1] != 1):
        raise ValueError(f"{domain} logits are {tuple(logits.shape)}; (n, 1) or (n,) is accepted")
    if len(logits) == 0:
        raise ValueError(f"the {domain} batch is empty; at least one image is wanted")
    return _full_precision(logits.reshape(len(logits)))
