"""The X3D backbone computes what SlowFast and PyTorchVideo compute."""

import pytest

from tests.parity.fixtures import Fixture, folders
from tests.parity.replays.x3d import KINDS

FIXTURES = [Fixture(path) for folder in folders() for path in sorted(folder.glob("autox3d/*.json"))]
CASES = [fixture for fixture in FIXTURES if fixture.kind in KINDS]


@pytest.mark.skipif(not CASES, reason=f"no fixtures under {', '.join(map(str, folders()))}")
@pytest.mark.parametrize("fixture", CASES, ids=lambda fixture: fixture.id)
def test_replay(fixture: Fixture) -> None:
    ours, tolerance = KINDS[fixture.kind](fixture), fixture.json["atol"]
    assert set(fixture.expected) <= set(ours)
    for key, reference in fixture.expected.items():
        assert ours[key].shape == reference.shape, key
        atol = max(tolerance, 1e-5 * float(reference.abs().max())) if key.startswith("grad/") else tolerance
        excess = (ours[key].detach() - reference).abs() - (atol + fixture.json["rtol"] * reference.abs())
        assert bool((excess <= 0).all()), f"{key} is off by {float(excess.max()):.3g} more than allowed"
