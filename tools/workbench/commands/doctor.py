# SPDX-License-Identifier: GPL-2.0-only
"""``kpw doctor``: look at the host and say how to mend what is missing."""

from __future__ import annotations

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths


@click.command("doctor", short_help="Check this host, and say how to mend it.")
@options.arch_option
def command(arch: str) -> ExitCode:
    """Check what the workbench needs of this host; 0 when nothing is in the way, else 128."""
    from workbench import doctor

    checks = doctor.examine(Paths.default(), arch)
    width = max(len(check.name) for check in checks)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in checks:
        state = click.style(f"{check.state.value:<4}", fg=colours[check.state.value])
        click.echo(f"{state}  {check.name:<{width}}  {check.found}")
        if check.mend:
            click.echo(f"      {'':<{width}}  -> {check.mend}")
    failed = any(check.state is doctor.State.FAIL for check in checks)
    return ExitCode.INFRA if failed else ExitCode.GOOD
