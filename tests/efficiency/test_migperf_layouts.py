"""Placement tables and layouts, against brute force over all subsets of placements."""

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.efficiency.migperf import (
    GPU_MODELS,
    GpuModel,
    Instance,
    LayoutImpossible,
    first_fit,
    gpu_model,
    maximal_layouts,
    plan_layout,
)

TABLE = {
    "1g.5gb": {"id": 19, "compute_slices": 1, "memory_slices": 1, "starts": [0, 1, 2]},
    "1g.10gb": {"id": 15, "compute_slices": 1, "memory_slices": 2, "starts": [0, 2]},
    "2g.10gb": {"id": 14, "compute_slices": 2, "memory_slices": 2, "starts": [0, 2]},
    "3g.20gb": {"id": 9, "compute_slices": 3, "memory_slices": 4, "starts": [0]},
}
SMALL = GpuModel.from_table("small", 3, 4, TABLE)


def valid(model: GpuModel, instances: tuple[Instance, ...]) -> bool:
    slices = [number for instance in instances for number in instance.slices]
    compute = sum(instance.profile.compute_slices for instance in instances)
    media = sum(instance.profile.media for instance in instances)
    return len(slices) == len(set(slices)) and compute <= model.compute_slices and media <= 1


def every_valid(model: GpuModel, media: bool) -> set[frozenset[str]]:
    places = [Instance(p, s) for p in model.profiles.values() if media or not p.media for s in p.starts]
    subsets = (c for n in range(1, model.compute_slices + 1) for c in combinations(places, n))
    return {frozenset(map(str, chosen)) for chosen in subsets if valid(model, chosen)}


@pytest.mark.parametrize(("model", "media"), [(SMALL, False), (gpu_model("a30"), False), (gpu_model("a30"), True)])
def test_maximal_layouts_are_those_of_an_exhaustive_search(model: GpuModel, media: bool) -> None:
    everything = every_valid(model, media)
    maximal = {layout for layout in everything if not any(layout < other for other in everything)}
    found = maximal_layouts(model, media)
    assert {frozenset(map(str, layout)) for layout in found} == maximal
    assert len(found) == len(maximal)
    texts = [[str(instance) for instance in layout] for layout in found]
    assert texts == sorted(texts)
    assert all(list(layout) == sorted(layout, key=lambda instance: instance.start) for layout in found)


def test_an_a100_has_78_layouts_and_19_without_its_wide_small_profile() -> None:
    a100 = gpu_model("a100-80gb")
    assert len(maximal_layouts(a100)) == 78
    fewer = GpuModel("a100", 7, 8, 80.0, {n: p for n, p in a100.profiles.items() if n != "1g.20gb" and not p.media})
    assert len(maximal_layouts(fewer)) == 19


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(gpu_model("a30").profiles)), min_size=1, max_size=5))
def test_what_can_be_placed_is_placed_in_whatever_order(names: list[str]) -> None:
    model = gpu_model("a30")
    wanted = sorted(names)
    everything = every_valid(model, media=True)
    possible = any(sorted(text.split(":")[0] for text in layout) == wanted for layout in everything)
    outcomes = set()
    for order in list(permutations(names))[:6]:
        try:
            layout = plan_layout(model, list(order))
            assert [instance.profile.name for instance in layout] == list(order)
            assert valid(model, layout)
            assert all(instance.start in instance.profile.starts for instance in layout)
            outcomes.add(True)
        except LayoutImpossible:
            outcomes.add(False)
    assert outcomes == {possible}


def test_planning_together_finds_what_one_after_the_other_does_not() -> None:
    names = ["1g.10gb", "4g.40gb"]
    assert [str(instance) for instance in plan_layout("a100-80gb", names)] == ["1g.10gb:4", "4g.40gb:0"]
    with pytest.raises(LayoutImpossible, match=r"4g\.40gb does not fit.*memory slice 0 is taken by 1g\.10gb:0"):
        first_fit("a100-80gb", names)


@pytest.mark.parametrize(
    ("gpu", "profiles", "error", "message"),
    [
        ("a100-80gb", ["5g.50gb"], ValueError, r"offers no profile '5g\.50gb'; it offers 1g\.10gb"),
        ("a100-80gb", [], ValueError, "at least one profile"),
        ("rtx", ["1g.10gb"], ValueError, "no table of slices for a GPU 'rtx'"),
        ("a10", ["1g.10gb"], ValueError, "'a10'; near it: a100, a30"),
        ("a100-80gb", ["3g.40gb"] * 3, LayoutImpossible, r"3g\.40gb \(number 3\) does not fit on a100-80gb beside"),
        ("a100-80gb", ["7g.80gb", "1g.10gb"], LayoutImpossible, r"memory slice 0 is taken by 7g\.80gb:0"),
        ("a30", ["1g.6gb+me", "1g.6gb+me"], LayoutImpossible, "one instance alone can carry the media engines"),
        ("a100-80gb", ["4g.40gb", "1g.20gb", "1g.20gb", "2g.20gb"], LayoutImpossible, r"2g\.20gb \(number 4\)"),
    ],
)
def test_what_does_not_go(gpu: str, profiles: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_layout(gpu, profiles)


def test_compute_can_be_what_is_missing() -> None:
    model = GpuModel.from_table(
        "narrow", 2, 4, {"1g.1gb": {"id": 1, "compute_slices": 1, "memory_slices": 1, "starts": [0, 1, 2]}}
    )
    with pytest.raises(LayoutImpossible, match="3 compute slices would be needed, narrow has 2"):
        plan_layout(model, ["1g.1gb"] * 3)
    with pytest.raises(ValueError, match="cannot begin at"):
        GpuModel.from_table("bad", 2, 4, {"1g.1gb": {"id": 1, "compute_slices": 1, "memory_slices": 2, "starts": [3]}})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("NVIDIA A30", "a30-24gb"),
        ("Simulated a30-24gb", "a30-24gb"),
    ],
)
def test_gpus_are_known_by_what_the_driver_says(said: str, meant: str) -> None:
    assert gpu_model(said) is GPU_MODELS[meant]
