"""Places, the command, tasks, and the claim."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.claims import engine
from saccade.cli import main
from saccade.flows import (
    HyperbolicVAE,
    Sphere,
    latlon_to_sphere,
    load_earth_events,
    read_events,
    sphere_cnf,
    sphere_to_latlon,
    synthetic_density,
)
from saccade.flows.claims.neural_manifold_ode import NEURAL_MANIFOLD_ODE, FlatFlow
from saccade.flows.data import BranchingDiffusion, Digits, EarthEvents, SyntheticDensity
from saccade.flows.earth import integrate_sphere, split_80_10_10
from saccade.flows.task import Autoencoding, DensityEstimation
from saccade.training import fit
from saccade.worlds.trees import branching_diffusion


def test_degrees_to_points_and_back() -> None:
    degrees = torch.stack([torch.linspace(-89, 89, 50), torch.linspace(-179, 179, 50)], dim=1).double()
    x = latlon_to_sphere(degrees)
    Sphere(2).check(x)
    torch.testing.assert_close(sphere_to_latlon(x), degrees)
    with pytest.raises(ValueError, match="a latitude is 91"):
        latlon_to_sphere(torch.tensor([[91.0, 0.0]]))
    with pytest.raises(ValueError, match=r"a longitude is 200.*with wrap"):
        latlon_to_sphere(torch.tensor([[0.0, 200.0]]))
    torch.testing.assert_close(
        latlon_to_sphere(torch.tensor([[10.0, 200.0]]), wrap=True), latlon_to_sphere(torch.tensor([[10.0, -160.0]]))
    )


def test_bad_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("# a comment\nname,longitude,Latitude\na,10,20\nb,x,3\nc,200,4\nd,1,-95\ne\nf,-180,90\n")
    events = read_events(path)
    assert events.degrees.tolist() == [[20, 10], [90, -180]]
    assert [line.split(":")[0] for line in events.skipped] == ["line 4", "line 5", "line 6", "line 7"]
    assert "with wrap" in events.skipped[1]
    assert read_events(path, wrap=True).degrees.tolist()[1] == [4, -160]
    path.write_text("1,2\n3,4\n")
    assert read_events(path).degrees.tolist() == [[1, 2], [3, 4]]
    path.write_text("lat,lon\n")
    with pytest.raises(ValueError, match="holds no places"):
        read_events(path)
    with pytest.raises(FileNotFoundError):
        read_events(tmp_path / "none.csv")


@pytest.mark.parametrize(("name", "count"), [("volcano", 826), ("earthquake", 6119), ("flood", 4874), ("fire", 12808)])
def test_earth_events(data_root: Path, name: str, count: int) -> None:
    events = load_earth_events(data_root / "earth", name)
    assert abs(len(events) - count) <= 1
    Sphere(2).check(events)
    parts = split_80_10_10(len(events), 3)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(events)))
    assert len(EarthEvents(name, str(data_root)).test_set()) == len(parts[2])  # type: ignore[arg-type]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    places = sphere_to_latlon(synthetic_density(Sphere(2), "1wrapped", torch.float64).sample((200,)))
    path = tmp_path / "events.csv"
    path.write_text("lat,lon\n" + "\n".join(f"{a:.4f},{b:.4f}" for a, b in places.tolist()) + "\nbad,line\n")
    return path


def test_fit_density(events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["fit-density", str(events), "--steps", "30", "--hidden", "16", "--batch-size", "64", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["places"] == 200
    assert summary["skipped_lines"] == 1
    assert summary["integral"] == pytest.approx(1, abs=0.02)
    assert summary["nll_test"] < summary["nll_uniform"]
    grid = np.load(out / "density.npz")
    mass = np.exp(grid["log_density"]) * np.cos(np.radians(grid["latitude"]))[:, None] * (np.pi / 180) ** 2
    assert mass.sum() == pytest.approx(1, abs=0.02)
    assert Image.open(out / "density.png").width > 900
    flow = sphere_cnf(hidden=16)
    flow.load_state_dict(torch.load(out / "flow.pt", weights_only=True))


def test_a_killed_fit_goes_on(events: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "saccade", "fit-density", str(events), "--steps", "100", "--hidden", "8", "--json"]
    words += ["--batch-size", "16", "--out", str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state, deadline = tmp_path / "killed" / "training.pt", time.monotonic() + 120
    while time.monotonic() < deadline and not state.exists():
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert len(torch.load(state, weights_only=True)["losses"]) < 100
    results = []
    for folder in ("killed", "whole"):
        done = subprocess.run([*words[:-1], str(tmp_path / folder)], env=environment, capture_output=True, check=True)
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("text", "message"), [("lat,lon\n1,2\n", "at least 20 are needed"), ("x\n", "holds no places")]
)
def test_files_without_places(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "events.csv").write_text(text)
    assert main(["fit-density", str(tmp_path / "events.csv"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_the_task_learns() -> None:
    task = DensityEstimation(sphere_cnf(hidden=16), optimizer=lambda groups: torch.optim.Adam(groups, lr=1e-2))
    curve = fit(task, SyntheticDensity("sphere", "1wrapped", 400, 64), steps=25)
    assert curve[-1][1] < curve[0][1] - 0.3


def test_a_hyperbolic_autoencoder_learns_a_tree() -> None:
    torch.manual_seed(0)
    data = BranchingDiffusion(depth=3)
    model = HyperbolicVAE(50, hidden=32, likelihood="gaussian", flow_hidden=8, step_size=1 / 4)
    task = Autoencoding(model, optimizer=lambda groups: torch.optim.Adam(groups, lr=5e-3))
    curve = fit(task, data, steps=60)
    assert curve[-1][1] < curve[0][1] - 3
    x = data.rows()[:20]
    with torch.no_grad():
        bound = model.elbo(x, samples=50).mean()
    assert model.log_likelihood(x, samples=50).mean() > bound


def test_importance_weights_know_a_likelihood() -> None:
    """With a decoder that ignores the code, log p(x) is that of its constant, whatever the posterior is."""
    torch.manual_seed(0)
    model = HyperbolicVAE(6, dim=2, hidden=8, likelihood="gaussian", flow_hidden=8)
    with torch.no_grad():
        model.decoder[2].weight.zero_()
        model.decoder[2].bias.fill_(0.5)
        model.encoder[2].bias[2:] = 1.0
    x = torch.randn(3, 6)
    wanted = torch.distributions.Normal(0.5, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, 20_000), wanted, atol=0.05, rtol=0)


def test_trees() -> None:
    tree = branching_diffusion(0, depth=4, siblings=2)
    assert len(tree.parent) == 31
    assert tree.depth.bincount().tolist() == [1, 2, 4, 8, 16]
    nodes = tree.values.view(31, 2, -1).mean(1)
    near = (nodes[1:] - nodes[tree.parent[1:]]).norm(dim=1).mean()
    far = torch.pdist(nodes[15:]).mean()
    assert near < 0.7 * far


def test_mnist_as_vectors(data_root: Path) -> None:
    rows = Digits(str(data_root), part="test").rows()
    assert rows.shape == (10_000, 784)
    assert float(rows.max()) == 1.0


def test_the_flat_rival_is_a_density() -> None:
    torch.manual_seed(0)
    flat = FlatFlow(Sphere(2).uniform(500), 8, 1)
    inside = integrate_sphere(lambda x: flat.log_prob(x.float()).detach(), cells=8000, rounds=0)
    assert 0.6 < inside < 1.02  # what it puts beyond the poles and the date line is lost


def test_the_claim_runs(tmp_path: Path) -> None:
    dotted = "saccade.flows.claims.neural_manifold_ode:NEURAL_MANIFOLD_ODE"
    result = engine.reproduce(dotted, budget="smoke", jobs=0, out=tmp_path)
    assert {cell.arm for cell in result.cells} == set(NEURAL_MANIFOLD_ODE.arms)
    assert sum(len(cell.pictures) for cell in result.cells) == 1
    for cell in result.cells:
        assert cell.metrics["excess"] > 0
