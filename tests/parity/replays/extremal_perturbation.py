"""Replays of the TorchRay inventory; the networks are those that the fixtures' texts describe."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import explain
from saccade.checkpoints import load_strict
from saccade.explain.feature_inversion import normalised_error, total_variation
from saccade.explain.pointing_game import voc_box_mask
from saccade.explain.rise import upsample_grid
from saccade.ops.smoothing import gaussian_smooth
from tests.parity.fixtures import Fixture

Tensors = dict[str, Tensor]


def tiny(fixture: Fixture) -> nn.Module:
    """The CNN of most cases; its widths are those of the weights."""
    weights = fixture.weights

    def conv(key: str) -> nn.Conv2d:
        outputs, inputs, kernel, _ = weights[f"{key}.weight"].shape
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)

    features = nn.Sequential(
        conv("features.0"), nn.ReLU(), nn.MaxPool2d(2), conv("features.3"), nn.ReLU(), nn.AvgPool2d(2),
        conv("features.6"), nn.ReLU(),
    )  # fmt: skip
    head = nn.Sequential(conv("classifier.0"), nn.ReLU(), conv("classifier.2"))
    model = nn.Sequential(OrderedDict(features=features, avgpool=nn.AdaptiveAvgPool2d(1), classifier=head))
    load_strict(model, weights)
    return model.eval()


class Residual(nn.Module):
    """The network of `residual_ebp`."""

    def __init__(self, weights: Tensors) -> None:
        super().__init__()
        for name in ("conv1", "conv2", "conv3"):
            outputs, inputs, kernel, _ = weights[f"{name}.weight"].shape
            bias = f"{name}.bias" in weights
            setattr(self, name, nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias))
            setattr(self, name.replace("conv", "bn"), nn.BatchNorm2d(outputs))
            setattr(self, name.replace("conv", "relu"), nn.ReLU())
        self.block = nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(*reversed(weights["fc.weight"].shape))

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu1(self.bn1(self.conv1(x)))
        b = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(a)))))
        return self.fc(self.avgpool(self.block(self.relu3(b + a))).flatten(1))


def smoothing_and_perturbation(fixture: Fixture) -> Tensors:
    image, upstream = fixture.inputs["image"], fixture.inputs["upstream"]
    out: Tensors = {}
    for name in fixture.part("out"):
        if found := re.fullmatch(r"imsmooth_(\w+?)_([\d.]+)", name):
            out[f"out/{name}"] = gaussian_smooth(image, float(found[2]), found[1])  # type: ignore[arg-type]
    settings = {key: fixture.config[key] for key in ("num_levels", "max_blur")}
    for kind in ("blur", "fade"):
        perturbation = explain.Perturbation(image, kind, **settings)  # type: ignore[arg-type]
        mask = fixture.inputs["mask"].requires_grad_()
        mixed = perturbation.apply(mask)
        out[f"out/pyramid_{kind}"] = perturbation.pyramid[0]
        out[f"out/{kind}"] = mixed
        (out[f"grad/mask_{kind}"],) = torch.autograd.grad((mixed * upstream).sum(), mask)
    return out


def mask_generator(fixture: Fixture) -> Tensors:
    config, out = fixture.config, {}
    for pooling in ("softmax", "sum", "sigmoid"):
        masks = explain.SmoothMask(
            tuple(config["shape"]), config["step"], config["sigma"], pooling=pooling, coldness=config["coldness"],
            clamp=pooling != "sum",
        )  # fmt: skip
        for name in ("shape_in", "shape_mid", "shape_out"):
            assert list(getattr(masks, name)) == config[name], name
        assert (masks.padding, masks.radius) == (config["padding"], config["radius"])
        parameters = fixture.inputs["pmask"].requires_grad_()
        full = masks.full(parameters)
        out[f"out/{pooling}_full"], out[f"out/{pooling}_cropped"] = full, masks.crop(full)
        (out[f"grad/{pooling}_pmask"],) = torch.autograd.grad(full.square().sum(), parameters)
    return out


def extremal_perturbation(fixture: Fixture) -> Tensors:
    # plain: masks start symmetric, so that rounding and the order of sorting choose between equal values; these are
    # the authors' choices. tests/explain/test_smooth_mask.py holds the fast form to the plain one
    config, out = fixture.config, {}
    for name in fixture.part("out"):
        if not name.startswith("mask_"):
            continue
        variant, perturbation, reward, jitter = name.removeprefix("mask_").split("_")
        result = explain.extremal_perturbation(
            tiny(fixture), fixture.inputs["image"], config["target"], areas=config["areas"], step=config["step"],
            sigma=config["sigma"], max_iter=config["max_iter"], num_levels=config["num_levels"],
            max_blur=config["max_blur"], lr=config["lr"], momentum=config["momentum"], dampening=config["dampening"],
            area_weight=config["regul_weight"], growth=config["regul_growth"], variant=variant,
            perturbation=perturbation, reward=reward, jitter=jitter == "jitter", plain=True,
        )  # fmt: skip
        out[f"out/{name}"] = result.masks
        out[f"out/{name.replace('mask_', 'hist_')}"] = result.history
    return out


def layers_of(text: str) -> dict[str, Any]:
    """The saliency layers, from the words of the fixture's config."""
    cam = re.search(r"grad_cam (\S+?);", text)
    ebp = re.search(r"; EBP (\S+) and (\S+?);", text)
    pairs = re.findall(r"\((\S+), contrast (\S+?)(, resized[^)]*)?\)", text)
    assert cam, text
    assert ebp, text
    assert len(pairs) == 2, text
    return {"grad_cam": cam[1], "ebp": ebp[1], "contrastive": pairs}


def backprop_methods(fixture: Fixture) -> Tensors:
    config, image, model = fixture.config, fixture.inputs["image"], tiny(fixture)
    target = config["target"]
    layers = layers_of(config["saliency_layers"])
    out: Tensors = {"out/logits": model(image)}
    for name in fixture.part("out"):
        if name == "logits":
            continue
        method, layer, suffix = re.fullmatch(
            r"([a-z_]+?)(?:_layer(\d+))?(_resized_smooth|_resized|_pointing|_avgpool)?", name
        ).groups()  # type: ignore[union-attr]
        chosen = {"layer": f"features.{layer}"} if layer else {}
        if method == "grad_cam":
            chosen.setdefault("layer", layers["grad_cam"])
        if method == "excitation_backprop":
            chosen.setdefault("layer", layers["ebp"])
        if method == "contrastive_excitation_backprop":
            saliency, contrast, resized = next(
                pair for pair in layers["contrastive"] if (pair[1] == "avgpool") == (suffix == "_avgpool")
            )
            chosen = {"layer": saliency, "contrast_layer": contrast, "resize": bool(resized)}
        elif suffix == "_resized_smooth":
            width, height = config["resize_wh"]
            chosen |= {"resize": (height, width), "smooth": config["smooth"]}
        elif suffix == "_resized":
            chosen |= {"resize": True}
        elif suffix == "_pointing":
            chosen |= {"pointing": True}
        out[f"out/{name}"] = getattr(explain, method)(model, image, target, **chosen)
    return out


def residual_ebp(fixture: Fixture) -> Tensors:
    model = Residual(fixture.weights)
    load_strict(model, fixture.weights)
    image, target = fixture.inputs["image"], fixture.config["target"]
    out: Tensors = {"out/logits": model.eval()(image)}
    for name in fixture.part("out"):
        if found := re.fullmatch(r"contrastive_(\w+?)_(\w+)", name):
            settings = {"layer": found[1], "contrast_layer": found[2]}
            out[f"out/{name}"] = explain.contrastive_excitation_backprop(model, image, target, **settings)
        elif found := re.fullmatch(r"(excitation_backprop|grad_cam|guided_backprop)(?:_(\w+))?", name):
            out[f"out/{name}"] = getattr(explain, found[1])(model, image, target, layer=found[2])
    return out


def rise(fixture: Fixture) -> Tensors:
    config, image, model = fixture.config, fixture.inputs["image"], tiny(fixture)
    masks = fixture.inputs["filter_masks"]
    given = explain.rise_maps(model, image, num_masks=len(masks), filter_masks=masks, batch=config["filter_batch_size"])
    seeded = explain.rise_maps(
        model, image, num_masks=config["num_masks"], cells=config["num_cells"], p=config["p"], seed=config["seed"],
        batch=config["seeded_batch_size"],
    )  # fmt: skip
    grid = upsample_grid(fixture.inputs["grid"], tuple(config["size"]))
    assert list(grid.shape[-2:]) == config["up_size"]
    return {"out/rise_filter_masks": given, "out/rise_seeded": seeded, "out/upsampled_grid": grid}


def pointing_game(fixture: Fixture) -> Tensors:
    config, inputs = fixture.config, fixture.inputs
    game = explain.PointingGame(config["num_classes"], config["tolerance"])
    masks = [voc_box_mask([box], config["H"], config["W"]) for box in inputs["boxes_voc"].tolist()]
    hits = []
    for mask, point, class_id in zip(masks, inputs["points_xy"].tolist(), inputs["class_id"].tolist(), strict=True):
        hits.append(game.evaluate(mask, point))
        game.aggregate(hits[-1], class_id)
    return {
        "out/masks": torch.stack(masks),
        "out/hit": torch.tensor(hits),
        "out/hits_per_class": game.hits,
        "out/misses_per_class": game.misses,
        "out/class_accuracies": game.class_accuracies,
        "out/accuracy": torch.tensor(game.accuracy, dtype=torch.float64),
    }


def rewards(fixture: Fixture) -> Tensors:
    activation, out = fixture.inputs["activation"], {}
    for variant in ("preserve", "delete", "dual"):
        target = torch.full((len(activation) // (2 if variant == "dual" else 1),), fixture.config["target"])
        out[f"out/simple_{variant}"] = explain.simple_reward(activation, target, variant)  # type: ignore[arg-type]
        # the stored contrastive rewards mix the items, as the authors' code does; the right ones are on the diagonal
        mixed = explain.contrastive_reward(activation, target, variant, mix_items=True)  # type: ignore[arg-type]
        right = explain.contrastive_reward(activation, target, variant)  # type: ignore[arg-type]
        assert torch.equal(mixed.diagonal(dim1=0, dim2=1).movedim(-1, 0), right)
        out[f"out/contrastive_{variant}"] = mixed
    out["out/onehot_gradient"] = explain.output_gradient(activation, fixture.config["onehot_targets"])
    out["out/pointing_gradient"] = explain.output_gradient(activation[:1], fixture.config["target"], pointing=True)
    return out


class Tail(nn.Module):
    """Spatial mean, linear, ReLU, linear, behind a layer to attribute to."""

    def __init__(self, weights: Tensors) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.weights = weights

    def forward(self, z: Tensor) -> Tensor:
        hidden = F.linear(self.layer(z).mean((2, 3)), self.weights["W1"], self.weights["b1"]).relu()
        return F.linear(hidden, self.weights["W2"], self.weights["b2"])


def channel_attribution(fixture: Fixture) -> Tensors:
    config = fixture.config
    result = explain.channel_attribution(
        Tail(fixture.weights), "layer", fixture.inputs["activation"], config["target"], config["areas"],
        variant=config["variant"], max_iter=config["max_iter"], growth=config.get("regul_growth", 1.0035),
        plain=True,
    )  # fmt: skip
    return {"out/mask": result.masks, "out/mask_after_last_step": result.after_last_step, "out/hist": result.history}


def feature_inversion(fixture: Fixture) -> Tensors:
    inputs, out = fixture.inputs, {}
    candidate = inputs["candidate_activation"].requires_grad_()
    error = normalised_error(inputs["target_activation"], candidate, inputs["channel_mask"])
    out["out/normalised_error"] = error.reshape(1)
    (out["grad/candidate_activation"],) = torch.autograd.grad(error, candidate)
    image = inputs["image"].requires_grad_()
    for name in fixture.expected:
        if found := re.fullmatch(r"out/tv_beta([\d.]+)", name):
            out[name] = total_variation(image, float(found[1])).reshape(1)
        elif found := re.fullmatch(r"out/alpha([\d.]+)", name):
            out[name] = image.abs().pow(float(found[1])).sum().reshape(1)
        elif found := re.fullmatch(r"grad/image_tv([\d.]+)_plus_alpha([\d.]+)", name):
            total = total_variation(image, float(found[1])) + image.abs().pow(float(found[2])).sum()
            (out[name],) = torch.autograd.grad(total, image)
    return out


KINDS = {
    "smoothing_and_perturbation": smoothing_and_perturbation,
    "mask_generator": mask_generator,
    "extremal_perturbation": extremal_perturbation,
    "backprop_methods": backprop_methods,
    "residual_ebp": residual_ebp,
    "rise": rise,
    "pointing_game": pointing_game,
    "rewards": rewards,
    "channel_attribution": channel_attribution,
    "feature_inversion": feature_inversion,
}
