"""Spaces of architectures, what their members cost, and distributions over them.

Nothing here knows what an architecture is: a space is a list of named decisions with a few choices each, and one member
is a row of indices. So the same pieces search networks, augmentations, or any other table of choices.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ArchitectureSpace:
    """All combinations of some decisions.

    Args:
        decisions: Name to the choices that can be made.

    Raises:
        ValueError: No decisions, a decision without choices, or one that lists a choice twice.

    Example:
        >>> space = ArchitectureSpace({"kernel": [3, 5], "width": [8, 16, 24]})
        >>> space.count, space.decode(space.encode({"kernel": 5, "width": 8}))
        (6, {'kernel': 5, 'width': 8})
    """

    def __init__(self, decisions: Mapping[str, Sequence[Hashable]]) -> None:
        if not decisions:
            raise ValueError("a space of architectures needs at least one decision")
        for name, choices in decisions.items():
            if not choices:
                raise ValueError(f"the decision {name!r} has no choices")
            if len(set(choices)) < len(choices):
                raise ValueError(f"the decision {name!r} lists a choice twice: {list(choices)}")
        self.decisions = {name: tuple(choices) for name, choices in decisions.items()}
        self.names = tuple(self.decisions)
        self.sizes = tuple(len(choices) for choices in self.decisions.values())

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def count(self) -> int:
        """How many architectures there are."""
        return math.prod(self.sizes)

    def sample(self, k: int, generator: torch.Generator | None = None) -> Int[Tensor, "k l"]:
        """Draw uniformly.

        Args:
            k: How many.
            generator: Of the CPU; torch's global one where `None`.

        Returns:
            Indices of choices, a row an architecture.

        Raises:
            ValueError: Fewer than one.
        """
        if k < 1:
            raise ValueError(f"at least 1 architecture is drawn, not {k}")
        columns = [torch.randint(size, (k,), generator=generator) for size in self.sizes]
        return torch.stack(columns, dim=1)

    def encode(self, choices: Mapping[str, Any]) -> Int[Tensor, " l"]:
        """Indices of named choices.

        Args:
            choices: A choice for each decision.

        Returns:
            A row of indices.

        Raises:
            ValueError: A decision that is missing or unknown, or a choice that it does not have.
        """
        missing, unknown = set(self.names) - set(choices), set(choices) - set(self.names)
        if missing or unknown:
            raise ValueError(f"decisions do not match: missing {sorted(missing)}, unknown {sorted(unknown)}")
        row = []
        for name, listed in self.decisions.items():
            if choices[name] not in listed:
                raise ValueError(f"{name!r} is one of {list(listed)}, not {choices[name]!r}")
            row.append(listed.index(choices[name]))
        return torch.tensor(row)

    def decode(self, architecture: Int[Tensor, " l"]) -> dict[str, Any]:
        """Named choices of a row of indices.

        Args:
            architecture: Indices.

        Returns:
            Decision to choice.

        Raises:
            ValueError: Another length, or an index out of range.
        """
        self.check(architecture[None])
        row = architecture.tolist()
        return {name: listed[i] for (name, listed), i in zip(self.decisions.items(), row, strict=True)}

    def check(self, architectures: Tensor) -> None:
        """Raise `ValueError` unless these are rows of indices of this space."""
        if architectures.ndim != 2 or architectures.shape[1] != len(self) or architectures.is_floating_point():
            given = f"{tuple(architectures.shape)} of {architectures.dtype}"
            raise ValueError(f"architectures are whole numbers (k, {len(self)}), not {given}")
        wrong = (architectures < 0) | (architectures >= torch.tensor(self.sizes, device=architectures.device))
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"architecture {row} has choice {int(architectures[row, column])} for {self.names[column]!r}, "
                f"which has 0 to {self.sizes[column] - 1}"
            )


class CostTables:
    """A cost that is a sum of tables, each over one or a few decisions.

    A table over one decision holds the cost of each choice; one over several has an axis for each of them, in that
    order, for costs that depend on choices together (a convolution costs by the width of its input and of its output).

    Args:
        space: The decisions.
        tables: Names of decisions to the costs of their choices; one tensor of costs a decision where it is a sequence.
        constant: What every architecture costs.

    Raises:
        ValueError: An unknown decision, or a table of another shape.

    Example:
        >>> space = ArchitectureSpace({"kernel": [3, 5], "width": [8, 16]})
        >>> cost = CostTables(space, {("kernel",): torch.tensor([1.0, 2.0])}, constant=0.5)
        >>> cost(torch.tensor([[0, 1], [1, 0]]))
        tensor([1.5000, 2.5000])
    """

    def __init__(
        self,
        space: ArchitectureSpace,
        tables: Mapping[tuple[str, ...], Tensor] | Sequence[Tensor],
        constant: float = 0.0,
    ) -> None:
        if not isinstance(tables, Mapping):
            if len(tables) != len(space):
                raise ValueError(f"one table a decision is needed, {len(space)}, not {len(tables)}")
            tables = {(name,): table for name, table in zip(space.names, tables, strict=True)}
        self.space, self.constant = space, constant
        self.tables: dict[tuple[int, ...], Tensor] = {}
        for names, table in tables.items():
            unknown = [name for name in names if name not in space.decisions]
            if unknown:
                raise ValueError(f"the space has no decision {unknown[0]!r}")
            at = tuple(space.names.index(name) for name in names)
            shape = tuple(space.sizes[i] for i in at)
            if tuple(table.shape) != shape:
                raise ValueError(f"the costs of {', '.join(names)} have to be {shape}, not {tuple(table.shape)}")
            self.tables[at] = table

    def __call__(self, architectures: Int[Tensor, "k l"]) -> Float[Tensor, " k"]:
        """The cost of each architecture, exactly as the tables say."""
        self.space.check(architectures)
        parts = [table[tuple(architectures[:, i].to(table.device) for i in at)] for at, table in self.tables.items()]
        return torch.stack(parts).sum(0) + self.constant


class CategoricalArchitectureDistribution(nn.Module):
    """Independent categorical distributions over the decisions of a space, or over groups of them.

    P(A) is the product over groups of softmax(logits)[choice]. At the start all architectures are equally probable.
    With a group for each decision the distribution is factorised; a group of several decisions is one categorical over
    all combinations of their choices, which can express that two choices go well together alone.

    Args:
        space: The decisions.
        groups: Names of the decisions of each group, every decision in one; `None`: each for itself.

    Raises:
        ValueError: A decision that is in no group, in two, or unknown.

    Note:
        Source: arXiv:1902.05116 (factorised), arXiv:2011.10949, section on coarse-to-fine search (joint). `logits` is
        (groups, most choices): a group with fewer choices leaves its last columns unused.

    Example:
        >>> space = ArchitectureSpace({"kernel": [3, 5], "width": [8, 16, 24]})
        >>> distribution = CategoricalArchitectureDistribution(space)
        >>> distribution.log_prob(torch.tensor([[0, 2]])).exp()
        tensor([0.1667], grad_fn=<ExpBackward0>)
    """

    valid: Tensor

    def __init__(self, space: ArchitectureSpace, groups: Sequence[Sequence[str]] | None = None) -> None:
        super().__init__()
        groups = [(name,) for name in space.names] if groups is None else groups
        listed = [name for group in groups for name in group]
        if sorted(listed) != sorted(space.names) or not all(groups):
            raise ValueError(f"every decision belongs to one group: {list(space.names)} are there, grouped {listed}")
        self.space = space
        self.groups = tuple(tuple(group) for group in groups)
        self.members = tuple(tuple(space.names.index(name) for name in group) for group in self.groups)
        sizes = torch.tensor([math.prod(space.sizes[i] for i in at) for at in self.members])
        self.logits = nn.Parameter(torch.zeros(len(sizes), int(sizes.max())))
        self.register_buffer("valid", torch.arange(int(sizes.max())) < sizes[:, None], persistent=False)

    def log_probs(self) -> Float[Tensor, "g m"]:
        """Log-probabilities of the choices of each group, minus infinity where it has fewer."""
        return self.logits.masked_fill(~self.valid, -math.inf).log_softmax(1)

    def probabilities(self) -> dict[tuple[str, ...], Tensor]:
        """Of each group, with an axis for each of its decisions."""
        rows = self.log_probs().exp()
        return {
            group: row[valid].unflatten(0, [self.space.sizes[i] for i in at])
            for group, at, row, valid in zip(self.groups, self.members, rows, self.valid, strict=True)
        }

    def group_indices(self, architectures: Int[Tensor, "k l"]) -> Int[Tensor, "k g"]:
        """Which choice of each group an architecture is."""
        self.space.check(architectures)
        columns = []
        for at in self.members:
            index = architectures[:, at[0]]
            for i in at[1:]:
                index = index * self.space.sizes[i] + architectures[:, i]
            columns.append(index)
        return torch.stack(columns, dim=1)

    def _split(self, indices: Int[Tensor, "k g"]) -> Int[Tensor, "k l"]:
        """Architectures of the choices of each group."""
        architectures = torch.zeros(len(indices), len(self.space), dtype=torch.int64)
        for column, at in enumerate(self.members):
            index = indices[:, column]
            for i in reversed(at):
                architectures[:, i] = index % self.space.sizes[i]
                index = index // self.space.sizes[i]
        return architectures

    def log_prob(self, architectures: Int[Tensor, "k l"]) -> Float[Tensor, " k"]:
        """Log-probabilities of architectures; the gradient with respect to `logits` is onehot - p.

        Args:
            architectures: Rows of indices.

        Returns:
            In nats.

        Raises:
            ValueError: Another shape, or an index out of range.
        """
        indices = self.group_indices(architectures).to(self.logits.device)
        return self.log_probs().gather(1, indices.T).sum(0)

    def entropy(self) -> Float[Tensor, ""]:
        """In nats, summed over groups."""
        logs = self.log_probs()
        return -torch.where(self.valid, logs.exp() * logs.masked_fill(~self.valid, 0.0), 0.0).sum()

    def sample(self, k: int, generator: torch.Generator | None = None) -> Int[Tensor, "k l"]:
        """Draw architectures.

        Args:
            k: How many.
            generator: Of the CPU; torch's global one where `None`.

        Returns:
            Rows of indices, on the CPU.

        Raises:
            ValueError: Fewer than one.
        """
        if k < 1:
            raise ValueError(f"at least 1 architecture is drawn, not {k}")
        with torch.no_grad():
            probabilities = self.log_probs().exp().cpu()
        return self._split(torch.multinomial(probabilities, k, replacement=True, generator=generator).T)

    def mode(self) -> Int[Tensor, " l"]:
        """The most probable architecture; of equally probable choices the first."""
        with torch.no_grad():
            return self._split(self.log_probs().argmax(1).cpu()[None])[0]

    def within(self, cost: CostTables, most: float) -> Int[Tensor, " l"]:
        """A most probable architecture that costs no more than a bound.

        From the mode, the change of one group that gives up least log-probability for what it saves is made again and
        again, until the cost is within the bound. That is greedy: exact for a single change, close for few.

        Args:
            cost: What architectures cost.
            most: The bound.

        Returns:
            A row of indices.

        Raises:
            ValueError: Greedy changes do not come below the bound.
        """
        with torch.no_grad():
            logs = self.log_probs().cpu()
        row = self.group_indices(self.mode()[None])[0]
        while float(now := cost(self._split(row[None]))[0]) > most:
            changes = [(g, c) for g in range(len(row)) for c in range(int(self.valid[g].sum())) if c != int(row[g])]
            rows = row.repeat(len(changes), 1)
            for at, (group, choice) in enumerate(changes):
                rows[at, group] = choice
            saved = (now - cost(self._split(rows))).cpu().double()
            lost = torch.tensor([float(logs[g, row[g]] - logs[g, c]) for g, c in changes], dtype=torch.float64)
            price = torch.where(saved > 0, lost.clamp(min=0) / saved.clamp(max=float(now) - most), math.inf)
            if not bool(price.isfinite().any()):
                raise ValueError(f"no change of one decision comes below a cost of {float(now):.4g}, wanted {most:.4g}")
            row = rows[int(price.argmin())]
        return self._split(row[None])[0]

    def expected_cost(self, cost: CostTables | Sequence[Tensor]) -> Float[Tensor, ""]:
        """The mean cost of architectures drawn from the distribution, exactly.

        Args:
            cost: Tables, or one tensor of costs a decision.

        Returns:
            Differentiable in `logits`.
        """
        cost = cost if isinstance(cost, CostTables) else CostTables(self.space, cost)
        by_group = list(self.probabilities().values())
        total = self.logits.new_tensor(cost.constant)
        for at, table in cost.tables.items():
            mean, left = table.to(self.logits), list(at)
            for members, probability in zip(self.members, by_group, strict=True):
                shared = [i for i in members if i in left]
                if shared:
                    others = [axis for axis, i in enumerate(members) if i not in left]
                    marginal = probability.sum(others) if others else probability
                    order = [left.index(i) for i in members if i in left]
                    mean = torch.tensordot(mean, marginal, (order, list(range(len(order)))))
                    left = [i for i in left if i not in shared]
            total = total + mean
        return total

    def to_joint(self, groups: Sequence[Sequence[str]]) -> CategoricalArchitectureDistribution:
        """The same distribution with larger groups: their logits are sums of log-probabilities.

        Args:
            groups: Names of the decisions of each new group, which unite old ones; decisions that are not named keep
                theirs.

        Returns:
            The distribution.

        Raises:
            ValueError: A group that parts an old one.
        """
        named = {name for group in groups for name in group}
        whole = [tuple(group) for group in groups] + [group for group in self.groups if not named & set(group)]
        joint = CategoricalArchitectureDistribution(self.space, whole).to(self.logits)
        logs = {group: p.log() for group, p in zip(self.groups, self.probabilities().values(), strict=True)}
        with torch.no_grad():
            for row, (group, at) in enumerate(zip(joint.groups, joint.members, strict=True)):
                parts = [old for old in self.groups if set(old) <= set(group)]
                if sum(map(len, parts)) != len(group):
                    raise ValueError(f"the group {list(group)} parts one of {[list(old) for old in self.groups]}")
                table = torch.zeros([self.space.sizes[i] for i in at]).to(self.logits)
                for old in parts:
                    places = [group.index(name) for name in old]
                    order = sorted(range(len(old)), key=places.__getitem__)
                    shape = [size if name in old else 1 for name, size in zip(group, table.shape, strict=True)]
                    table = table + logs[old].permute(order).reshape(shape)
                joint.logits[row, : table.numel()] = table.flatten()
        return joint
