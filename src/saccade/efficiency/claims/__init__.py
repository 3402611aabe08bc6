"""The claims of the efficiency domain, one file a method."""

from saccade.efficiency.claims.deep_k_means import DEEP_K_MEANS

__all__ = ["DEEP_K_MEANS"]
