"""`saccade bench`: parts against their peers where nothing else is said; models on devices with a word more."""

from __future__ import annotations

from typing import Any

import typer

from saccade.cli.bench import bench
from saccade.cli.bench_devices import devices, partition, plan, serve_metrics
from saccade.cli.bench_runs import compare, infer, jobs, share, train


class PartsByDefault(typer.core.TyperGroup):
    """`saccade bench SLUG` is `saccade bench parts SLUG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default's name in front where no command is named."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["parts", *args]
        return super().parse_args(ctx, args)


bench_group = typer.Typer(
    cls=PartsByDefault,
    help="Time parts against their peers (`bench [SLUG]`), and models on devices (`bench infer MODEL` ...).",
    rich_markup_mode=None,
    add_completion=False,
)
bench_group.command("parts")(bench)
bench_group.command()(infer)
bench_group.command()(train)
bench_group.command()(devices)
bench_group.command()(plan)
bench_group.command()(partition)
bench_group.command()(share)
bench_group.command()(jobs)
bench_group.command()(compare)
bench_group.command("serve-metrics")(serve_metrics)
