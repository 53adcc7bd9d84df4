# SPDX-License-Identifier: GPL-2.0-only
"""``kpw fetch``: bring kernels into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from workbench import options, progress
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


@click.command("fetch", short_help="Bring kernels into the store.")
@options.tags_argument
@options.all_option
@options.repo_option
def command(tags: tuple[str, ...], *, all_tags: bool, repo: Path | None) -> ExitCode:
    """Download, check and import kernels; the default one when none is named."""
    from workbench import source

    paths = Paths.default()
    if all_tags:
        if tags or repo:
            raise click.UsageError("--all stands for every supported kernel: name no other")
        tags = tuple(str(kernel.tag) for kernel in source.supported(paths))
    if repo is None:
        source.refuse_unnamed(paths, tags)
    with progress.shown() as display:
        for name in tags or (source.default_tag(paths),):
            kernel = source.obtain(paths, name, repo=repo, progress=display)
            click.echo(f"{kernel.name}  {kernel.commit[:12]}  {kernel.origin}")
    return ExitCode.GOOD
