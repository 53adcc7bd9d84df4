# SPDX-License-Identifier: GPL-2.0-only
"""``kpw man``: the manual page, made from what --help says."""

from __future__ import annotations

from pathlib import Path

import click

from workbench.errors import ExitCode, UsageError


@click.command("man", short_help="Print the manual page, for man(1).")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it there, as in ~/.local/share/man/man1/kpw.1.",
)
@click.pass_context
def command(context: click.Context, output: Path | None) -> ExitCode:
    """Print the manual page: every command with its options, exit codes, files.

    'kpw man | man -l -' shows it.
    """
    from workbench import atomic, manual

    group = context.find_root().command
    if not isinstance(group, click.Group):
        raise TypeError("the root command is no group")
    page = manual.render(group)
    if output is None:
        click.echo(page, nl=False)
        return ExitCode.GOOD
    try:
        atomic.write(output, page.encode())
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            where=str(output),
            next_step="name a file in a folder that is there",
        ) from error
    return ExitCode.GOOD
