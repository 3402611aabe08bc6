"""How good a map is without annotation: what the model still says when little is shown, or much is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.explain.backprop import check_images
from saccade.explain.perturbation import Perturbation, PerturbationKind
from saccade.explain.targets import Target, check_output, class_indices
from saccade.surgery import frozen


def best_pixels(maps: Float[Tensor, "n 1 h w"], area: float) -> Bool[Tensor, "n 1 h w"]:
    """The largest values of each map, exactly round(area * h * w) of them.

    Args:
        maps: Maps.
        area: Share of the pixels, in (0, 1].

    Returns:
        True where kept; among equal values the earlier ones in reading order.

    Raises:
        ValueError: An area outside (0, 1].

    Example:
        >>> best_pixels(torch.arange(4.0).view(1, 1, 2, 2), 0.5).int().flatten()
        tensor([0, 0, 1, 1], dtype=torch.int32)
    """
    if not 0 < area <= 1:
        raise ValueError(f"area {area}: wanted a share in (0, 1]")
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    return kept.scatter_(1, order[:, : round(area * flat.shape[1])], True).view_as(maps)


def preserved_score(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    maps: Float[Tensor, "n 1 h w"],
    area: float,
    *,
    perturbation: PerturbationKind = "blur",
    max_blur: float = 20.0,
) -> Float[Tensor, " n"]:
    """Logit of the target when only the best pixels of a map are shown: maps compared at equal area.

    Args:
        model: Gives logits.
        image: Images.
        target: One class, or one for each.
        maps: A map for each, of the images' size.
        area: Share of the pixels that is shown.
        perturbation: What is done to the others.
        max_blur: Blur of the others in pixels.

    Returns:
        One logit an image.

    Raises:
        TypeError: The target is no class index.
        ValueError: Maps of another size, a target out of range.
    """
    _check_maps(image, maps)
    shown = Perturbation(image, perturbation, max_blur=max_blur).apply(best_pixels(maps, area).to(image.dtype))
    with frozen(model), torch.no_grad():
        scores = _averaged(model(shown))
    return scores[torch.arange(len(image)), class_indices(target, len(image), scores.shape[1], scores.device)]


@dataclass(frozen=True)
class Curves:
    """Probability of the target while pixels are removed or shown in the map's order.

    Args:
        shares: Share of the pixels that has been removed or shown.
        probabilities: Softmax score of the target.
    """

    shares: Float[Tensor, " steps"]
    probabilities: Float[Tensor, "n steps"]

    @property
    def area(self) -> Float[Tensor, " n"]:
        """Area under each curve (trapezoid)."""
        return torch.trapezoid(self.probabilities, self.shares.to(self.probabilities), dim=1)


def deletion_insertion(
    model: nn.Module,
    image: Float[Tensor, "n c h w"],
    target: Target,
    maps: Float[Tensor, "n 1 h w"],
    mode: Literal["deletion", "insertion"],
    *,
    steps: int = 100,
    perturbation: PerturbationKind | None = None,
    max_blur: float = 20.0,
    batch: int = 64,
) -> Curves:
    """Deletion and insertion curves.

    Args:
        model: Gives logits.
        image: Images.
        target: One class, or one for each.
        maps: A map for each, of the images' size.
        mode: `deletion` starts from the image and perturbs its best pixels first (a good map: a small area under the
            curve); `insertion` starts from the perturbed image and shows them first (large).
        steps: Steps from nothing to everything.
        perturbation: `None`: fade for deletion, blur for insertion, as in arXiv:1806.07421.
        max_blur: Blur in pixels.
        batch: Images per pass.

    Returns:
        Curves with steps + 1 points.

    Raises:
        TypeError: The target is no class index.
        ValueError: An unknown mode, maps of another size, a target out of range.
    """
    if mode not in ("deletion", "insertion"):
        raise ValueError(f"mode {mode!r}: wanted deletion or insertion")
    if steps < 1:
        raise ValueError(f"steps is {steps}: wanted at least 1")
    _check_maps(image, maps)
    kind: PerturbationKind = perturbation or ("fade" if mode == "deletion" else "blur")
    shares = torch.linspace(0, 1, steps + 1)
    rank = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view_as(maps)
    counts = (shares * rank[0].numel()).round().to(image.device)
    rows = []
    with frozen(model), torch.no_grad():
        for one, order, index in zip(image, rank, _targets(model, image, target), strict=True):
            done = (order[None] < counts.view(-1, 1, 1, 1)).to(image.dtype)
            masks = 1 - done if mode == "deletion" else done
            perturbed = Perturbation(one[None], kind, max_blur=max_blur)
            parts = [_averaged(model(perturbed.apply(part))).softmax(1)[:, index] for part in masks.split(batch)]
            rows.append(torch.cat(parts))
    return Curves(shares, torch.stack(rows))


def _averaged(output: object) -> Tensor:
    checked = check_output(output)
    return checked.flatten(2).mean(2) if checked.ndim > 2 else checked


def _targets(model: nn.Module, image: Tensor, target: Target) -> list[int]:
    classes = _averaged(model(image[:1])).shape[1]
    return class_indices(target, len(image), classes, image.device).tolist()


def _check_maps(image: Tensor, maps: Tensor) -> None:
    check_images(image)
    if maps.shape != (len(image), 1, *image.shape[-2:]):
        raise ValueError(f"maps {tuple(maps.shape)} do not fit images {tuple(image.shape)}: resize them to the images")
