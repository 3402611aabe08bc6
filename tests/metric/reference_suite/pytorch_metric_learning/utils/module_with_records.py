"""`saccade.metric.records`."""

from saccade.metric.records import ModuleWithRecords  # noqa: F401
