# SPDX-License-Identifier: GPL-2.0-only
"""``kpw lint``: the kernel's own gates on every patch of the series."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.errors import ExitCode
    from workbench.gates import KernelLint


@click.command("lint", short_help="Put every patch through the kernel's own gates.")
@options.tags_argument
@options.all_option
@options.only_option
@options.without_option
@options.repo_option
@options.arch_option
@click.option(
    "--link",
    is_flag=True,
    help="Link the kernel of each file of kconfigs/lint, too; it takes minutes.",
)
@options.json_flag
def command(
    *,
    tags: tuple[str, ...],
    all_tags: bool,
    only: tuple[str, ...],
    without: tuple[str, ...],
    repo: Path | None,
    arch: str,
    link: bool,
    as_json: bool,
) -> ExitCode:
    """Rebase the series on each TAG (none: the default one); look at every patch.

    \b
    checkpatch  --strict of that tree says nothing
    builds      what it touches, and what includes by name a header it
                touches, builds with the patches up to it
                (kconfigs/lint/base.config)
    W=1, sparse say nothing of the files it touches that they did not say
                of the tree before it
    VARIANT     the same files build in the whole series with each other
                file of kconfigs/lint; with --link the whole kernel links,
                with kconfigs/lint/base.config, too

    Exit code 0 when all is clean, 1 when checkpatch, W=1 or sparse found
    something or a touched file is not compiled at all, 3 when a patch does
    not apply, 4 when something does not build or link.
    """  # noqa: D301 - \b is click's word for a paragraph that is not filled
    from workbench import report_lint, source

    paths = Paths.default()
    names = source.names(paths, tags, all_tags=all_tags)
    wish = _Wish(only, without, repo, arch, link)
    done = _lint(paths, names, wish)
    code = max(each.exit_code for each in done)
    if as_json:
        click.echo(json.dumps(report_lint.as_data(done, int(code)), indent=1))
    else:
        report_lint.show(done, sys.stdout)
    return code


@dataclass(frozen=True)
class _Wish:
    """What the options say."""

    only: tuple[str, ...]
    without: tuple[str, ...]
    repo: Path | None
    arch: str
    link: bool


def _lint(paths: Paths, names: tuple[str, ...], wish: _Wish) -> list[KernelLint]:
    """Lint the kernels of these names."""
    from workbench import carry, extensions, lint, progress, source
    from workbench.gitstore import Store

    chosen = extensions.select(extensions.load_extensions(paths), wish.only, wish.without)
    # A misspelt variant shall not cost a download first.
    lint.exemptions(paths, chosen)
    with progress.shown() as display:
        kernels = source.obtain_all(paths, names, repo=wish.repo, progress=display)
        store = Store.open(paths)
        all_series = carry.rebase_all(paths, store, kernels, chosen, display, repo=wish.repo)
        return [
            lint.lint(paths, store, series, chosen, display, arch=wish.arch, link=wish.link)
            for series in all_series
        ]
