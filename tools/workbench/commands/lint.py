# SPDX-License-Identifier: GPL-2.0-only
"""``kpw lint``: the kernel's own gates on every patch of the series."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode, UsageError
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.gates import KernelLint
    from workbench.model import Extension, Kernel
    from workbench.progress import Progress


@click.command("lint", short_help="Put every patch through the kernel's own gates.")
@options.tags_argument
@options.all_option
@options.only_option
@options.without_option
@options.repo_option
@options.arch_option
@options.json_flag
def command(
    *,
    tags: tuple[str, ...],
    all_tags: bool,
    only: tuple[str, ...],
    without: tuple[str, ...],
    repo: Path | None,
    arch: str,
    as_json: bool,
) -> ExitCode:
    """Rebase the series on each TAG (none: the default one) and look at every patch.

    \b
    checkpatch  --strict of that tree says nothing
    builds      what it touches, and what includes by name a header it
                touches, builds with the patches up to it
                (kconfigs/lint/base.config)
    W=1, sparse say nothing of the files it touches that they did not say
                of the tree before it
    VARIANT     the same files build in the whole series with each other
                file of kconfigs/lint

    A build of the whole tree is 'kpw build'. What was found once about the
    same contents is not done again.

    Exit code 0 when all is clean, 1 when checkpatch, W=1 or sparse found
    something or a touched file is not compiled at all, 3 when a patch does
    not apply, 4 when something does not build.
    """  # noqa: D301 - \b is click's word for a paragraph that is not filled
    from workbench import extensions, progress, report_lint, source
    from workbench import lint as gates

    paths = Paths.default()
    chosen = extensions.select(extensions.load_extensions(paths), only, without)
    # A misspelt variant shall not cost a rebase first.
    gates.exemptions(paths, chosen)
    names = _tags(paths, tags, all_tags=all_tags)
    if repo is None:
        source.refuse_unnamed(paths, names)
    with progress.shown() as display:
        kernels = [source.obtain(paths, name, repo=repo, progress=display) for name in names]
        done = [_linted(paths, kernel, chosen, display, arch) for kernel in kernels]
    code = max(each.exit_code for each in done)
    if as_json:
        click.echo(json.dumps(report_lint.as_data(done, int(code)), indent=1))
    else:
        report_lint.show(done, sys.stdout)
    return code


def _tags(paths: Paths, tags: tuple[str, ...], *, all_tags: bool) -> tuple[str, ...]:
    from workbench import source

    if all_tags and tags:
        raise UsageError("name tags or say --all, not both")
    if all_tags:
        return tuple(str(each.tag) for each in source.supported(paths))
    return tuple(dict.fromkeys(tags)) or (source.default_tag(paths),)


def _linted(
    paths: Paths, kernel: Kernel, chosen: tuple[Extension, ...], display: Progress, arch: str
) -> KernelLint:
    from workbench import lint, rebase
    from workbench.gitstore import Store

    store = Store.open(paths)
    series = rebase.rebase(paths, store, kernel, chosen, display)
    return lint.lint(paths, store, series, chosen, display, arch=arch)
