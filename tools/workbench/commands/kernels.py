# SPDX-License-Identifier: GPL-2.0-only
"""``kpw kernels``: which kernels there are, and how near they are."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.survey import Known

_MIB = 1 << 20


@click.command("kernels", short_help="List the kernels: tag, source, state, size.")
@click.option("--all", "every", is_flag=True, help="Also every other release the archive lists.")
@click.option("--refresh", is_flag=True, help="Ask the Debian archive now what it lists.")
@options.json_flag
def command(*, every: bool, refresh: bool, as_json: bool) -> ExitCode:
    """List the supported and the imported kernels; asks no network by itself."""
    from workbench.survey import State, survey

    paths = Paths.default()
    if refresh:
        _refresh(paths)
    known = survey(paths)
    shown = [k for k in known if every or refresh or k.supported or k.state is State.IMPORTED]
    if as_json:
        click.echo(json.dumps([_as_data(kernel) for kernel in shown], indent=2))
        return ExitCode.GOOD
    _show(shown)
    if len(shown) < len(known):
        click.echo(f"{len(known) - len(shown)} more are known: 'kpw kernels --all' lists them")
    elif len(known) == sum(kernel.supported for kernel in known):
        click.echo("others can be had too: 'kpw kernels --refresh' asks the archive")
    return ExitCode.GOOD


def _refresh(paths: Paths) -> None:
    from workbench import archive, catalogue, progress
    from workbench.errors import InfraError

    faults: list[InfraError] = []
    with progress.shown() as display:
        found = archive.refresh(paths, catalogue.load(paths).debian, faults, display)
        for fault in faults:
            display.note(str(fault))
    if faults and not found:
        raise faults[0]


def _as_data(kernel: Known) -> dict[str, object]:
    return {
        "name": kernel.name,
        "tag": str(kernel.tag),
        "source": kernel.source,
        "state": str(kernel.state),
        "size": kernel.size or None,
        "stored": kernel.stored or None,
        "supported": kernel.supported,
        "default": kernel.default,
    }


def _show(kernels: Sequence[Known]) -> None:
    from rich import box
    from rich.table import Table

    from workbench.report_terminal import console_for

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("tag", "", "source", "state", "size"):
        table.add_column(column)
    for kernel in kernels:
        role = "default" if kernel.default else "supported" if kernel.supported else ""
        table.add_row(kernel.name, role, kernel.source, str(kernel.state), _size(kernel))
    console_for(sys.stdout).print(table)


def _size(kernel: Known) -> str:
    if kernel.size:
        return f"{kernel.size / _MIB:.0f} MiB tarball"
    return f"{kernel.stored / _MIB:.0f} MiB in the store" if kernel.stored else ""
