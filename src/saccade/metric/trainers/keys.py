"""Checks of the dictionaries that a trainer is given: names that it does not know are errors, not silence."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from saccade.metric.inputs import ArgumentError

LOGGER = logging.getLogger("saccade")


class KeyChecker:
    """What keys one dictionary may have.

    Args:
        keys: Regular expressions, of which each key has to match one as a whole; or a function that gives them from
            the schema, once that is complete.
        warn_empty: Whether an empty dictionary is warned of.
        important: Keys whose absence is warned of; all that are not essential where `None`.
        essential: Keys whose absence is an error.
    """

    def __init__(
        self,
        keys: list[str] | Callable[[Mapping[str, KeyChecker]], list[str]],
        warn_empty: bool = True,
        important: list[str] | None = None,
        essential: list[str] | None = None,
    ) -> None:
        self.keys: Any = keys
        self.warn_empty = warn_empty
        self.important = important
        self.essential = essential or []

    def verify(self, name: str, given: Mapping[str, Any] | None, schema: Mapping[str, KeyChecker]) -> None:
        """Check one dictionary.

        Raises:
            ValueError: A key that is not accepted, or an essential one that is missing.
        """
        if not given:
            if self.warn_empty:
                LOGGER.warning("%s is empty", name)
            if given is None:
                return
        keys = self.keys(schema) if callable(self.keys) else self.keys
        for key in given or {}:
            if not any(re.fullmatch(pattern, key) for pattern in keys):
                raise ArgumentError(f"{name} has the key {key!r}; {', '.join(keys)} are accepted")
        for pattern in self.essential:
            if not any(re.fullmatch(pattern, key) for key in given or {}):
                raise ArgumentError(f"{name} lacks the key {pattern!r}; it has {', '.join(given or {}) or 'none'}")
        important = [key for key in keys if key not in self.essential] if self.important is None else self.important
        for pattern in important:
            if not any(re.fullmatch(pattern, key) for key in given or {}):
                LOGGER.warning("%s lacks %r", name, pattern)
