# SPDX-License-Identifier: GPL-2.0-only
"""``kpw prove``: red without the patch, green with it, both run anew."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.order import Order, Outputs, Red
from workbench.paths import Paths
from workbench.printable import safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.errors import ExitCode
    from workbench.verdict import RunReport


@click.command("prove", short_help="Show that each proof fails without its patch, and why.")
@options.tags_argument
@options.all_option
@options.trial_options
def command(order: Order, outputs: Outputs) -> ExitCode:
    """Run every proof on the kernel without patches and on the patched one.

    A proof must fail without its patch, and for the reason it states; one
    that passes there is an error of the series.
    """
    from workbench import campaign

    report = campaign.run(Paths.default(), replace(order, red=Red.ANEW), outputs)
    stream = sys.stderr if outputs.take_stdout else sys.stdout
    for line in proof_lines(report):
        stream.write(f"{line}\n")
    return report.exit_code


def proof_lines(report: RunReport) -> Iterator[str]:
    """Yield one line for each proof and kernel: how its red was."""
    for trial in report.trials:
        for cell in trial.cells:
            for proof in cell.proofs:
                said = f": {safe(proof.message)}" if proof.message else ""
                yield f"{trial.kernel.name}  {proof.nodeid}  {proof.state}{said}"
            if cell.upstream and cell.tests:
                yield f"{trial.kernel.name}  {cell.extension}  upstream: green only, no red here"
