"""Networks made small: convolutions whose rows share few values, what that saves, and how it is stored.

Any network will do: torchvision's, timm's, your own. Convolutions of every kind are found and replaced by surgery; the
network that is given is never changed.
"""

from saccade.efficiency.compressed_file import CompressedFile, load_compressed, read_compressed, save_compressed
from saccade.efficiency.compression import CompressionReport, LayerSize, compression_report
from saccade.efficiency.deep_k_means import KMeansRegularizer
from saccade.efficiency.energy import EnergyReport, EnergyTable, energy_report, layer_cost
from saccade.efficiency.lenet import LeNetCaffe
from saccade.efficiency.rows import cluster_rows, rows_of
from saccade.efficiency.shared_weights import (
    ClusteredModel,
    LayerClusters,
    SharedConv1d,
    SharedConv2d,
    SharedConv3d,
    SharedConvTranspose1d,
    SharedConvTranspose2d,
    SharedConvTranspose3d,
    SharedRows,
    cluster_weights,
    share,
    share_equal_rows,
)
from saccade.efficiency.wide_resnet import WideResNet, wide_resnet_setting
from saccade.ops.clustering import KMeans, assign, kmeans

__all__ = [
    "ClusteredModel",
    "CompressedFile",
    "CompressionReport",
    "EnergyReport",
    "EnergyTable",
    "KMeans",
    "KMeansRegularizer",
    "LayerClusters",
    "LayerSize",
    "LeNetCaffe",
    "SharedConv1d",
    "SharedConv2d",
    "SharedConv3d",
    "SharedConvTranspose1d",
    "SharedConvTranspose2d",
    "SharedConvTranspose3d",
    "SharedRows",
    "WideResNet",
    "assign",
    "cluster_rows",
    "cluster_weights",
    "compression_report",
    "energy_report",
    "kmeans",
    "layer_cost",
    "load_compressed",
    "read_compressed",
    "rows_of",
    "save_compressed",
    "share",
    "share_equal_rows",
    "wide_resnet_setting",
]
