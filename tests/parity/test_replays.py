"""Every part computes what the authors' code computes, on every fixture that is found."""

import pytest
import torch

from tests.parity.fixtures import Fixture, folders, replay_of

CASES = [
    Fixture(path)
    for folder in folders()
    for path in sorted(folder.glob("*/*.json"))
    if replay_of(path.parent.name) is not None
]


@pytest.mark.skipif(not CASES, reason=f"no fixtures under {', '.join(map(str, folders()))}")
@pytest.mark.parametrize("fixture", CASES, ids=lambda fixture: fixture.id)
def test_replay(fixture: Fixture) -> None:
    module = replay_of(fixture.slug)
    assert module is not None
    assert fixture.kind in module.KINDS, f"nobody replays kind {fixture.kind!r} of {fixture.id}"
    left_out = getattr(module, "LEFT_OUT", {}).get(fixture.kind, {})
    if hasattr(module, "left_out"):
        left_out = module.left_out(fixture)
    expected = {key: value for key, value in fixture.expected.items() if key not in left_out}

    ours = module.KINDS[fixture.kind](fixture)

    silent = sorted(set(expected) - set(ours))
    assert not silent, f"{fixture.id}: nobody replays {silent}"
    wrong = {}
    for key, reference in expected.items():
        actual = ours[key].detach()
        if actual.shape != reference.shape:
            wrong[key] = f"shape {tuple(actual.shape)} instead of {tuple(reference.shape)}"
            continue
        reference, actual = reference.to(torch.float64), actual.to(torch.float64)
        atol = fixture.json["atol"]
        if key.startswith("grad/"):
            atol = max(atol, 1e-5 * float(reference.abs().max()))
        excess = (actual - reference).abs() - (atol + fixture.json["rtol"] * reference.abs())
        excess[actual.isnan() & reference.isnan()] = 0  # where the reference has no number, ours has none
        if not bool((excess <= 0).all()):
            wrong[key] = f"off by up to {float((actual - reference).abs().max()):.3g}"
    assert not wrong, f"{fixture.id}: {wrong}"
