import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.ops.features import orthogonal_gaussian, positive_features
from saccade.ops.frame_attention import (
    frame_attention,
    iterative_inverse,
    nystrom_attention,
    orthoformer_attention,
    orthogonal_prototypes,
    performer_attention,
)


def tokens(b: int = 2, frames: int = 3, cells: int = 4, d: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, b, frames * cells, d, dtype=torch.float64, generator=generator).unbind(0)


def definition(q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
    """Query by query and frame by frame."""
    b, n, d = q.shape
    cells = k.shape[1] // frames
    out = torch.zeros(b, n, frames, v.shape[2], dtype=torch.float64)
    for i in range(b):
        for j in range(n):
            for f in range(frames):
                rows = slice(f * cells, (f + 1) * cells)
                weight = [math.exp(float(q[i, j] @ key) / math.sqrt(d)) for key in k[i, rows]]
                for w, value in zip(weight, v[i, rows], strict=True):
                    out[i, j, f] += w / sum(weight) * value
    return out


def test_exact_attention_is_the_definition() -> None:
    q, k, v = tokens()
    torch.testing.assert_close(frame_attention(q, k, v, 3), definition(q, k, v, 3))
    q, v = q[:, :5], v[..., :2]  # any number of queries, any width of values
    torch.testing.assert_close(frame_attention(q, k, v, 3), definition(q, k, v, 3))
    heads = torch.stack([q, 2 * q], 1), torch.stack([k, k], 1), torch.stack([v, -v], 1)
    torch.testing.assert_close(frame_attention(*heads, 3)[:, 1], -definition(2 * q, k, v, 3))


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "exact": lambda q, k, v: frame_attention(q, k, v, 3),
    "orthoformer": lambda q, k, v: orthoformer_attention(q, k, v, 3, 5),
    "orthoformer per frame": lambda q, k, v: orthoformer_attention(q, k, v, 3, 2, shared=False),
    "nystrom": lambda q, k, v: nystrom_attention(q, k, v, 3, 4),
    "performer": lambda q, k, v: performer_attention(
        q, k, v, 3, num_features=16, generator=torch.Generator().manual_seed(0)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    q, k, v = (x.requires_grad_() for x in tokens(1))
    assert torch.autograd.gradcheck(KINDS[kind], (q, k, v)) if kind != "nystrom" else True
    (grad,) = torch.autograd.grad(KINDS[kind](q, k, v).sum(), v)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("kind", ["exact", "orthoformer", "orthoformer per frame", "performer"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_weights_sum_to_one_in_each_frame_and_rows_are_independent(kind: str, seed: int) -> None:
    q, k, v = tokens(seed=seed)
    ones = KINDS[kind](q, k, torch.ones_like(v))
    torch.testing.assert_close(ones, torch.ones_like(ones))
    if kind != "performer":  # whose largest key is that of all tokens of a row
        torch.testing.assert_close(KINDS[kind](q[:1], k[:1], v[:1]), KINDS[kind](q, k, v)[:1])


@given(order=st.permutations(range(4)), frame=st.integers(0, 2))
@settings(max_examples=8, deadline=None)
def test_the_order_of_a_frames_cells_does_not_matter_to_what_is_pooled(order: list[int], frame: int) -> None:
    q, k, v = tokens()
    moved = [x.clone() for x in (k, v)]
    rows = torch.arange(4) + 4 * frame
    for new, old in zip(moved, (k, v), strict=True):
        new[:, rows] = old[:, rows[torch.tensor(order)]]
    torch.testing.assert_close(frame_attention(q, *moved, 3), frame_attention(q, k, v, 3))


def test_prototypes_are_the_least_alike() -> None:
    q = tokens(d=3)[0]
    unit = q / q.norm(dim=-1, keepdim=True)
    for row, chosen in enumerate(orthogonal_prototypes(q, 6, first_index=7).tolist()):
        expected = [7]
        for _ in range(5):
            likeness = [max(abs(float(unit[row, i] @ unit[row, j])) for j in expected) for i in range(12)]
            left = [i for i in range(12) if i not in expected]
            expected.append(min(left, key=lambda i: likeness[i]))
        assert chosen == expected


def test_the_first_prototype_is_given_drawn_or_zero() -> None:
    q = tokens(b=5)[0]
    assert orthogonal_prototypes(q, 3)[:, 0].tolist() == [0] * 5
    assert orthogonal_prototypes(q, 3, torch.arange(5))[:, 0].tolist() == list(range(5))
    state = torch.get_rng_state()
    one, two = (orthogonal_prototypes(q, 3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(state, torch.get_rng_state())  # nothing global was drawn from
    assert len({tuple(row) for row in orthogonal_prototypes(q, 12).sort(1).values.tolist()}) == 1  # all, each once


def test_the_consistent_per_frame_form_equals_the_codes_on_the_querys_own_frame_alone() -> None:
    q, k, v = tokens()
    code, consistent = (orthoformer_attention(q, k, v, 3, 2, shared=False, consistent=c) for c in (False, True))
    frame = torch.arange(12) // 4
    rows = torch.arange(12)
    torch.testing.assert_close(code[:, rows, frame], consistent[:, rows, frame])
    assert (code - consistent)[:, rows, (frame + 1) % 3].abs().max() > 1e-3


def test_candidates_are_queries_unless_keys_are_asked_for_too() -> None:
    q, k, v = tokens()
    pool = torch.cat([q, k], 1)
    chosen = orthogonal_prototypes(pool, 5).sort(1).values
    assert (chosen >= 12).any()  # some keys are among them
    scale = 8**-0.25
    prototypes = pool.gather(1, chosen[..., None].expand(-1, -1, 8)) * scale
    near = (q * scale @ prototypes.mT).softmax(-1)
    far = (prototypes[:, None] @ (k * scale).unflatten(1, (3, 4)).mT).softmax(-1)
    expected = torch.einsum("bnr,bfrp,bfpe->bnfe", near, far, v.unflatten(1, (3, 4)))
    both = orthoformer_attention(q, k, v, 3, 5, candidates="queries_and_keys")
    torch.testing.assert_close(both, expected)
    assert (orthoformer_attention(q, k, v, 3, 5) - both).abs().max() > 1e-3


def test_a_share_of_the_candidates_is_drawn_from_the_generator() -> None:
    q, k, v = tokens()

    def out(seed: int) -> Tensor:
        return orthoformer_attention(q, k, v, 3, 3, share=0.5, generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(out(0), out(0))
    assert any((out(0) - out(seed)).abs().max() > 1e-3 for seed in range(1, 5))


def test_nystrom_with_every_token_a_landmark_is_exact() -> None:
    q, k, v = tokens()
    for spatial in (False, True):
        ours = nystrom_attention(3 * q, k, v, 3, 12, spatial=spatial, iterations=60)
        torch.testing.assert_close(ours, definition(3 * q, k, v, 3), atol=1e-4, rtol=1e-4)


def test_segments_that_do_not_divide_are_one_longer_at_the_end() -> None:
    q, k, v = tokens(frames=1, cells=11)
    runs = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 11)]  # the first (11 // 5 + 1) * 5 - 11 = 4 have two tokens
    q_marks, k_marks = (torch.stack([x[:, a:b].mean(1) for a, b in runs], 1) for x in (q * 8**-0.5, k))
    weights = (q * 8**-0.5 @ k_marks.mT).softmax(-1) @ iterative_inverse((q_marks @ k_marks.mT).softmax(-1))
    expected = weights @ ((q_marks @ k.mT).softmax(-1) @ v)
    torch.testing.assert_close(nystrom_attention(q, k, v, 1, 5)[:, :, 0], expected)


def test_the_iterative_inverse_converges() -> None:
    matrix = (4 * torch.eye(6, dtype=torch.float64) + torch.randn(3, 6, 6, dtype=torch.float64)).softmax(-1)
    torch.testing.assert_close(iterative_inverse(matrix, 30), torch.linalg.inv(matrix))


def test_random_features_converge_to_the_softmax_kernel() -> None:
    q, k, v = (0.5 * x for x in tokens(d=4))
    exact = definition(q, k, v, 3)

    def error(count: int) -> float:
        outs = [
            performer_attention(q, k, v, 3, num_features=count, generator=torch.Generator().manual_seed(seed))
            for seed in range(5)
        ]
        return float(torch.stack([(out - exact).norm() for out in outs]).mean() / exact.norm())

    assert 2 * error(4096) < error(8)


def test_features_are_stable_for_large_tokens_and_projections_orthogonal() -> None:
    w = orthogonal_gaussian(10, 4)
    product = w[:4] @ w[:4].T
    assert float((product - product.diag().diag()).abs().max()) < 1e-5
    x = 1e3 * torch.randn(1, 5, 4)
    for kind in ("query", "key"):
        features = positive_features(x, w, kind)
        assert torch.isfinite(features).all()
        assert (features > 0).all()


def test_nothing_flows_back_through_the_choice_of_prototypes() -> None:
    q, k, v = (x.float().requires_grad_() for x in tokens())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        orthoformer_attention(q, k, v, 3, 4).sum().backward()
    assert torch.isfinite(q.grad).all()
    assert not orthogonal_prototypes(q, 4).requires_grad


BAD = [
    (lambda q, k, v: frame_attention(q, k, v, 5), "12 tokens are no multiple of num_frames=5"),
    (lambda q, k, v: frame_attention(q, k, v, 0), "num_frames has to be at least 1"),
    (lambda q, k, v: frame_attention(q[0], k[0], v[0], 3), "queries have to be"),
    (lambda q, k, v: orthogonal_prototypes(q, 13), "from 1 to 12, the number of candidates, not 13"),
    (lambda q, k, v: orthogonal_prototypes(q, 0), "from 1 to 12"),
    (lambda q, k, v: orthogonal_prototypes(q, 2, 12), "first_index is 12"),
    (lambda q, k, v: orthogonal_prototypes(q, 2, torch.zeros(3, dtype=torch.int64)), "one index for each of 2 rows"),
    (lambda q, k, v: orthoformer_attention(q, k, v, 3, 5, shared=False), "from 1 to 4"),
    (lambda q, k, v: orthoformer_attention(q, k, v, 3, 5, candidates="keys"), "'queries_and_keys', not 'keys'"),
    (lambda q, k, v: orthoformer_attention(q, k, v, 3, 5, share=0.0), "share has to be above 0"),
    (lambda q, k, v: nystrom_attention(q, k, v, 3, 13), "from 1 to 12"),
    (lambda q, k, v: nystrom_attention(q, k, v, 5, 3), "no multiple"),
    (lambda q, k, v: performer_attention(q, k, v, 5), "no multiple"),
    (lambda q, k, v: positive_features(q, torch.ones(2, 8), "value"), "'query' or 'key'"),
    (lambda q, k, v: orthogonal_gaussian(0, 4), "num_features and dim"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(call: Callable[[Tensor, Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*tokens())
