"""`saccade.metric.composed`."""

from saccade.metric.composed import (  # noqa: F401
    ModuleWithRecordsAndDistance,
    ModuleWithRecordsReducerAndDistance,
)
from saccade.metric.records import ModuleWithRecords  # noqa: F401

ModuleWithRecordsAndReducer = ModuleWithRecordsReducerAndDistance
