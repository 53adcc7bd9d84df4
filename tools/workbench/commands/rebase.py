# SPDX-License-Identifier: GPL-2.0-only
"""``kpw rebase``: port the series to kernels and say what became of every patch."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


@click.command("rebase", short_help="Port the series to kernels, and report on every patch.")
@options.tags_argument
@options.all_option
@options.only_option
@options.without_option
@options.repo_option
@options.json_flag
def command(
    *,
    tags: tuple[str, ...],
    all_tags: bool,
    only: tuple[str, ...],
    without: tuple[str, ...],
    repo: Path | None,
    as_json: bool,
) -> ExitCode:
    """Port the series to each TAG (none: the default one) without a work tree.

    The result are commits in the store; nothing is checked out or built.
    Exit code 0 when every patch applies, 3 when one does not.
    """
    from workbench import carry, extensions, progress, report_series, selection, source, tested
    from workbench.gitstore import Store

    paths = Paths.default()
    store = Store.open(paths)
    loaded = extensions.load_extensions(paths)
    chosen = extensions.select(loaded, only, without)
    with progress.shown() as display:
        wanted = source.names(paths, tags, all_tags=all_tags)
        kernels = source.obtain_all(paths, wanted, repo=repo, progress=display)
        done = carry.rebase_all(paths, store, kernels, chosen, display, repo=repo)
        whole = selection.Whole(paths, store, loaded, display, repo)
        done = [whole.told(series) for series in done]
    done = [tested.confirmed(paths, series) for series in done]
    code = ExitCode.GOOD if all(series.applies for series in done) else ExitCode.CONFLICT
    if as_json:
        click.echo(json.dumps(report_series.as_data(done, int(code)), indent=1))
    else:
        report_series.show(done, sys.stdout)
    return code
