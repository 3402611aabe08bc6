"""The methods of the domain `adaptation`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="cmss",
        name="CMSS",
        title="Curriculum Manager for Source Selection in Multi-Source Domain Adaptation",
        arxiv="2007.01261",
        domain="adaptation",
        summary=(
            "Adapts a classifier from many mixed sources to an unlabelled target, weighting the source images "
            "that transfer at each moment."
        ),
        parts=(
            "saccade.adaptation.cmss:CMSS",
            "saccade.adaptation.cmss:CurriculumManager",
            "saccade.adaptation.cmss:CMSSObjective",
            "saccade.adaptation.cmss:curriculum_weights",
            "saccade.adaptation.cmss:weighted_domain_loss",
            "saccade.adaptation.cmss:effective_sample_size",
            "saccade.adaptation.cmss:source_share",
            "saccade.adaptation.cmss_networks:digits_five_classifier",
            "saccade.adaptation.cmss_networks:digits_five_discriminator",
            "saccade.adaptation.cmss_networks:digits_five_manager",
            "saccade.adaptation.cmss_networks:timm_manager",
        ),
        claim="saccade.adaptation.claims.cmss:CMSS_CLAIM",
        recipes=(
            "adaptation/cmss-digits-five",
            "adaptation/cmss-pacs",
            "adaptation/cmss-domainnet",
            "adaptation/cmss-office-caltech",
        ),
        checkpoints="none published",
    ),
    Method(
        slug="dsbn",
        name="DSBN",
        title="Domain-Specific Batch Normalization for Unsupervised Domain Adaptation",
        arxiv="1906.03950",
        domain="adaptation",
        summary=(
            "Adapts a classifier to new-looking images with a batch normalisation of its own for each domain and "
            "all else shared."
        ),
        repository="wgchang/DSBN",
        licence=NO_LICENCE,
        parts=(
            "saccade.adaptation.dsbn:convert_dsbn",
            "saccade.adaptation.dsbn:use_domain",
            "saccade.adaptation.dsbn:merge_domain",
            "saccade.adaptation.domain_batch_norm:DomainSpecificBatchNorm1d",
            "saccade.adaptation.domain_batch_norm:DomainSpecificBatchNorm2d",
            "saccade.adaptation.domain_batch_norm:DomainSpecificBatchNorm3d",
            "saccade.adaptation.mstn:MSTN",
            "saccade.adaptation.mstn:CPUA",
            "saccade.adaptation.mstn:MovingCentroids",
            "saccade.adaptation.self_training:SelfTrainingLoss",
            "saccade.adaptation.dsbn_stages:DSBNStage1",
            "saccade.adaptation.dsbn_stages:DSBNStage2",
            "saccade.adaptation.dsbn_networks:dsbn_lenet",
            "saccade.adaptation.dsbn_networks:dsbn_resnet",
        ),
        claim="saccade.adaptation.claims.dsbn:DSBN",
        recipes=(
            "adaptation/dsbn-digits",
            "adaptation/dsbn-office31-mstn",
            "adaptation/dsbn-office31-cpua",
            "adaptation/dsbn-office31-multi",
            "adaptation/dsbn-office31-stage2",
            "adaptation/dsbn-office-home-mstn",
            "adaptation/dsbn-office-home-cpua",
            "adaptation/dsbn-office-home-multi",
            "adaptation/dsbn-office-home-stage2",
            "adaptation/dsbn-visda-mstn",
            "adaptation/dsbn-visda-cpua",
            "adaptation/dsbn-visda-stage2",
        ),
        converter="saccade.adaptation.checkpoints:convert_dsbn_checkpoint",
        checkpoints="none by the authors; the converter reads what their training code saves",
    ),
    Method(
        slug="mico",
        name="MiCo / DeCoTa",
        title="Deep Co-Training with Task Decomposition for Semi-Supervised Domain Adaptation",
        arxiv="2007.12684",
        domain="adaptation",
        summary=(
            "Adapts a classifier with a handful of labelled target images: two networks with different tasks "
            "teach each other."
        ),
        repository="LoyoYang/DeCoTa",
        licence=NO_LICENCE,
        parts=(
            "saccade.adaptation:DeCoTa",
            "saccade.adaptation:decota_losses",
            "saccade.adaptation:CosinePredictor",
            "saccade.adaptation:cosine_classifier",
            "saccade.adaptation:MiST",
            "saccade.adaptation:MiSTLoss",
            "saccade.adaptation:PseudoLabelling",
        ),
        claim="saccade.adaptation.claims:MICO",
        recipes=(
            "adaptation/mico-domainnet-1shot",
            "adaptation/mico-domainnet-3shot",
            "adaptation/mico-office-home-1shot",
            "adaptation/mico-office-home-3shot",
        ),
        converter="saccade.adaptation.checkpoints:convert_mico",
        checkpoints=(
            "Two networks for real to clipart in the authors' repository, and what their code writes when it trains; "
            "one file a network"
        ),
    ),
)
