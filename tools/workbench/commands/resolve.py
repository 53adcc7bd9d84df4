# SPDX-License-Identifier: GPL-2.0-only
"""``kpw resolve``: settle a conflict in a small work tree, and have it remembered."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from workbench import options
from workbench.errors import ExitCode, UsageError
from workbench.paths import Paths
from workbench.said import Said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.model import Kernel
    from workbench.opened import Open
    from workbench.progress import Progress
    from workbench.resolving import Desk

# Raised when a name of the JSON changes its meaning; a new name does not raise it.
VERSION: Final = 1


@click.command("resolve", short_help="Settle a conflict in a small work tree.")
@options.optional_tag_argument
@click.argument(
    "patch",
    metavar="[EXT/NUMBER]",
    required=False,
    default="",
    shell_complete=options.names_of(options.Kind.PATCH),
)
@options.repo_option
@click.option("--continue", "settle", is_flag=True, help="All is settled: take it over.")
@click.option("--abort", "abort", is_flag=True, help="Give it up; the work tree goes.")
@options.json_flag
def command(
    *, tag: str, patch: str, repo: Path | None, settle: bool, abort: bool, as_json: bool
) -> ExitCode:
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
    desk = Desk(paths, Store.open(paths), extensions.load_extensions(paths), repo)
    with progress.shown() as display:
        if repo is not None:
            tag = source.obtain(paths, tag, repo=repo, progress=display).name
        if settle or abort:
            found = _the_one(paths, desk, tag, patch)
            said = _abort(desk, found) if abort else _settle(paths, desk, found, display)
        elif tag:
            kernel = _kernel(paths, tag, display)
            if patch:
                found = _open(desk, kernel, patch, display)
            else:
                found = _open_first(desk, kernel, display)
            said = _shown((found,))
        else:
            said = _shown(desk.opened())
    return said.tell(VERSION, as_json=as_json)


def _kernel(paths: Paths, tag: str, display: Progress) -> Kernel:
    from workbench import source

    return source.obtain(paths, tag, repo=None, progress=display)


def _open(desk: Desk, kernel: Kernel, word: str, display: Progress) -> Open:
    extension, file = desk.find(word, kernel)
    opened = desk.opened(kernel.name, f"{extension.name}/{file.name[:4]}")
    return opened[0] if opened else desk.open(kernel, extension, file, display)


def _open_first(desk: Desk, kernel: Kernel, display: Progress) -> Open:
    """Open the first patch that conflicts and can be opened."""
    from workbench.model import PatchState

    series = desk.ported(kernel, display)
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


def _shown(opened: tuple[Open, ...]) -> Said:
    lines = [line for each in opened for line in _lines(each)]
    none = ["no conflict is open; 'kpw resolve TAG EXT/NUMBER' opens one"]
    return Said(lines or none, {"open": [_data(each) for each in opened]})


def _lines(found: Open) -> Iterator[str]:
    left = set(found.tree.unsettled())
    count = len(found.conflicts)
    yield f"{found.kernel} {found.name}: {found.subject}"
    for path, kind in found.conflicts:
        yield f"  {path}: {kind if path in left else 'settled'}"
    if found.beside:
        yield "  it conflicts with other extensions: the work tree stands on the whole series"
    yield f"  {count - len(left)} of {count} settled; work tree: {found.tree.folder}"
    place = shlex.quote(str(found.tree.folder))
    if left:
        yield f"  next: cd {place}; edit, or 'git mergetool'; 'git add' what is settled"
    yield f"  then: kpw resolve {found.kernel} {found.name} --continue  (or --abort)"


def _data(found: Open) -> dict[str, Any]:
    left = set(found.tree.unsettled())
    return {
        "kernel": found.kernel,
        "patch": found.name,
        "subject": found.subject,
        "whole_series": found.beside,
        "tree": str(found.tree.folder),
        "conflicts": [
            {"path": path, "kind": kind, "settled": path not in left}
            for path, kind in found.conflicts
        ],
    }


def _settle(paths: Paths, desk: Desk, found: Open, display: Progress) -> Said:
    done = desk.settle(found, _kernel(paths, found.kernel, display), display)
    name = f"{found.kernel} {found.name}"
    data = {
        "kernel": found.kernel,
        "patch": found.name,
        "resolved": done.folder is not None,
        "missing": list(done.missing),
    }
    if done.folder is None:
        lines = [f"{name}: {line}" for line in done.missing]
        return Said(lines, data, ExitCode.CONFLICT)
    lines = [
        f"{name}: resolved, and remembered in {done.folder}",
        f"  next: kpw rebase {found.kernel}; {_following(found)}",
    ]
    return Said(lines, data)


def _following(found: Open) -> str:
    kernel, extension = found.kernel, found.extension
    if found.beside:
        # Without the others it is not in use: no run of the extension alone confirms it.
        return f"kpw prove {kernel}"
    return f"kpw prove {kernel} --only {extension}; kpw save {kernel} {extension}"


def _abort(desk: Desk, found: Open) -> Said:
    desk.close(found)
    line = f"{found.kernel} {found.name}: given up, its work tree is gone"
    return Said([line], {"kernel": found.kernel, "patch": found.name, "given_up": True})
