"""`saccade.metric.hooks`."""

from saccade.metric.hooks import (  # noqa: F401
    EmptyContainer,
    HookContainer,
    get_hook_container,
    get_record_keeper,
)
