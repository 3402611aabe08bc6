"""The library's operators in terms of torch's."""

import pytest
import torch

from saccade.ops import correlation, window_convolution  # noqa: F401  (they register the operators)
from saccade.ops.plain import plain_operators

OWN = torch.ops.saccade
CASES = {
    "correlation": (OWN.local_correlation.default, (torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6), 5, 1)),
    "wide correlation": (OWN.local_correlation.default, (torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3), 7, 2)),
    "self-similarity": (OWN.self_similarity.default, (torch.randn(2, 4, 3, 5, 4), 3, 5)),
    "self-similarity beyond the clip": (OWN.self_similarity.default, (torch.randn(1, 2, 3, 4, 4), 7, 3)),
    "convolution": (OWN.window_convolution.default, (torch.randn(5, 10, 7), torch.randn(12, 3, 10), 1, 1)),
    "strided": (OWN.window_convolution.default, (torch.randn(9, 10, 7), torch.randn(12, 3, 10), 2, 0)),
    "normalised": (
        OWN.normalized_window_convolution.default,
        (
            torch.randn(5, 10, 7),
            torch.rand(2),
            torch.randn(2),
            torch.randn(2),
            torch.rand(2) + 0.5,
            torch.randn(12, 3, 10),
            False,
            1e-5,
            1,
            1,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_plain_operators_compute_the_same(name: str) -> None:
    operator, arguments = CASES[name]
    ours, plain = operator(*arguments), plain_operators()[operator](*arguments)
    torch.testing.assert_close(plain, ours, atol=2e-5, rtol=2e-5)


def test_every_forward_operator_has_a_plain_form() -> None:
    known = {str(operator) for operator in plain_operators()}
    own = {f"saccade.{name}.default" for name in dir(OWN) if not name.startswith("_") and name != "name"}
    assert {name for name in own if not name.endswith("_backward.default")} == known


def test_training_is_refused() -> None:
    operator, arguments = CASES["normalised"]
    with pytest.raises(ValueError, match="call eval"):
        plain_operators()[operator](*arguments[:6], True, *arguments[7:])
