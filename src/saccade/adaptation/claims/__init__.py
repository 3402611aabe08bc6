"""The claims of the adaptation domain, one file a method."""

from saccade.adaptation.claims.mico import MICO

__all__ = ["MICO"]
