"""The claims of the adaptation domain, one file a method."""

from saccade.adaptation.claims.cmss import CMSS_CLAIM
from saccade.adaptation.claims.dsbn import DSBN
from saccade.adaptation.claims.mico import MICO

__all__ = ["CMSS_CLAIM", "DSBN", "MICO"]
