# SPDX-License-Identifier: GPL-2.0-only
"""``kpw test``: the selftests on the patched kernel, one line each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.order import Order, Outputs, Red
from workbench.paths import Paths

if TYPE_CHECKING:
    from workbench.errors import ExitCode
    from workbench.model import SelftestResult
    from workbench.progress import Progress


@click.command("test", short_help="Run selftests on the patched kernel.")
@options.tag_argument
@click.option(
    "-k",
    "expression",
    metavar="EXPR",
    default="",
    help="Only tests that match; the expression is pytest's.",
)
@click.option(
    "--cold",
    "snapshot",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Boot the kernel anew, instead of restoring a guest that has booted it before.",
)
@options.trial_options
def command(order: Order, outputs: Outputs) -> ExitCode:
    """Run the selftests on the patched kernel, without asking for the red."""
    from workbench import campaign

    order = replace(order, red=Red.NONE)
    return campaign.run(Paths.default(), order, outputs, _tell).exit_code


def _tell(progress: Progress, result: SelftestResult) -> None:
    from workbench.reportlog import first_line

    said = f": {first_line(result.message)}" if result.message else ""
    line = f"{result.outcome:<8} {result.seconds:6.2f} s  {result.nodeid} ({result.kind}){said}"
    progress.note(line)
