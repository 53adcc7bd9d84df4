# SPDX-License-Identifier: GPL-2.0-only
"""``kpw completion``: what a shell must read to complete ``kpw``."""

from __future__ import annotations

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths


@click.command("completion", short_help="Print the script that completes kpw in a shell.")
@click.argument("shell", type=click.Choice(options.SHELLS))
def command(shell: str) -> ExitCode:
    """Print the script for a SHELL: verbs, options, extensions and known kernels are completed.

    \b
    bash   eval "$(tools/kpw completion bash)", in ~/.bashrc to keep it
    zsh    the same, after compinit, in ~/.zshrc
    fish   tools/kpw completion fish > ~/.config/fish/completions/kpw.fish

    It completes kpw by whatever path it is typed, and asks this checkout;
    no network is used, and nothing is installed or made.
    """  # noqa: D301 - \b is click's word for a paragraph that is not filled
    from workbench import completion

    click.echo(completion.script(Paths.default(), shell), nl=False)
    return ExitCode.GOOD
