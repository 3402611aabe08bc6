"""The run-time type checker of the tests: beartype, with an int accepted where a float is meant, as by mypy."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
