"""The claims of the action domain, one file a method."""

from saccade.action.claims.autox3d import AUTOX3D
from saccade.action.claims.gta import GTA
from saccade.action.claims.motion_squeeze import MOTION_SQUEEZE
from saccade.action.claims.motionformer import MOTIONFORMER
from saccade.action.claims.selfy import SELFY

__all__ = ["AUTOX3D", "GTA", "MOTIONFORMER", "MOTION_SQUEEZE", "SELFY"]
