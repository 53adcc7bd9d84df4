# SPDX-License-Identifier: GPL-2.0-only
"""``kpw run``: from a kernel tag to a verdict, all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.paths import Paths

if TYPE_CHECKING:
    from workbench.errors import ExitCode
    from workbench.order import Order, Outputs


@click.command("run", short_help="Rebase, build, boot, run every selftest, print the verdict.")
@options.tags_argument
@options.all_option
@options.trial_options
def command(order: Order, outputs: Outputs) -> ExitCode:
    """Rebase the series, build, boot, run every selftest and print the verdict.

    Without a TAG: the default one of patches/kernels.toml. The red of the
    proofs (the same tests on the kernel without the patches) is remembered as
    long as kernel, image and tests stay the same; 'kpw prove' makes it anew.
    """
    from workbench import campaign

    return campaign.run(Paths.default(), order, outputs).exit_code
