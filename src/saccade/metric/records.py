"""Modules that note figures about each call, for logging: the base of losses, miners, distances and reducers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

COLLECT_STATS = False
"""Whether modules note statistics where their `collect_stats` is `None`. They make the CPU wait for the device."""


class ModuleWithRecords(nn.Module):
    """A module whose `_record_these` names attributes worth logging, `_record_these_stats` those of the last call.

    Args:
        collect_stats: Whether statistics are noted; `saccade.metric.records.COLLECT_STATS` where `None`.

    Example:
        >>> module = ModuleWithRecords(collect_stats=True)
        >>> module.add_to_recordable_attributes(name="num_pairs", is_stat=True)
        >>> module.num_pairs, module._record_these_stats
        (0, ['num_pairs'])
    """

    _record_these: list[str]
    _record_these_stats: list[str]

    def __init__(self, collect_stats: bool | None = None) -> None:
        super().__init__()
        self.collect_stats = COLLECT_STATS if collect_stats is None else collect_stats

    def add_to_recordable_attributes(
        self, name: str | None = None, list_of_names: Sequence[str] | None = None, is_stat: bool = False
    ) -> None:
        """Announce attributes as worth logging; one that does not exist yet is set to 0.

        Args:
            name: One attribute.
            list_of_names: Further ones.
            is_stat: Whether they tell of the last call, and are back to 0 at the start of the next. Without
                `collect_stats` they are left out.
        """
        if is_stat and not self.collect_stats:
            return
        kept = self.__dict__.setdefault("_record_these_stats" if is_stat else "_record_these", [])
        for attribute in [*([] if name is None else [name]), *(list_of_names or [])]:
            if attribute not in kept:
                kept.append(attribute)
            if not hasattr(self, attribute):
                setattr(self, attribute, 0)

    def reset_stats(self) -> None:
        """Set the statistics of the last call to 0."""
        for attribute in self.__dict__.get("_record_these_stats", ()):
            setattr(self, attribute, 0)
