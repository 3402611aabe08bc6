"""Perturbing an image by degrees: a pyramid from fully blurred (or black) to untouched, read by a mask."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.ops.smoothing import gaussian_smooth

PerturbationKind = Literal["blur", "fade"]


class Perturbation:
    """Mixes each pixel of an image between "fully perturbed" (mask 0) and "kept" (mask 1).

    Level l of L has strength s = l / (L - 1): *blur* smooths with sigma (1 - s) * max_blur and zero padding, *fade*
    multiplies by s. A mask value picks two neighbouring levels and interpolates linearly between them, so that the
    gradient reaches the mask through the interpolation alone, and is zero where the mask is exactly 1.

    The levels are kept as one table of pixels beside their differences to the next level: a mask then costs a single
    row look-up and one multiply-add, and the result lies in memory as `channels_last`.

    Args:
        image: One image or a batch, any range.
        kind: `blur` or `fade`.
        num_levels: L, at least 2.
        max_blur: Sigma of level 0 in pixels.

    Raises:
        ValueError: Not a float image batch, an unknown kind, fewer than two levels, a negative blur.

    Source:
        arXiv:1910.08485, section 3.1, and the discretisation of its library.

    Example:
        >>> fade = Perturbation(torch.ones(1, 3, 4, 4), "fade")
        >>> fade.apply(torch.full((2, 1, 4, 4), 0.25)).mean()
        tensor(0.2500)
    """

    def __init__(
        self,
        image: Float[Tensor, "b c h w"],
        kind: PerturbationKind = "blur",
        *,
        num_levels: int = 8,
        max_blur: float = 20.0,
    ) -> None:
        if not isinstance(image, Tensor) or image.ndim != 4 or not image.is_floating_point():
            raise ValueError(f"the image has to be a float tensor (b, c, h, w), not {_what(image)}")
        if kind not in get_args(PerturbationKind):
            raise ValueError(f"perturbation {kind!r}: wanted one of {', '.join(get_args(PerturbationKind))}")
        if num_levels < 2:
            raise ValueError(f"num_levels is {num_levels}: wanted at least 2")
        if max_blur < 0:
            raise ValueError(f"max_blur is {max_blur}: wanted 0 or more pixels")
        self.kind = kind
        self.num_levels = num_levels
        strengths = [level / (num_levels - 1) for level in range(num_levels)]
        image = image.detach()
        if kind == "blur":
            levels = [gaussian_smooth(image, (1 - strength) * max_blur) for strength in strengths]
        else:
            levels = [strength * image for strength in strengths]
        self._levels = torch.stack(levels, dim=1)
        self._shape = image.shape
        steps = torch.zeros_like(self._levels)
        steps[:, :-1] = self._levels[:, 1:] - self._levels[:, :-1]
        both = torch.cat([self._levels, steps], dim=2).permute(0, 1, 3, 4, 2)
        self._table = both.reshape(-1, both.shape[-1]).contiguous()

    @property
    def pyramid(self) -> Float[Tensor, "b levels c h w"]:
        """All levels of each image, the most perturbed first."""
        return self._levels

    def apply(self, mask: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n c h w"]:
        """Perturb: one result for every mask.

        Args:
            mask: 1 keeps a pixel, 0 perturbs it fully. Several masks belong to one image where there is one, else n
                is a multiple of b, and consecutive masks belong to the same image.

        Returns:
            Perturbed images.

        Raises:
            ValueError: A mask of another size or count, or values outside [0, 1].
        """
        b, _, h, w = self._shape
        if mask.ndim != 4 or mask.shape[1:] != (1, h, w) or mask.shape[0] % b:
            raise ValueError(f"masks have to be (n, 1, {h}, {w}), n a multiple of {b}; got {tuple(mask.shape)}")
        low, high = (float(end) for end in mask.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"mask values have to lie in [0, 1]; got {low:.4g} to {high:.4g}")
        return self._mix(mask)

    def _mix(self, mask: Tensor) -> Tensor:
        """As `apply`, for masks known to be right."""
        b, c, h, w = self._shape
        position = mask.flatten(1) * (self.num_levels - 1)
        level = position.detach().floor()
        share = (position - level).unsqueeze(-1)
        rows = self._rows(level.long(), mask.shape[0] // b, h * w)
        pixels = torch.nn.functional.embedding(rows, self._table)
        mixed = torch.addcmul(pixels[..., :c], share.to(pixels.dtype), pixels[..., c:])
        return mixed.view(-1, h, w, c).permute(0, 3, 1, 2)

    def _rows(self, level: Int[Tensor, "n p"], masks_per_image: int, size: int) -> Int[Tensor, "n p"]:
        image = torch.arange(level.shape[0], device=level.device)[:, None] // masks_per_image
        pixel = torch.arange(size, device=level.device)
        return (image * self.num_levels + level) * size + pixel


def _what(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
