"""Sizes, energies and files: counted by hand, written and read back."""

import copy
import json
import math
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.efficiency import (
    EnergyTable,
    cluster_weights,
    compression_report,
    energy_report,
    layer_cost,
    load_compressed,
    read_compressed,
    rows_of,
    save_compressed,
    wide_resnet_setting,
)
from saccade.efficiency.wide_resnet import WideResNet


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, groups=2, bias=False),
        nn.ConvTranspose2d(24, 8, (3, 2), stride=2), nn.Flatten(), nn.LazyLinear(10),
    )  # fmt: skip


@pytest.fixture
def model() -> nn.Sequential:
    model = net().eval()
    model(torch.randn(1, 3, 8, 8))
    return model


@pytest.mark.parametrize("bitwidth", [32, 16])
def test_bits_are_the_papers_account(model: nn.Module, bitwidth: int) -> None:
    clustered = cluster_weights(model, {"0": 9, "3": 12}, {"3": 0.4})
    report = compression_report(model, clustered, bitwidth)
    before = after = 0.0
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        bias = 0 if layer.bias is None else layer.bias.numel()
        before += bitwidth * (layer.weight.numel() + bias)
        if name not in clustered.layers:
            after += bitwidth * (layer.weight.numel() + bias)
            continue
        rows = [tuple(row) for row in rows_of(clustered.shared()[name].weight.detach()).tolist()]
        entropy = -sum(n / len(rows) * math.log2(n / len(rows)) for n in Counter(rows).values())
        k = clustered.layers[name].clusters
        after += bitwidth * (k * len(rows[0]) + bias) + len(rows) * entropy
    assert report.bits_before == before
    assert report.bits_after == pytest.approx(after)
    assert report.ratio == pytest.approx(before / after)


def test_real_codes_take_more_than_the_entropy_and_fixed_width_is_as_announced(model: nn.Module) -> None:
    clustered = cluster_weights(model, {"0": 9}, {"0": 0.5})
    entropy, huffman, fixed = (
        compression_report(model, clustered, code=code) for code in ("entropy", "huffman", "fixed")
    )
    assert entropy.bits_after < huffman.bits_after
    assert huffman.layers[0].bits_after - entropy.layers[0].bits_after < 144 + 5 * 9
    assert fixed.layers[0].bits_after == 9 * 3 * 32 + 144 * 4 + 16 * 32


@pytest.mark.parametrize(("ratio", "expected"), [(45, 43.45), (47, 45.38), (50, 48.10)])
def test_the_authors_settings_give_their_ratios(ratio: int, expected: float) -> None:
    """With evenly filled clusters; real ones are uneven and give more."""
    clusters, cores = wide_resnet_setting(ratio)
    with torch.device("meta"):
        model = WideResNet(16, 4)
    assert list(clusters) == [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    before = after = 32 * sum(p.numel() for p in model.linear.parameters())
    for name, k in clusters.items():
        conv, p = model.get_submodule(name), cores.get(name, 0.0)
        rows = conv.weight.numel() // conv.weight.shape[-1]
        entropy = math.log2(k)
        if p:
            entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p) + (1 - p) * math.log2(k - 1)
        before += 32 * (conv.weight.numel() + len(conv.bias))
        after += 32 * (k * conv.weight.shape[-1] + len(conv.bias)) + rows * entropy
    assert before / after == pytest.approx(expected, abs=0.005)
    assert expected == pytest.approx(ratio, rel=0.04)


def test_a_wide_resnet_clustered_so_is_as_small_as_they_say() -> None:
    clusters, cores = wide_resnet_setting(50)
    torch.manual_seed(0)
    model = WideResNet(16, 4)
    clustered = cluster_weights(model, clusters, cores, n_init=1, iters=3)
    assert compression_report(model, clustered).ratio > 48
    assert {name: layer.clusters for name, layer in clustered.layers.items()} == clusters


@pytest.mark.parametrize("code", ["smallest", "fixed", "huffman"])
def test_a_file_holds_the_network_to_the_bit(model: nn.Module, tmp_path: Path, code: str) -> None:
    clustered = cluster_weights(model, {"0": 9, "3": 12, "4": 1}, {"3": 0.8})
    model[1].num_batches_tracked.fill_(7)
    written = save_compressed(clustered, tmp_path / "net.skm", code=code, about={"from": "a test"})
    assert (tmp_path / "net.skm").stat().st_size == written
    fresh = net()
    fresh(torch.randn(1, 3, 8, 8))
    loaded = load_compressed(tmp_path / "net.skm", fresh).eval()
    for ours, theirs in ((loaded, clustered), (loaded.materialize(), clustered.materialize())):
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(loaded(x), clustered(x))
    content = read_compressed(tmp_path / "net.skm")
    assert content.about == {"from": "a test"}
    assert content.layers["3"].relative_error == clustered.layers["3"].relative_error
    assert not list(tmp_path.glob("*.partial"))


def test_indices_take_as_many_bits_as_announced(tmp_path: Path) -> None:
    conv = nn.Conv2d(64, 64, 3, bias=False)
    sizes = {
        (k, code): save_compressed(cluster_weights(conv, k, core_ratio=p, n_init=1, iters=2), tmp_path / "x", code=code)
        for k, p in ((16, 0.0), (17, 0.9))
        for code in ("fixed", "huffman", "smallest")
    }
    rows = 64 * 64 * 3
    assert 0 < sizes[16, "fixed"] - (rows * 4 / 8 + 16 * 3 * 4) < 250
    assert 0 < sizes[17, "fixed"] - (rows * 5 / 8 + 17 * 3 * 4) < 250
    assert sizes[17, "huffman"] < 0.5 * sizes[17, "fixed"], "nine tenths of the rows have one index"
    assert all(sizes[k, "smallest"] == min(sizes[k, "fixed"], sizes[k, "huffman"]) for k in (16, 17))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    conv = nn.Conv2d(3, 8, 3).to(dtype)
    clustered = cluster_weights(conv, 4)
    save_compressed(clustered, tmp_path / "x")
    loaded = load_compressed(tmp_path / "x", nn.Conv2d(3, 8, 3))
    assert loaded.network.centroids.dtype == dtype
    assert torch.equal(loaded.network.weight, clustered.network.weight)


@pytest.mark.usefixtures("unchecked")
def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    conv = nn.Sequential(nn.Conv2d(3, 8, 3))
    path = tmp_path / "net.skm"
    save_compressed(cluster_weights(conv, 4), path)
    content = path.read_bytes()
    cases = {
        b"": "does not begin with",
        b"PK" + content: "does not begin with",
        content[:-9]: "damaged",
        content[:60] + bytes([content[60] ^ 1]) + content[61:]: "damaged",
        content[:10]: "damaged",
    }
    head = zlib.compress(json.dumps([[["0.centroids", "float32", [9, 9]]], [], {}]).encode())
    forged = b"SACCADE\x01" + struct.pack("<I", len(head)) + head
    cases[forged + struct.pack("<I", zlib.crc32(forged))] = "no intact compressed network: the data end early"
    for damaged, message in cases.items():
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message) as error:
            read_compressed(path)
        assert str(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match="no compressed network at"):
        read_compressed(tmp_path / "none")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is a ReLU in Sequential"):
        load_compressed(path, nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=r"0.weight is \(8, 3, 3, 3\), wanted \(9, 3, 3, 3\)"):
        load_compressed(path, nn.Sequential(nn.Conv2d(3, 9, 3)))
    with pytest.raises(ValueError, match="'smallest', 'fixed' or 'huffman'"):
        save_compressed(cluster_weights(conv, 4), path, code="lzma")  # type: ignore[arg-type]


test_damaged_and_foreign_files_are_named = pytest.mark.usefixtures("unchecked")(
    test_damaged_and_foreign_files_are_named
)


def test_operations_are_those_of_a_loop_over_outputs() -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    report = energy_report(conv, (4, 9, 7), (8, 4))
    cost = report.layers[0].cost
    outputs, products = 6 * 5 * 4, 2 * 9
    assert cost.macs == outputs * products
    adder = products * 8 * 4 + (products - 1) * (8 + 4 + 5 - 1)  # log2 18 is between 4 and 5
    assert cost.full_adders == outputs * adder
    assert cost.activation_bits == 4 * 9 * 7 * 8
    assert cost.weight_bits == conv.weight.numel() * 4
    transposed = energy_report(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)).layers[0].cost
    assert transposed.macs == pytest.approx(4 * 25 * 3 * 9), "every input meets (c_out / groups) s s' weights"


def test_energies_follow_from_the_table(model: nn.Module) -> None:
    table = EnergyTable(inputs={"dram": 2.0}, outputs={"register": 1.0}, weights={"neighbour": 3.0})
    report = energy_report(model, (3, 8, 8), table=table)
    unit = 640 / 32 / 200
    for layer in report.layers:
        assert layer.macs == pytest.approx(layer.cost.macs * 4.6)
        assert layer.inputs == pytest.approx(layer.cost.activation_bits * 2 * 200 * unit)
        assert layer.weights == pytest.approx(layer.cost.weight_bits * 3 * 2 * unit)
    assert report.total == pytest.approx(sum(layer.total for layer in report.layers))
    assert report.ratio == pytest.approx(1)
    assert EnergyTable().mac(8, 8) == pytest.approx(0.23)
    with pytest.raises(ValueError, match="no level 'disk' in the table"):
        energy_report(model, (3, 8, 8), table=EnergyTable(inputs={"disk": 1.0}))


def test_sharing_saves_weights_and_repeated_rows(model: nn.Module) -> None:
    clustered = cluster_weights(model, {"0": 4, "3": 30})
    report, plain = energy_report(clustered, (3, 8, 8)), energy_report(model, (3, 8, 8))
    assert report.uncompressed == pytest.approx(plain.total)
    assert report.ratio < 1
    for name in ("0", "3"):
        indices = clustered.shared()[name].indices.view(clustered.shared()[name].weight_shape[:-1])
        groups, pairs = model.get_submodule(name).groups, set()
        for f in range(indices.shape[0]):
            for c in range(indices.shape[1]):
                channel = f // (indices.shape[0] // groups) * indices.shape[1] + c
                pairs |= {(channel, int(index)) for index in indices[f, c]}
        layer = next(layer for layer in report.layers if layer.name == name)
        assert layer.reuse == pytest.approx(len(pairs) / indices.numel())
        bound = model.get_submodule(name).in_channels * len(clustered.shared()[name].centroids) / indices.numel()
        assert layer.reuse <= min(1, bound)
    assert report.layers[0].cost.weight_bits < plain.layers[0].cost.weight_bits / 5
    assert report.layers[-1] == plain.layers[-1]


def test_the_model_is_left_as_it_was(model: nn.Module) -> None:
    model.train()
    before = copy.deepcopy(model.state_dict())
    energy_report(model, (3, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: energy_report(m), "give input_size"),
        (lambda m: energy_report(m, (1, 8, 8)), r"cannot take an input of \(1, 8, 8\)"),
        (lambda m: energy_report(m, (3, 8, 8), 0), "bits have to be at least 1, not 0"),
        (lambda m: compression_report(m, cluster_weights(m, 2), 0), "bitwidth has to be at least 1"),
        (lambda m: compression_report(m, cluster_weights(m, 2), code="zip"), "not 'zip'"),
        (lambda m: compression_report(nn.Conv2d(1, 1, 1), cluster_weights(m, 2)), "other layers than Conv2d"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(model: nn.Module, call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)  # type: ignore[operator]


def test_one_product_needs_no_carry() -> None:
    assert layer_cost(1, 10, 10, 1).full_adders == 10 * 32 * 32
