# SPDX-License-Identifier: GPL-2.0-only
"""``kpw save``: write patches back as they came out of a rebase."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.saving import Saved


@click.command("save", short_help="Write the patches that changed back, for a kernel.")
@options.tag_argument
@options.extensions_argument
@options.repo_option
@click.option("--merged", is_flag=True, help="Also what a 3-way merge changed by itself.")
def command(*, tag: str, names: tuple[str, ...], repo: Path | None, merged: bool) -> ExitCode:
    """Write the patches of each EXT (none: all) that changed on kernel TAG into patches/.

    A patch goes into the folder since-… that speaks for TAG, and its table
    into extension.toml. Those whose resolution was remembered are written;
    what a 3-way merge carries by itself only with --merged. When nothing
    changed, nothing is touched. Exit code 3 when a patch conflicts: its
    extension is then left as it is.
    """
    from workbench import extensions, journal, progress, saving, source
    from workbench.gitstore import Store

    paths = Paths.default()
    chosen = extensions.select(extensions.load_extensions(paths), names)
    if names:
        named = {extensions.find(chosen, name).name for name in names}
        chosen = tuple(each for each in chosen if each.name in named)
    with progress.shown() as display:
        kernel = source.obtain(paths, tag, repo=repo, progress=display)
    done = []
    for name in (each.name for each in chosen):
        with progress.shown() as display, journal.held(paths.patches, display):
            bench = saving.Bench(paths, Store.open(paths), display, merged)
            # Read anew: what was saved for one is what the next one stands on.
            loaded = extensions.load_extensions(paths)
            saved = saving.save(bench, kernel, loaded, extensions.find(loaded, name))
        # Told at once: a fault at the next one does not take this one back.
        _show(saved, kernel.name)
        done.append(saved)
    if not any(each.files or each.refused for each in done):
        click.echo(f"{kernel.name}: nothing changed")
    return ExitCode.CONFLICT if any(each.refused for each in done) else ExitCode.GOOD


def _show(saved: Saved, kernel: str) -> None:
    for file in saved.files:
        click.echo(f"{kernel}: wrote {_short(file)}")
    for file in saved.kept:
        click.echo(f"{kernel}: wrote {_short(file)}, so that this kernel keeps what it has")
    if saved.files:
        click.echo(f"  next: say why in patches/{saved.extension}/extension.toml; kpw rebase --all")
    for outcome in saved.refused:
        name = f"{outcome.extension}/{outcome.patch}"
        click.echo(
            f"{kernel}: {saved.extension} is not saved: {name}: {outcome.state}; "
            f"run 'kpw resolve {kernel} {name}' first"
        )


def _short(file: Path) -> str:
    return os.path.relpath(file)
