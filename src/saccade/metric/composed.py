"""Modules that hold a distance and a reducer: the common ground of losses and regularisers."""

from __future__ import annotations

import copy
from typing import Any

from saccade.metric.distances import BaseDistance, LpDistance
from saccade.metric.inputs import ArgumentError
from saccade.metric.records import ModuleWithRecords
from saccade.metric.reducers import BaseReducer, DoNothingReducer, MeanReducer, MultipleReducers


class ModuleWithRecordsAndDistance(ModuleWithRecords):
    """A module with a `distance`: miners are that.

    Args:
        distance: The class's own where `None`.
        collect_stats: Whether statistics are noted.
    """

    default_distance: type[BaseDistance] = LpDistance

    def __init__(self, distance: BaseDistance | None = None, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        self.distance = self.get_default_distance() if distance is None else distance

    def get_default_distance(self) -> BaseDistance:
        """What compares where nothing is said."""
        return self.default_distance()

    def require_distance(self, kinds: type | tuple[type, ...] | None = None, **attributes: Any) -> None:
        """Raise unless the distance is of one of the kinds, and has the attributes.

        Raises:
            ValueError: With both named; it is an `AssertionError`, too.
        """
        own = type(self).__name__
        if kinds is not None and not isinstance(self.distance, kinds):
            accepted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise ArgumentError(f"{own} came with {type(self.distance).__name__}; {accepted} is accepted")
        for name, value in attributes.items():
            if getattr(self.distance, name) != value:
                came = getattr(self.distance, name)
                raise ArgumentError(f"{own} came with distance.{name}={came}; {value} is accepted")


class ModuleWithRecordsReducerAndDistance(ModuleWithRecordsAndDistance):
    """A module with a `distance` and a `reducer`.

    With one sub-loss the reducer is a copy of the one given; with several each gets a copy, and they are summed.

    Args:
        reducer: The class's own where `None`. `MultipleReducers` and `DoNothingReducer` are used as they are.
        distance: The class's own where `None`.
        collect_stats: Whether statistics are noted.
    """

    default_reducer: type[BaseReducer] = MeanReducer

    def __init__(
        self,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(distance, collect_stats)
        self.set_reducer(reducer)

    def get_default_reducer(self) -> BaseReducer:
        """What reduces where nothing is said."""
        return self.default_reducer()

    def sub_loss_names(self) -> list[str]:
        """Names of the sub-losses."""
        return ["loss"]

    def set_reducer(self, reducer: BaseReducer | None) -> None:
        """Take a reducer over, once for each sub-loss."""
        self.reducer: BaseReducer
        if isinstance(reducer, (MultipleReducers, DoNothingReducer)):
            self.reducer = reducer
            return
        names = self.sub_loss_names()
        copies = {name: self.get_default_reducer() if reducer is None else copy.deepcopy(reducer) for name in names}
        self.reducer = copies[names[0]] if len(names) == 1 else MultipleReducers(copies)
