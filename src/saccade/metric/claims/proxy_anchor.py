"""The claim of Proxy Anchor."""

from __future__ import annotations

from torch import nn
from torch.optim import Adam

from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome
from saccade.metric.claims.unseen import retrieval_among_unseen_classes
from saccade.metric.datasets import SmallImages
from saccade.metric.losses.proxies import ProxyNCALoss
from saccade.metric.networks import SmallEmbedding
from saccade.metric.proxy_anchor import ProxyAnchorLoss
from saccade.metric.task import MetricLearning
from saccade.training import fit


def run_proxy_anchor(cell: Cell) -> Outcome:
    """Train on some classes, retrieve among others."""
    data = SmallImages(
        "omniglot" if cell.data == "omniglot" else "digits",
        root=str(cell.data_root),
        batch_size=cell.settings["batch"],
        seed=cell.seed,
    )
    size = data.train_images.images.shape[-1]
    model = SmallEmbedding(size, pooled=cell.settings["pooled"])
    loss: nn.Module
    if cell.options["loss"] == "proxy-anchor":
        loss = ProxyAnchorLoss(data.num_classes, 64)
    else:
        loss = ProxyNCALoss(data.num_classes, 64, softmax_scale=cell.options.get("scale", 1.0))
    task = MetricLearning(
        model, loss, loss_lr_mult=cell.options["proxy_lr"], optimizer=lambda groups: Adam(groups, lr=1e-3)
    )
    steps = max(1, round(cell.settings["steps"] * cell.settings["share"]))
    curve = fit(task, data, steps=steps, seed=cell.seed, device=cell.device, progress=cell.progress)
    metrics, pictures = retrieval_among_unseen_classes(task, data, cell.device)
    return Outcome(metrics, {"training loss": curve}, pictures)


PROXY_ANCHOR = Claim(
    slug="proxy-anchor",
    statement=(
        "Trained from scratch on random batches with proxies that learn ten times as fast as the network, Proxy Anchor "
        "retrieves unseen classes better than Proxy-NCA as published: "
        "by at least 2 points P@1 on digits, 4 on Omniglot."
    ),
    paper=(
        "Fine-tuning Inception-BN (512-d): Recall@1 of 68.4 on CUB-200-2011 and 86.1 on Cars-196, against 49.2 and "
        "73.2 of Proxy-NCA (64-d), and 65.7 and 84.1 of Multi-Similarity."
    ),
    metrics={"p1": Metric("P@1 (%)"), "map": Metric("MAP@R (%)")},
    arms={
        "proxy-nca": Arm("Proxy-NCA", {"loss": "proxy-nca", "proxy_lr": 10}, baseline=True),
        "proxy-anchor": Arm("Proxy Anchor", {"loss": "proxy-anchor", "proxy_lr": 10}),
        "proxy-nca-scaled": Arm("Proxy-NCA, scale 8", {"loss": "proxy-nca", "proxy_lr": 10, "scale": 8.0}),
        "proxy-nca-100": Arm("Proxy-NCA, proxies 100x", {"loss": "proxy-nca", "proxy_lr": 100}),
        "proxy-anchor-100": Arm("Proxy Anchor, proxies 100x", {"loss": "proxy-anchor", "proxy_lr": 100}),
    },
    expectations=[
        Beats("proxy-anchor", "proxy-nca", by=2.0, on=("digits",)),
        Beats("proxy-anchor", "proxy-nca", by=4.0, on=("omniglot",)),
    ],
    data={
        "digits": Data(
            "scikit-learn's 1,797 real handwritten digits in four orientations: 20 classes train, 20 are unseen",
            settings={"pooled": 1, "steps": 100},
            seeds=5,
        ),
        "omniglot": Data(
            "real Omniglot drawings at 28 x 28: 136 characters train, 106 of three other alphabets are unseen",
            needs="omniglot",
            settings={"pooled": 4, "steps": 150},
            seeds=10,
        ),
    },
    budgets={
        "smoke": Budget(1, {"batch": 64, "share": 0.03}),
        "small": Budget(5, {"batch": 64, "share": 1.0}),
        "full": Budget(10, {"batch": 64, "share": 10.0}),
    },
    run=run_proxy_anchor,
    axes={"training loss": Axis("step", "training loss (each arm's own)")},
    limits=(
        "The gain depends on the learning rate of the proxies and on the rival's temperature. With proxies that learn "
        "100 times as fast, as in the authors' recipe for pretrained networks, the order turns on Omniglot: there "
        "Proxy-NCA is ahead by about two points. Tuning the scale of Proxy-NCA (8 instead of 1) brings it near on "
        "digits. So this is no general win from scratch; the paper's larger gains come from fine-tuning pretrained "
        "networks on about 100 classes."
    ),
)
