"""Claims: a paper's comparison in small, baseline against method over seeds, with an honest verdict."""

from saccade.claims.claim import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within

__all__ = ["Arm", "Axis", "Beats", "Budget", "Cell", "Claim", "Data", "Metric", "Outcome", "Within"]
