"""What the user may choose about the outputs of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from pyflame_ebpf.outputs.options import OutputOptions

TABLES = ("function", "line", "process")


_BY_COMMAND = OutputOptions(group_by=("command",))


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """Options of all writers; each writer uses those that mean something to it.

    ``by`` names the tables wanted, some of TABLES, empty for all.  ``top`` is the number of their rows, None for the
    writer's choice.  ``core_hour_price`` is in any currency.  ``reversed_graph`` gives boxes their widths before.
    """

    output: OutputOptions = _BY_COMMAND
    by: tuple[str, ...] = ()
    top: int | None = None
    core_hour_price: float | None = None
    reversed_graph: bool = False


DEFAULT_COMPARISON_OPTIONS = ComparisonOptions()
