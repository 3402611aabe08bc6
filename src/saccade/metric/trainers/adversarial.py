"""Deep adversarial metric learning: a generator makes hard negatives out of easy triplets (Duan et al., CVPR 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.metric.distances import LpDistance
from saccade.metric.inputs import ArgumentError
from saccade.metric.losses import TripletMarginLoss
from saccade.metric.miners import EmbeddingsAlreadyPackagedAsTriplets
from saccade.metric.trainers.single import TrainWithClassifier
from saccade.metric.tuples import random_triplets


class NegativeLpDistance(LpDistance):
    """Minus the distance: a triplet loss with it wants negatives near and positives far."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b, m)."""
        return -super().compute_mat(query_emb, ref_emb)

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b,)."""
        return -super().pairwise_distance(query_emb, ref_emb)


class DeepAdversarialMetricLearning(TrainWithClassifier):
    """Trains the embedding on real and on generated triplets, and the generator to deceive it.

    The generator takes (3 x features) of a random triplet to the features of a synthetic negative. Its losses:
    "g_adv_loss" (a triplet loss turned round), "g_hard_loss" (near the anchor) and "g_reg_loss" (near the real
    negative), both mean squared errors of normalised features. The embedding gets "synth_loss" on synthetic triplets.

    Args:
        metric_alone_epochs: So long the embedding alone is trained.
        g_alone_epochs: Then so long the generator alone, then both.
        g_triplets_per_anchor: Random triplets a sample.
        *args: As for [`TrainWithClassifier`][saccade.metric.trainers.TrainWithClassifier], with "generator" in
            `models`, and "synth_loss" and "g_adv_loss" (a `TripletMarginLoss`) in `loss_funcs`.
        **kwargs: The same.

    Raises:
        ValueError: "g_adv_loss" is something else.
    """

    def __init__(
        self,
        metric_alone_epochs: int = 0,
        g_alone_epochs: int = 0,
        g_triplets_per_anchor: int = 100,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.original_loss_weights = dict(self.loss_weights)
        self.metric_alone_epochs = metric_alone_epochs
        self.g_alone_epochs = g_alone_epochs
        adversary = self.loss_funcs["g_adv_loss"]
        if not isinstance(adversary, TripletMarginLoss):
            raise ArgumentError(f"g_adv_loss is a {type(adversary).__name__}; a TripletMarginLoss is accepted")
        adversary.margin *= -1
        adversary.distance = NegativeLpDistance()
        self.g_triplets_per_anchor = g_triplets_per_anchor

    def custom_setup(self) -> None:
        """With the two losses that need no function."""
        self.mining_funcs["synth_packaged_as_triplets"] = EmbeddingsAlreadyPackagedAsTriplets()
        self.loss_names += ["g_hard_loss", "g_reg_loss"]

    def calculate_loss(self, curr_batch: Any) -> None:
        """The losses of the phase."""
        data, labels = curr_batch
        features = self.get_trunk_output(data)
        if self.do_metric:
            embeddings = self.get_final_embeddings(features)
            tuples = self.maybe_mine_embeddings(embeddings, labels)
            self.losses["metric_loss"] = self.loss_funcs["metric_loss"](embeddings, labels, tuples)
            logits = self.maybe_get_logits(embeddings)
            self.losses["classifier_loss"] = self.maybe_get_classifier_loss(logits, labels)
        if self.do_adv:
            self.calculate_synth_loss(features, labels.to(features.device))

    def update_loss_weights(self) -> None:
        """The phase, and with it which losses count and which networks learn."""
        alone = self.epoch <= self.metric_alone_epochs
        adversary_alone = not alone and self.epoch <= self.metric_alone_epochs + self.g_alone_epochs
        self.do_metric_alone, self.do_adv_alone = alone, adversary_alone
        self.do_both = not (alone or adversary_alone)
        self.do_adv, self.do_metric = not alone, not adversary_alone
        counted = (
            ["g_hard_loss", "g_reg_loss", "g_adv_loss"] * self.do_adv
            + ["metric_loss", "classifier_loss"] * self.do_metric
            + ["synth_loss"] * self.do_both
        )
        for name in self.loss_weights:
            self.loss_weights[name] = self.original_loss_weights[name] if name in counted else 0
        self.set_to_train()
        still = ["trunk", "classifier"] if adversary_alone else ["generator"] if alone else []
        for name, model in self.models.items():
            model.requires_grad_(name not in still)
            if name in still:
                model.eval()

    def step_optimizers(self) -> None:
        """Step the optimisers of the phase."""
        stepped = ["trunk_optimizer", "embedder_optimizer", "classifier_optimizer"] * self.do_metric
        stepped += ["generator_optimizer"] * self.do_adv
        for name, optimizer in self.optimizers.items():
            if name in stepped:
                optimizer.step()

    def calculate_synth_loss(self, penultimate_embeddings: Tensor, labels: Tensor) -> None:
        """The losses of synthetic triplets.

        Args:
            penultimate_embeddings: Features, (b, d).
            labels: (b,).
        """
        chosen = random_triplets(labels, t_per_anchor=self.g_triplets_per_anchor)
        anchors, positives, negatives = (penultimate_embeddings[index] for index in chosen)
        synthetic = self.models["generator"](torch.cat([anchors, positives, negatives], dim=1).to(self.data_device))
        packed = torch.stack([anchors, positives, synthetic], dim=1).flatten(0, 1)
        packed_labels = labels[torch.stack(list(chosen), dim=1).flatten()]
        embeddings = self.get_final_embeddings(packed)
        tuples = self.mining_funcs["synth_packaged_as_triplets"](embeddings, packed_labels)
        if self.do_both:
            self.losses["synth_loss"] = self.loss_funcs["synth_loss"](embeddings, packed_labels, tuples)
        self.losses["g_adv_loss"] = self.loss_funcs["g_adv_loss"](embeddings, packed_labels, tuples)
        generated = F.normalize(synthetic, dim=1)
        self.losses["g_hard_loss"] = F.mse_loss(generated, F.normalize(anchors, dim=1))
        self.losses["g_reg_loss"] = F.mse_loss(generated, F.normalize(negatives, dim=1))

    def modify_schema(self) -> None:
        """With a generator and its losses."""
        super().modify_schema()
        self.schema["models"].keys += ["generator"]
        self.schema["models"].essential += ["generator"]
        self.schema["loss_funcs"].keys += ["synth_loss", "g_adv_loss"]
        self.schema["loss_funcs"].essential += ["synth_loss", "g_adv_loss"]
        self.schema["mining_funcs"].keys += ["synth_packaged_as_triplets"]
