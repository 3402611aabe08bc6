"""`saccade.metric.inference`."""

from saccade.metric.inference import (  # noqa: F401
    CustomKNN,
    FaissKMeans,
    FaissKNN,
    InferenceModel,
    MatchFinder,
)
from saccade.metric.neighbours import principal_components, without_self


def run_pca(x, output_dimensionality):
    """Projections on the directions of largest variance."""
    return principal_components(x, output_dimensionality)


def return_results(D, I, ref_includes_query):  # noqa: E741
    """Neighbours, without the query where it is among the references."""
    return without_self(D, I) if ref_includes_query else (D, I)
