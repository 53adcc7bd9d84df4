# SPDX-License-Identifier: GPL-2.0-only
"""``kpw resolve``: settle a conflict in a small work tree, and have it remembered."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode, UsageError
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel
    from workbench.opened import Open
    from workbench.progress import Progress
    from workbench.resolving import Desk


@click.command("resolve", short_help="Settle a conflict in a small work tree.")
@options.optional_tag_argument
@click.argument("patch", metavar="[EXT/NUMBER]", required=False, default="")
@options.repo_option
@click.option("--continue", "settle", is_flag=True, help="All is settled: take it over.")
@click.option("--abort", "abort", is_flag=True, help="Give it up; the work tree goes.")
def command(*, tag: str, patch: str, repo: Path | None, settle: bool, abort: bool) -> ExitCode:
    """Open the conflict of a patch on kernel TAG: 'kpw resolve v7.1.13 ha-clusterip/0001'.

    The work tree has just the files in conflict, in git's usual state: edit
    them or run 'git mergetool', 'git add' them, then say --continue. The
    resolution is kept in patches/EXT/resolutions, and 'kpw rebase' uses it
    wherever the same conflict comes up. The work tree stands on the extension
    and what it requires; a patch that conflicts with other extensions only is
    resolved on the whole series. Without EXT/NUMBER the first conflict that
    can be is opened; without words, what is open is listed. Exit code 3 when
    --continue finds something that is not settled.
    """
    from workbench import extensions, progress, source
    from workbench.gitstore import Store
    from workbench.resolving import Desk

    if repo is not None and not tag:
        raise UsageError("--repo needs a kernel", next_step="write it as TAG")
    if settle and abort:
        raise UsageError("--continue and --abort are two different things")
    paths = Paths.default()
    desk = Desk(paths, Store.open(paths), extensions.load_extensions(paths))
    if not (tag or settle or abort):
        return _list(desk.opened())
    with progress.shown() as display:
        if repo is not None:
            tag = source.obtain(paths, tag, repo=repo, progress=display).name
        if settle or abort:
            found = _the_one(paths, desk, tag, patch)
            return _abort(desk, found) if abort else _settle(paths, desk, found, display)
        kernel = _kernel(paths, tag, display)
        if patch:
            found = _open(desk, kernel, patch, display)
        else:
            found = _open_first(paths, desk, kernel, display)
    return _show(found)


def _kernel(paths: Paths, tag: str, display: Progress) -> Kernel:
    from workbench import source

    return source.obtain(paths, tag, repo=None, progress=display)


def _open(desk: Desk, kernel: Kernel, word: str, display: Progress) -> Open:
    extension, file = desk.find(word, kernel)
    opened = desk.opened(kernel.name, f"{extension.name}/{file.name[:4]}")
    return opened[0] if opened else desk.open(kernel, extension, file, display)


def _open_first(paths: Paths, desk: Desk, kernel: Kernel, display: Progress) -> Open:
    """Open the first patch that conflicts and can be opened."""
    from workbench import extensions, rebase
    from workbench.gitstore import Store
    from workbench.model import PatchState

    loaded = extensions.load_extensions(paths)
    series = rebase.rebase(paths, Store.open(paths), kernel, loaded, display)
    refused: UsageError | None = None
    for outcome in series.outcomes:
        if outcome.state is PatchState.CONFLICT and outcome.patch.endswith(".patch"):
            try:
                return _open(desk, kernel, f"{outcome.extension}/{outcome.patch}", display)
            except UsageError as error:
                refused = refused or error
    raise refused or UsageError(
        f"no patch conflicts on {kernel.name}", next_step="see 'kpw rebase'"
    )


def _the_one(paths: Paths, desk: Desk, tag: str, patch: str) -> Open:
    """Find the open conflict that is meant; UsageError unless there is just one."""
    from workbench import kernelnames

    opened = desk.find_open(tag, patch)
    if len(opened) == 1:
        return opened[0]
    words = ", ".join(f"'{each.kernel} {each.name}'" for each in opened)
    if opened:
        raise UsageError("several conflicts are open", next_step=f"say which: {words}")
    if tag:
        kernelnames.here(paths, tag)  # a name that none could have is told as such
    raise UsageError("no such conflict is open", next_step="'kpw resolve' lists what is")


def _list(opened: tuple[Open, ...]) -> ExitCode:
    if not opened:
        click.echo("no conflict is open; 'kpw resolve TAG EXT/NUMBER' opens one")
    for each in opened:
        _show(each)
    return ExitCode.GOOD


def _show(found: Open) -> ExitCode:
    left = set(found.tree.unsettled())
    count = len(found.conflicts)
    click.echo(f"{found.kernel} {found.name}: {found.subject}")
    for path, kind in found.conflicts:
        click.echo(f"  {path}: {kind if path in left else 'settled'}")
    if found.beside:
        click.echo("  it conflicts with other extensions: the work tree stands on the whole series")
    click.echo(f"  {count - len(left)} of {count} settled; work tree: {found.tree.folder}")
    place = shlex.quote(str(found.tree.folder))
    if left:
        click.echo(f"  next: cd {place}; edit, or 'git mergetool'; 'git add' what is settled")
    click.echo(f"  then: kpw resolve {found.kernel} {found.name} --continue  (or --abort)")
    return ExitCode.GOOD


def _settle(paths: Paths, desk: Desk, found: Open, display: Progress) -> ExitCode:
    done = desk.settle(found, _kernel(paths, found.kernel, display), display)
    name = f"{found.kernel} {found.name}"
    if done.folder is None:
        for line in done.missing:
            click.echo(f"{name}: {line}")
        return ExitCode.CONFLICT
    click.echo(f"{name}: resolved, and remembered in {done.folder}")
    click.echo(
        f"  next: kpw rebase {found.kernel}; kpw prove {found.kernel} --only {found.extension}; "
        f"kpw save {found.kernel} {found.extension}"
    )
    return ExitCode.GOOD


def _abort(desk: Desk, found: Open) -> ExitCode:
    desk.close(found)
    click.echo(f"{found.kernel} {found.name}: given up, its work tree is gone")
    return ExitCode.GOOD
