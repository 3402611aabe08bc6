"""Extremal perturbations: the smooth mask of a given area that excites an output most.

Attribution asks which part of an image makes a trained network respond. An *extremal perturbation* answers by search:
of all smooth masks that keep a fixed share `a` of the image and blur the rest, it is the one that makes the chosen
output largest. Earlier mask methods balance size, smoothness and effect by weights that must be tuned for each image;
here the area is a constraint, smoothness comes from the family of masks itself, and what remains is the effect.
Several areas are searched at once; the first area whose mask brings the score back over a threshold tells how much
of the image the network needs, and the sum of the masks is a saliency map.

The mask is a coarse grid of parameters blown up by a smooth maximum
([`SmoothMask`][saccade.explain.smooth_mask.SmoothMask]); it mixes the image with its blurred self
([`Perturbation`][saccade.explain.perturbation.Perturbation]); the area is held by comparing the sorted mask values
with a step ([`area_distance`][saccade.explain.ascent.area_distance]), with a weight that grows during the search.
The same search runs on the channels of an inner layer
([`channel_attribution`][saccade.explain.channels.channel_attribution]).

    from torchvision.models import resnet50
    from saccade.explain import ExtremalPerturbation

    explain = ExtremalPerturbation(resnet50(weights="DEFAULT"), areas=(0.05, 0.1, 0.2))
    result = explain.attribute(image, target=282)       # image (1, 3, 224, 224), normalised; 282 is a tiger cat
    result.saliency, result.masks, result.optimal_area  # (1, 1, 224, 224), (3, 1, 224, 224), 0.05 perhaps

It needs a few hundred forward and backward passes of a batch of as many images as there are areas. Targets are
outputs before the softmax. Areas are shares of the full mask, which exceeds the image by about sigma on each side, so
that the visible mask may be larger than `a` (by up to 1.35 at 224 px and sigma 21, more for small images: keep sigma
below a tenth of the side); `area_on="visible"` measures the image's part alone.

Source: R. Fong, M. Patrick, A. Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks",
arXiv:1910.08485.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.explain.ascent import Ascent, area_distance, ascend, check_areas
from saccade.explain.maps import Resize, finish
from saccade.explain.perturbation import Perturbation, PerturbationKind, _what
from saccade.explain.plain import PlainMask, plain_area_distance
from saccade.explain.smooth_mask import SmoothMask
from saccade.explain.targets import (
    Reward,
    Target,
    Variant,
    check_output,
    class_indices,
    contrastive_reward,
    simple_reward,
)
from saccade.ops.smoothing import gaussian_smooth
from saccade.surgery import frozen

REWARDS: dict[str, Reward] = {"simple": simple_reward, "contrastive": contrastive_reward}
AreaOn = Literal["full", "visible"]


@dataclass(frozen=True)
class ExtremalResult:
    """What the search found for one image.

    Args:
        masks: One mask an area, of the image's size (or of the size asked for), in [0, 1]: 1 is kept.
        history: Reward and area term (not positive) of each mask at every step.
        saliency: Sum of the masks over areas, smoothed with 0.09 of the shorter side.
        areas: The shares that were asked for.
        visible_areas: Mean of each mask over the image.
        scores: Reward when what each mask keeps is shown.
        image_score: Reward of the whole image.
        perturbed_score: Reward of the fully perturbed image.
        optimal_area: The smallest area whose score reaches the threshold; `None` where none does.
    """

    masks: Float[Tensor, "areas 1 H W"]
    history: Float[Tensor, "areas 2 steps"]
    saliency: Float[Tensor, "1 1 h w"]
    areas: tuple[float, ...]
    visible_areas: tuple[float, ...]
    scores: tuple[float, ...]
    image_score: float
    perturbed_score: float
    optimal_area: float | None


class ExtremalPerturbation:
    """Extremal perturbation of a model: settings once, then any number of images.

    Args:
        model: Gives logits (n, k) or (n, k, h, w); several positions are averaged. Is run in eval mode, its mode and
            gradient flags are as before afterwards. Runs wherever it and the image are; under `torch.autocast` the
            masks stay in their own precision.
        areas: Shares of the mask to keep, each in (0, 1].
        perturbation: What is done to pixels that are not kept: `blur` or `fade` (to zero).
        step: Pixels per mask parameter.
        sigma: Radius of the mask's kernel in pixels.
        max_iter: Steps of the search.
        variant: `preserve` shows what the mask keeps, `delete` the rest (the reward is negated), `dual` both.
        reward: `simple`, the target's output; `contrastive`, its lead over the best other class; or a function of
            output (n, k, ...), target (m,) and variant that gives (m, ...), higher is better.
        jitter: Flip the perturbed image horizontally at every other step.
        growth: Factor on the area's weight per step; `None`: 1.0035^(800 / max_iter).
        lr: Step size.
        momentum: Of the ascent.
        dampening: Of the ascent.
        area_weight: Initial weight of the area term.
        area_on: Whether the area is measured on the full mask (as in the paper's code) or on the image's part.
        num_levels: Levels of the perturbation.
        max_blur: Largest blur in pixels.
        threshold: Share of the way from the fully perturbed score to the image's own that counts as enough.
        resize: Size of the masks: `True` or `False` for the image's, or (height, width).
        smooth: Gaussian smoothing of the masks, sigma as a share of their shorter side.
        plain: Search in the authors' formulation, slow, with their choices among equal mask values; see
            `saccade.explain.plain`.

    Raises:
        TypeError: The model is no module.
        ValueError: A setting that makes no sense; the message says what is accepted.

    Source:
        arXiv:1910.08485, section 3.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> explain = ExtremalPerturbation(model, areas=(0.2,), step=4, sigma=4, max_iter=5)
        >>> result = explain.attribute(torch.rand(1, 3, 24, 24), target=2)
        >>> result.masks.shape, result.history.shape
        (torch.Size([1, 1, 24, 24]), torch.Size([1, 2, 5]))
    """

    def __init__(
        self,
        model: nn.Module,
        areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2),
        perturbation: PerturbationKind = "blur",
        step: int = 7,
        sigma: float = 21.0,
        max_iter: int = 800,
        variant: Variant = "preserve",
        reward: Literal["simple", "contrastive"] | Reward = "simple",
        jitter: bool = True,
        *,
        growth: float | None = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        dampening: float = 0.9,
        area_weight: float = 300.0,
        area_on: AreaOn = "full",
        num_levels: int = 8,
        max_blur: float = 20.0,
        threshold: float = 0.9,
        resize: Resize = False,
        smooth: float = 0.0,
        plain: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model has to be an nn.Module, not a {type(model).__name__}")
        for name, value, accepted in (
            ("perturbation", perturbation, get_args(PerturbationKind)),
            ("variant", variant, get_args(Variant)),
            ("area_on", area_on, get_args(AreaOn)),
            ("reward", reward, tuple(REWARDS)),
        ):
            if value not in accepted and not (name == "reward" and callable(value)):
                raise ValueError(f"{name} {value!r}: wanted one of {', '.join(accepted)}")
        SmoothMask((1, 1), step, sigma)
        if num_levels < 2:
            raise ValueError(f"num_levels is {num_levels}: wanted at least 2")
        self.model = model
        self.areas = check_areas(areas)
        self.perturbation = perturbation
        self.step = step
        self.sigma = sigma
        self.variant: Variant = variant
        self.reward: Reward = REWARDS[reward] if isinstance(reward, str) else reward
        self.jitter = jitter
        self.settings = Ascent(max_iter, lr, momentum, dampening, area_weight, growth)
        self.area_on = area_on
        self.num_levels = num_levels
        self.max_blur = max_blur
        self.threshold = threshold
        self.resize: Resize = resize
        self.smooth = smooth
        self.plain = plain

    def attribute(
        self, image: Float[Tensor, "1 c h w"], target: int, *, progress: Callable[[float], None] | None = None
    ) -> ExtremalResult:
        """Search the masks of one image.

        Args:
            image: As the model wants it.
            target: Class, or channel of the output.
            progress: Called with the share that is done.

        Returns:
            Masks, history, saliency map, scores.

        Raises:
            TypeError: The target is no whole number.
            ValueError: Not one float image, a target out of range, or an output that is not (n, k) or (n, k, h, w).
            RuntimeError: The reward became NaN; the message names the iteration.
        """
        if not isinstance(image, Tensor) or image.ndim != 4 or len(image) != 1 or not image.is_floating_point():
            raise ValueError(f"wanted one float image (1, c, h, w), got {_what(image)}")
        return self.attribute_batch(image, target, progress=progress)[0]

    def attribute_batch(
        self, images: Float[Tensor, "b c h w"], targets: Target, *, progress: Callable[[float], None] | None = None
    ) -> list[ExtremalResult]:
        """Search the masks of several images of one size together, all areas of all images as one batch.

        Args:
            images: As the model wants them.
            targets: One class for all, or one for each.
            progress: Called with the share that is done.

        Returns:
            One result an image, the same as one by one.

        Raises:
            TypeError: A target is no whole number.
            ValueError: As `attribute`.
            RuntimeError: As `attribute`.
        """
        perturbation = Perturbation(images, self.perturbation, num_levels=self.num_levels, max_blur=self.max_blur)
        with frozen(self.model):
            with torch.no_grad():
                whole = check_output(self.model(images))
                target = class_indices(targets, len(images), whole.shape[1], images.device)
                image_scores = self._score(whole, target)
                nothing = self.model(perturbation.pyramid[:, 0])
                perturbed_scores = self._score(nothing, target)
            masks, history = self._search(perturbation, images, target, progress)
            with torch.no_grad():
                kept = self.model(perturbation._mix(masks))
                scores = self._score(kept, target.repeat_interleave(len(self.areas)))
        return [
            self._result(masks[rows], history[rows], scores[rows], float(image_scores[i]), float(perturbed_scores[i]))
            for i in range(len(images))
            for rows in [slice(i * len(self.areas), (i + 1) * len(self.areas))]
        ]

    def _search(
        self, perturbation: Perturbation, images: Tensor, target: Tensor, progress: Callable[[float], None] | None
    ) -> tuple[Tensor, Tensor]:
        generator = SmoothMask((images.shape[-2], images.shape[-1]), self.step, self.sigma).to(images.device)
        per_mask = target.repeat_interleave(len(self.areas))
        plain = PlainMask(generator, images.device, images.dtype) if self.plain else None

        def full_masks(parameters: Tensor) -> Tensor:
            return generator._full(parameters, bounded=True) if plain is None else plain.full(parameters)

        def evaluate(parameters: Tensor, step: int) -> tuple[Tensor, Tensor]:
            full = full_masks(parameters)
            mask = generator.crop(full)
            shown = {
                "preserve": lambda: perturbation._mix(mask),
                "delete": lambda: perturbation._mix(1 - mask),
                "dual": lambda: torch.cat([perturbation._mix(mask), perturbation._mix(1 - mask)]),
            }[self.variant]()
            if self.jitter and step % 2 == 0:
                shown = shown.flip(-1)
            reward = self.reward(self.model(shown), per_mask, self.variant)
            return self._averaged(reward), (full if self.area_on == "full" else mask).flatten(1)

        start = torch.ones(len(per_mask), 1, *generator.shape_in, dtype=images.dtype, device=images.device)
        distance = plain_area_distance if self.plain else area_distance
        last, _, history = ascend(start, evaluate, self.areas, self.settings, progress, distance)
        with torch.no_grad():
            return generator.crop(full_masks(last)), history

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        """Reward when images are shown, whatever the variant of the search."""
        return self._averaged(self.reward(output, target, "preserve"))

    @staticmethod
    def _averaged(reward: Tensor) -> Tensor:
        return reward.flatten(1).mean(1) if reward.ndim > 1 else reward

    def _result(
        self, masks: Tensor, history: Tensor, scores: Tensor, image_score: float, perturbed_score: float
    ) -> ExtremalResult:
        wanted = perturbed_score + self.threshold * (image_score - perturbed_score)
        enough = [area for area, score in zip(self.areas, scores.tolist(), strict=True) if score >= wanted]
        shorter = min(masks.shape[-2:])
        return ExtremalResult(
            masks=finish(masks, masks.shape[-2:], self.resize, self.smooth * _shorter(masks, self.resize), "zero"),
            history=history,
            saliency=gaussian_smooth(masks.sum(0, keepdim=True), 0.09 * shorter),
            areas=self.areas,
            visible_areas=tuple(masks.mean((1, 2, 3)).tolist()),
            scores=tuple(scores.tolist()),
            image_score=image_score,
            perturbed_score=perturbed_score,
            optimal_area=min(enough, default=None),
        )


def extremal_perturbation(model: nn.Module, image: Tensor, target: int, **settings: Any) -> ExtremalResult:
    """One call: `ExtremalPerturbation(model, **settings).attribute(image, target)`.

    Args:
        model: Gives logits.
        image: One image (1, c, h, w).
        target: Class.
        settings: As in `ExtremalPerturbation`.

    Returns:
        Masks, history, saliency map, scores.

    Raises:
        TypeError: As there.
        ValueError: As there.
        RuntimeError: As there.
    """
    return ExtremalPerturbation(model, **settings).attribute(image, target)


def _shorter(masks: Tensor, resize: Resize) -> int:
    return min(resize) if isinstance(resize, tuple) else min(masks.shape[-2:])
