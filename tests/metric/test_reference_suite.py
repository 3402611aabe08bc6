"""The package through which the reference library's tests meet ours: every name, every argument, every way to call."""

import importlib
import importlib.util
import inspect
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

SUITE = Path(__file__).parent / "reference_suite"
PACKAGES = ["losses", "miners", "distances", "reducers", "regularizers", "samplers", "testers", "trainers", "datasets"]
UTILS = {
    "common_functions": """COLLECT_STATS LOGGER LOGGER_NAME set_logger_name EmbeddingDataset LabelMapper process_label
        neg_inf pos_inf small_val to_device torch_arange_from_size torch_standard_scaler try_next_on_generator
        sqlite_obj_to_dict NUMPY_RANDOM safe_random_choice get_labels_to_indices TorchInitWrapper use_cuda_if_available
        latest_version shift_indices_tuple unslice_by_n numpy_to_torch to_numpy to_dtype torch_all_from_dim_to_end
        map_labels""",
    "loss_and_miner_utils": """get_all_pairs_indices get_all_triplets_indices get_all_triplets_indices_vectorized_method
        get_all_triplets_indices_loop_method get_random_triplet_indices get_matches_and_diffs convert_to_pairs
        convert_to_triplets convert_to_weights remove_self_comparisons logsumexp get_anchors pos_pairs_from_tuple
        neg_pairs_from_tuple convert_to_pos_pairs_with_unique_labels""",
    "accuracy_calculator": """AccuracyCalculator EQUALITY get_unique_labels maybe_get_avg_of_avgs get_relevance_mask
        r_precision mean_average_precision mean_reciprocal_rank precision_at_k get_label_match_counts
        get_lone_query_labels try_getting_not_lone_labels nan_accuracy""",
    "inference": "MatchFinder InferenceModel FaissKNN FaissKMeans CustomKNN run_pca return_results",
    "distributed": "DistributedLossWrapper DistributedMinerWrapper is_distributed all_gather get_indices_tuple",
    "loss_tracker": "LossTracker",
    "logging_presets": "HookContainer EmptyContainer get_record_keeper get_hook_container",
    "module_with_records": "ModuleWithRecords",
    "module_with_records_and_reducer": """ModuleWithRecordsAndReducer ModuleWithRecordsAndDistance
        ModuleWithRecordsReducerAndDistance""",
}  # fmt: skip
# bases that are one class here and another there, and a mapper whose arguments are positional
FREE_FORM = {"EmbeddingRegularizerMixin", "WeightRegularizerMixin", "BaseLossWrapper", "LabelMapper"}


@pytest.fixture(scope="module")
def shim() -> Iterator[Any]:
    """The package, under another name: the installed one keeps its own."""
    parent = logging.getLogger("saccade").parent
    spec = importlib.util.spec_from_file_location(
        "reference_shim",
        SUITE / "pytorch_metric_learning" / "__init__.py",
        submodule_search_locations=[str(SUITE / "pytorch_metric_learning")],
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference_shim"] = module
    spec.loader.exec_module(module)
    yield lambda name: importlib.import_module(f"reference_shim.{name}")
    for name in [name for name in sys.modules if name.startswith("reference_shim")]:
        del sys.modules[name]
    logging.getLogger("saccade").parent = parent


def public(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isclass(value)]


def assert_callable_alike(name: str, ours: Any, theirs: Any) -> None:
    """All calls that theirs takes, ours takes: the same names in the same places with the same defaults."""
    own, wanted = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
    by_name = {parameter.name: parameter for parameter in own}
    flexible = any(p.kind is p.VAR_KEYWORD for p in own)
    for place, parameter in enumerate(wanted):
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if flexible and parameter.name not in by_name:
            continue
        assert parameter.name in by_name, f"{name} lacks the argument {parameter.name}"
        mine = by_name[parameter.name]
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not any(p.kind is p.VAR_POSITIONAL for p in wanted):
            assert own[place].name == parameter.name, f"{name}: {parameter.name} stands elsewhere"
        if not callable(parameter.default) or parameter.default is parameter.empty:
            widened = parameter.default is parameter.empty and mine.default is not mine.empty
            assert widened or mine.default == parameter.default, f"{name}: {mine} instead of {parameter}"
    taken = {parameter.name for parameter in wanted}
    if not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in wanted):
        more = [
            p.name for p in own if p.name not in taken and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        assert not more, f"{name} asks for {more}, too"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_class_is_there_and_takes_the_same_arguments(shim: Any, package: str) -> None:
    theirs, ours = importlib.import_module(f"pytorch_metric_learning.{package}"), shim(package)
    for name in public(theirs):
        assert hasattr(ours, name), f"{package} lacks {name}"
        if name not in FREE_FORM:
            assert_callable_alike(name, getattr(ours, name), getattr(theirs, name))


METHODS = {
    "losses": ["forward"],
    "miners": ["forward", "mine", "set_idx_externally"],
    "distances": ["forward", "compute_mat", "pairwise_distance", "normalize", "get_norm"],
    "reducers": ["forward"],
    "regularizers": ["forward"],
    "testers": [
        "test", "get_all_embeddings", "maybe_normalize", "label_levels_to_evaluate", "accuracies_keyname",
        "description_suffixes", "compute_all_embeddings", "set_reference_and_query", "ref_includes_query",
    ],
    "trainers": ["train", "get_batch", "maybe_mine_embeddings", "step_lr_plateau_schedulers"],
}  # fmt: skip


@pytest.mark.parametrize("package", list(METHODS))
def test_so_do_their_methods(shim: Any, package: str) -> None:
    theirs, ours = importlib.import_module(f"pytorch_metric_learning.{package}"), shim(package)
    checked = 0
    for name in public(theirs):
        for method in METHODS[package]:
            wanted = getattr(getattr(theirs, name), method, None)
            if wanted is None or name in FREE_FORM or "args" in inspect.signature(wanted).parameters:
                continue
            own = getattr(getattr(ours, name), method)
            assert_callable_alike(f"{name}.{method}", own, wanted)
            checked += 1
    assert checked


@pytest.mark.parametrize("module", list(UTILS))
def test_every_name_that_the_tests_touch_is_there(shim: Any, module: str) -> None:
    theirs, ours = importlib.import_module(f"pytorch_metric_learning.utils.{module}"), shim(f"utils.{module}")
    for name in UTILS[module].split():
        assert hasattr(ours, name), f"{module} lacks {name}"
        value = getattr(theirs, name)
        if callable(value) and hasattr(value, "__code__"):
            assert_callable_alike(name, getattr(ours, name), value)
        elif inspect.isclass(value) and name not in FREE_FORM:
            assert_callable_alike(name, getattr(ours, name), value)
            methods = [
                "get_accuracy",
                "get_matches",
                "is_match",
                "__call__",
                "train_knn",
                "end_of_epoch_hook",
                "update",
            ]
            methods += [
                "run_tester_separately",
                "load_latest_saved_models",
                "get_accuracy_history",
                "get_cluster_labels",
            ]
            for method in methods:
                if hasattr(value, method) and method in vars(value):
                    assert_callable_alike(f"{name}.{method}", getattr(getattr(ours, name), method), vars(value)[method])


def test_switches_are_ours(shim: Any) -> None:
    from saccade.metric import records, samplers
    from saccade.metric.losses import ContrastiveLoss

    c_f = shim("utils.common_functions")
    try:
        c_f.COLLECT_STATS = True
        assert records.COLLECT_STATS
        assert c_f.COLLECT_STATS
        assert ContrastiveLoss().collect_stats
        c_f.NUMPY_RANDOM = np.random.RandomState(0)
        assert samplers.NUMPY_RANDOM is c_f.NUMPY_RANDOM
    finally:
        c_f.COLLECT_STATS = False
        c_f.NUMPY_RANDOM = np.random
    assert not ContrastiveLoss().collect_stats


def test_the_logger_takes_its_name(shim: Any, caplog: pytest.LogCaptureFixture) -> None:
    c_f = shim("utils.common_functions")
    assert c_f.LOGGER_NAME == "PML"
    c_f.set_logger_name("another")
    try:
        assert c_f.LOGGER.name == "another"
        logging.getLogger("saccade").warning("heard")
        assert "heard" in caplog.text
    finally:
        c_f.set_logger_name("PML")


@pytest.mark.parametrize("with_ref", [False, True])
def test_index_utilities_agree(shim: Any, with_ref: bool) -> None:
    import pytorch_metric_learning.utils.loss_and_miner_utils as theirs

    ours = shim("utils.loss_and_miner_utils")
    labels, others = torch.randint(4, (12,)), torch.randint(4, (9,))
    arguments = (labels, others) if with_ref else (labels,)
    for name in ("get_matches_and_diffs", "get_all_pairs_indices", "get_all_triplets_indices"):
        for one, two in zip(getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments), strict=True):
            assert torch.equal(one, two)
    masks = theirs.get_matches_and_diffs(*arguments)
    for name, given in (
        ("get_all_triplets_indices_vectorized_method", masks),
        ("get_all_triplets_indices_loop_method", (labels, *masks)),
    ):
        for one, two in zip(getattr(ours, name)(*given), getattr(theirs, name)(*given), strict=True):
            assert torch.equal(one, two)
    triplets = theirs.get_all_triplets_indices(*arguments)
    pairs = theirs.get_all_pairs_indices(*arguments)
    for tuples in (triplets, pairs, None):
        for name in ("convert_to_pairs", "convert_to_triplets"):
            extra = {"t_per_anchor": "all"} if name.endswith("triplets") else {}
            own, other = (getattr(home, name)(tuples, *arguments, **extra) for home in (ours, theirs))
            for one, two in zip(own, other, strict=True):
                assert torch.equal(one, two)
        weights = [home.convert_to_weights(tuples, labels, torch.float64, with_ref) for home in (ours, theirs)]
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=0)
    random = ours.get_random_triplet_indices(*arguments, t_per_anchor=5)
    assert len(random[0]) == len(theirs.get_random_triplet_indices(*arguments, t_per_anchor=5)[0])
    rows = torch.arange(3, 3 + len(labels)) % 20
    memory = torch.randint(4, (20,))
    memory[rows] = labels
    found = theirs.get_all_pairs_indices(labels, memory)
    own, other = (home.remove_self_comparisons(found, rows, 20) for home in (ours, theirs))
    assert all(torch.equal(one, two) for one, two in zip(own, other, strict=True))


def test_small_functions_agree(shim: Any) -> None:
    import pytorch_metric_learning.utils.common_functions as theirs
    import pytorch_metric_learning.utils.loss_and_miner_utils as their_lmu

    ours, lmu = shim("utils.common_functions"), shim("utils.loss_and_miner_utils")
    x, mask = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7) > 0.6
    mask[2] = False
    for kwargs in ({}, {"add_one": False}, {"keep_mask": mask}, {"keep_mask": mask, "add_one": False, "dim": 0}):
        torch.testing.assert_close(lmu.logsumexp(x, **kwargs), their_lmu.logsumexp(x, **kwargs))
    torch.testing.assert_close(ours.torch_standard_scaler(x), theirs.torch_standard_scaler(x))
    for name in ("pos_inf", "neg_inf", "small_val"):
        assert getattr(ours, name)(torch.float16) == getattr(theirs, name)(torch.float16)
    assert ours.torch_arange_from_size(x, 1).tolist() == list(range(7))
    labels = np.array([[5, 9], [7, 9], [6, 3]])
    for level in (0, 1, "all"):
        mapped = [home.process_label(labels, level, home.LabelMapper(True, labels).map) for home in (ours, theirs)]
        assert torch.equal(mapped[0], torch.as_tensor(mapped[1]))
    generator = iter([1])
    generator, first = ours.try_next_on_generator(generator, [4, 5])
    generator, second = ours.try_next_on_generator(generator, [4, 5])
    generator, third = ours.try_next_on_generator(generator, [4, 5])
    assert (first, second, third) == (1, 4, 5)
    data = ours.EmbeddingDataset(x, torch.arange(5))
    assert len(data) == 5
    assert data[3][1] == 3
    triplets = tuple(torch.tensor(part) for part in ([0, 1], [1, 0], [2, 3]))
    for tuples in (triplets, (*triplets[:2], *triplets[1:])):
        for one, two in zip(ours.shift_indices_tuple(tuples, 6), theirs.shift_indices_tuple(tuples, 6), strict=True):
            assert torch.equal(one, two)


@pytest.mark.usefixtures("unchecked")
def test_the_calls_of_its_tests(shim: Any) -> None:
    """Forms of calls that differ from the plain ones."""
    losses, miners, distances = shim("losses"), shim("miners"), shim("distances")
    embeddings, labels = torch.randn(16, 8, requires_grad=True), torch.arange(16) % 4
    miner = miners.MultiSimilarityMiner(epsilon=0.1, distance=distances.CosineSimilarity())
    loss = losses.MultipleLosses(
        [losses.ContrastiveLoss(), losses.TripletMarginLoss()], miners=[None, miner], weights=[1, 2]
    )
    loss(embeddings, labels).backward()
    wrapped = shim("utils.distributed").DistributedMinerWrapper(miner=miner, efficient=True)
    with pytest.warns(UserWarning, match="process group"):
        wrapped(embeddings, labels)
    for mismatched in (torch.zeros(3), torch.zeros(16, 1)):
        for part in (losses.ContrastiveLoss(), miner, miners.TripletMarginMiner()):
            with pytest.raises(ValueError):  # noqa: PT011
                part(embeddings, mismatched)

    class Doubled(losses.GenericPairLoss):
        def _compute_loss(self, pos_pair: Any, neg_pair: Any, indices_tuple: Any) -> Any:
            return {"loss": {"losses": 2 * pos_pair, "indices": indices_tuple[:2], "reduction_type": "pos_pair"}}

    value = Doubled(mat_based_loss=False, reducer=shim("reducers").SumReducer())(embeddings, labels)
    pairs = shim("utils.loss_and_miner_utils").get_all_pairs_indices(labels)
    torch.testing.assert_close(value, 2 * distances.LpDistance()(embeddings)[pairs[0], pairs[1]].sum())
    module = shim("utils.module_with_records_and_reducer").ModuleWithRecordsAndReducer()
    assert type(module.reducer).__name__ == "MeanReducer"
    dataset = shim("utils.common_functions").EmbeddingDataset(embeddings.detach(), labels)
    tester = shim("testers").GlobalEmbeddingSpaceTester(
        dataloader_num_workers=0,
        accuracy_calculator=shim("utils.accuracy_calculator").AccuracyCalculator(include=("precision_at_1",)),
    )
    figures = tester.test(
        {"train": dataset, "val": dataset}, 0, torch.nn.Identity(), splits_to_eval=[("val", ["train", "val"])]
    )
    assert figures["val"]["precision_at_1_level0"] == 1.0


MINIATURE = """
import sys
sys.path.insert(0, "src")
import pytorch_metric_learning, saccade
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.utils import common_functions as c_f
from . import TEST_DEVICE, TEST_DTYPES

def test_it_is_ours():
    assert ContrastiveLoss is saccade.metric.losses.ContrastiveLoss
    assert str(TEST_DEVICE) == "cpu" and len(TEST_DTYPES) == 2
"""


def test_the_runner_runs_a_checkout_s_tests_and_never_its_source(tmp_path: Path) -> None:
    (tmp_path / "src" / "pytorch_metric_learning").mkdir(parents=True)
    (tmp_path / "src" / "pytorch_metric_learning" / "__init__.py").write_text("raise RuntimeError('their source')")
    tests = tmp_path / "tests"
    (tests / "losses").mkdir(parents=True)
    preamble = (
        "import os\nTEST_DEVICE = os.environ['TEST_DEVICE']\nTEST_DTYPES = os.environ['TEST_DTYPES'].split(',')\n"
    )
    (tests / "__init__.py").write_text(preamble)
    (tests / "losses" / "__init__.py").write_text("from .. import TEST_DEVICE, TEST_DTYPES")
    (tests / "losses" / "test_one.py").write_text(MINIATURE)
    (tests / "losses" / "test_two.py").write_text("def test_two():\n    assert False")
    run = [sys.executable, str(SUITE / "run.py")]
    done = subprocess.run([*run, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    missing = subprocess.run([*run, str(tmp_path / "no")], capture_output=True, text=True, check=False)
    assert (missing.returncode, "no folder" in missing.stdout) == (2, True)
