# SPDX-License-Identifier: GPL-2.0-only
"""``kpw report``: what is known of every kernel, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from workbench.errors import ExitCode
from workbench.paths import Paths


@click.command("report", short_help="Write what the kept runs found as one HTML page.")
@click.argument("folders", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    default="kpw-report.html",
    show_default=True,
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
    from workbench.errors import UsageError
    from workbench.order import refuse_unwritable

    refuse_unwritable("--output", output)
    paths = Paths.default()
    kept = folders or [file.parent for file in runs.reports(paths)]
    found = [runs.report_of(folder) for folder in kept]
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
