"""On a GPU, where there is one, Correct and Smooth gives what it gives on the CPU."""

import pytest
import torch

from saccade.graph import CorrectAndSmooth, Graph, LabelPropagation, diffusion_features, spectral_features, tune
from saccade.graph.base import SparseFeatures, base_predictor, fit_base
from saccade.worlds.graphs import citation_graph

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
WORLD = citation_graph(0, 400)
TRAIN, VALID = torch.arange(240), torch.arange(240, 320)


@pytest.mark.parametrize("mode", ["autoscale", "fixed"])
def test_both_steps_agree_with_the_cpu(mode) -> None:
    prob, setting = torch.rand(400, 7).softmax(1), CorrectAndSmooth(mode=mode, scale=1.5)
    here = setting(prob, WORLD.labels, TRAIN, WORLD.edge_index)
    there = setting(prob.cuda(), WORLD.labels.cuda(), TRAIN.cuda(), WORLD.edge_index.cuda())
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-4)
    moved = Graph(WORLD.edge_index, 400).to("cuda")
    again = setting(prob.cuda(), WORLD.labels.cuda(), TRAIN.cuda(), moved)
    torch.testing.assert_close(again, there, atol=1e-6, rtol=1e-5)


def test_label_propagation_and_tuning_run_there() -> None:
    labels, edges = WORLD.labels.cuda(), WORLD.edge_index.cuda()
    here = LabelPropagation()(WORLD.labels, TRAIN, WORLD.edge_index, 7)
    torch.testing.assert_close(LabelPropagation()(labels, TRAIN.cuda(), edges, 7).cpu(), here, atol=1e-5, rtol=1e-4)
    assert tune(None, labels, TRAIN.cuda(), VALID.cuda(), edges, num_classes=7).accuracy > 0.6


def test_features_agree_with_the_cpu() -> None:
    x, edges = torch.rand(400, 5), WORLD.edge_index
    torch.testing.assert_close(
        diffusion_features(edges.cuda(), x.cuda()).cpu(), diffusion_features(edges, x), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        spectral_features(edges.cuda(), 4, num_nodes=400).cpu(), spectral_features(edges, 4, num_nodes=400)
    )


def test_base_predictors_train_there_on_sparse_features() -> None:
    features = SparseFeatures.of(WORLD.features).to("cuda")
    model = base_predictor("mlp", 1000, 7, hidden=16).cuda()
    fitted = fit_base(model, features, WORLD.labels.cuda(), TRAIN.cuda(), VALID.cuda(), epochs=20)
    assert fitted.prob.is_cuda
    assert fitted.loss[-1] < fitted.loss[0]
