# SPDX-License-Identifier: GPL-2.0-only
"""``kpw report``: what is known of every kernel, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench import options
from workbench.errors import ExitCode, UsageError
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("report", short_help="Write what the kept runs found as one HTML page.")
@click.argument("folders", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    default="kpw-report.html",
    show_default=True,
    shell_complete=options.a_file,
    help="The page to write; '-' is stdout.",
)
def command(folders: tuple[Path, ...], output: str) -> ExitCode:
    """Write one HTML page: the matrix, and what each of its cells rests on.

    RUN is the folder of a run ('kept in ...', says its last line); without
    one all that are kept are looked at, and the newest that proves or refutes
    an extension on a kernel counts. The page loads nothing, and can be sent or
    put anywhere.
    """
    from workbench import atomic, report_html, runs
    from workbench.order import refuse_unwritable

    refuse_unwritable("--output", output)
    paths = Paths.default()
    found = _named(folders) if folders else _kept([each.parent for each in runs.reports(paths)])
    columns = report_html.columns(found)
    if not columns:
        raise UsageError(
            "no run is kept", where=str(paths.runs), next_step="'kpw run' or 'kpw prove' first"
        )
    page = report_html.render(columns)
    if output == "-":
        click.echo(page, nl=False)
    else:
        atomic.write(Path(output), page.encode())
        click.echo(f"{output}: what {len(found)} runs found on {len(columns)} kernels")
    return ExitCode.GOOD


def _named(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the runs somebody asked for: each has to be one."""
    from workbench import report_html, runs

    found = [runs.report_of(folder) for folder in folders]
    for folder, report in zip(folders, found, strict=True):
        if said := report_html.fault(report):
            raise UsageError(f"its report cannot be shown: {said}", where=str(folder))
    return found


def _kept(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Read all runs that are kept; an odd one is passed, and told."""
    from workbench import report_html, runs

    found = []
    for folder in folders:
        try:
            report = runs.report_of(folder)
            said = report_html.fault(report)
        except UsageError as error:
            said = error.what
        if said:
            click.echo(f"passed: {folder}: {said}", err=True)
        else:
            found.append(report)
    return found
