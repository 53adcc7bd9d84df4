# SPDX-License-Identifier: GPL-2.0-only
"""``kpw edit``: the patches of an extension as commits, and back as files."""

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

    from workbench.edited import Edit
    from workbench.editing import Desk
    from workbench.editplan import Change, Plan
    from workbench.progress import Progress

# Raised when a name of the JSON changes its meaning; a new name does not raise it.
VERSION: Final = 1


@click.command("edit", short_help="Edit the patches of an extension as commits.")
@options.extension_argument
@click.option(
    "--since",
    metavar="TAG",
    default="",
    shell_complete=options.names_of(options.Kind.SINCE),
    help="Edit the folder since-TAG, on the kernel its patches were made on.",
)
@options.repo_option
@click.option("--continue", "settle", is_flag=True, help="Write the commits back as patches.")
@click.option("--abort", "abort", is_flag=True, help="Give it up; the work tree goes.")
@click.option("--dry-run", is_flag=True, help="With --continue: say what would be written.")
@options.json_flag
def command(
    *,
    extension: str | None,
    since: str,
    repo: Path | None,
    settle: bool,
    abort: bool,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """Open the patches of EXT as a git branch, one commit each: 'kpw edit spi-timeout'.

    The work tree stands on the kernel the patches were made on, with what EXT
    requires below, and has the folders they touch. Do there what git can:
    amend, reword, reorder, split, squash, drop, add. Then --continue writes
    the commits back as the patches of EXT: what did not change keeps its file
    byte for byte, and its number where the order allows it. Files of since-
    folders follow the number of their patch, and keep their text. Without
    EXT, what is open is listed. Exit code 3 when --continue finds something
    that no patch can be made of, and tells what.
    """
    if settle and abort:
        raise UsageError("--continue and --abort are two different things")
    if dry_run and not settle:
        raise UsageError("--dry-run is for --continue", next_step="leave it out")
    if not extension and (since or repo):
        raise UsageError("--since and --repo need an extension", next_step="write it as EXT")
    if repo is not None and (settle or abort):
        raise UsageError("--repo is for opening", next_step="leave it out")
    paths, name = Paths.default(), extension or ""
    if settle:
        said = _settle(paths, name, since, dry_run=dry_run)
    elif abort:
        said = _abort(paths, name, since)
    else:
        said = _open(paths, name, since, repo)
    return said.tell(VERSION, as_json=as_json)


def _desk(paths: Paths, display: Progress) -> Desk:
    from workbench.editing import Desk
    from workbench.extensions import load_extensions
    from workbench.gitstore import Store

    return Desk(paths, Store.open(paths), load_extensions(paths), display)


def _open(paths: Paths, word: str, since: str, repo: Path | None) -> Said:
    from workbench import progress, source

    with progress.shown() as display:
        desk = _desk(paths, display)
        if not word:
            opened = desk.opened()
        else:
            edited = desk.find(word, since)
            opened = desk.opened(edited.extension.name)
            opened = tuple(each for each in opened if each.state.since == edited.since)
            if not opened:
                base = str(edited.base)
                kernel = source.obtain(paths, base, repo=repo, progress=display)
                opened = (desk.open(edited, kernel),)
    lines = [line for each in opened for line in _lines(each)]
    none = ["nothing is edited; 'kpw edit EXT' opens the patches of an extension"]
    return Said(lines or none, {"open": [_data(each) for each in opened]})


def _the_one(desk: Desk, word: str, since: str) -> Edit:
    """Find what is meant of what is open; UsageError unless that is just one."""
    opened = desk.opened(word, since)
    if len(opened) == 1:
        return opened[0]
    if not opened:
        raise UsageError(
            f"{word} is not open" if word else "nothing is open",
            next_step="'kpw edit' lists what is, 'kpw edit EXT' opens",
        )
    canonical = [each for each in opened if word and not since and not each.state.since]
    if len(canonical) == 1:
        return canonical[0]
    words = ", ".join(f"'{each.name}'" for each in opened)
    raise UsageError("several are open", next_step=f"say which: {words}")


def _lines(found: Edit) -> Iterator[str]:
    state, place = found.state, shlex.quote(str(found.tree.folder))
    count = len(state.files)
    yield f"{found.name}: {count} {'patch' if count == 1 else 'patches'} on {state.kernel}"
    yield f"  work tree: {found.tree.folder}"
    yield f"  next: cd {place}; 'git rebase -i', 'git commit --amend', 'git add -p', new commits"
    yield "    (what is elsewhere in the kernel: 'git sparse-checkout add /DIR/')"
    yield f"  then: kpw edit {found.name} --continue  (or --abort)"


def _data(found: Edit) -> dict[str, Any]:
    state = found.state
    return {
        "extension": state.extension,
        "since": state.since,
        "kernel": state.kernel,
        "patches": list(state.files),
        "tree": str(found.tree.folder),
    }


def _settle(paths: Paths, word: str, since: str, *, dry_run: bool) -> Said:
    from workbench import journal, progress, source

    with progress.shown() as display, journal.held(paths.patches, display):
        # Read in here: nobody else writes meanwhile.
        desk = _desk(paths, display)
        found = _the_one(desk, word, since)
        kernel = source.obtain(paths, found.state.kernel, progress=display)
        done = desk.settle(found, kernel, dry_run=dry_run)
    state = found.state
    data = {
        "extension": state.extension,
        "since": state.since,
        "dry_run": dry_run,
        "written": not (done.missing or done.plan.nothing or dry_run),
        "missing": list(done.missing),
        "files": [_change_data(each) for each in done.plan.changes],
    }
    if done.missing:
        lines = [f"{found.name}: {line}" for line in done.missing]
        return Said(lines, data, ExitCode.CONFLICT)
    return Said(list(_written(found, done.plan, dry_run=dry_run)), data)


def _written(found: Edit, plan: Plan, *, dry_run: bool) -> Iterator[str]:
    name = found.state.extension
    for change in plan.changes:
        yield f"{name}/{_change(name, change)}"
    if dry_run:
        yield f"{found.name}: nothing is written, and the work tree stays"
    elif plan.nothing:
        yield f"{found.name}: nothing changed; the work tree is gone"
    else:
        yield f"{found.name}: written, and the work tree is gone"
        yield "  next: kpw rebase --all"


def _change(extension: str, change: Change) -> str:
    from workbench.editplan import Fate

    if change.fate is Fate.OLD:
        way = f"'kpw edit {extension} --since {change.why}'"
        return f"{change.name}: still has the old text; {way}, or remove it and 'kpw rebase --all'"
    was = f", was {change.was}" if change.was not in {"", change.name} else ""
    why = f" ({change.why})" if change.why else ""
    return f"{change.name}: {change.fate}{was}{why}"


def _change_data(change: Change) -> dict[str, str]:
    state, _, more = change.fate.partition(", ")
    return {"state": state, "file": change.name, "was": change.was, "why": change.why or more}


def _abort(paths: Paths, word: str, since: str) -> Said:
    from workbench import progress

    with progress.shown() as display:
        desk = _desk(paths, display)
        found = _the_one(desk, word, since)
        lost = desk.give_up(found)
    parts = []
    if lost.commits:
        many = "1 commit that was" if lost.commits == 1 else f"{lost.commits} commits that were"
        parts.append(f"{many} not written back")
    if lost.files:
        parts.append(f"what was not committed in {', '.join(lost.files)}")
    gone = f", and with it {' and '.join(parts)}" if parts else ""
    data = {
        "extension": found.state.extension,
        "since": found.state.since,
        "given_up": True,
        "commits": lost.commits,
        "files": list(lost.files),
    }
    return Said([f"{found.name}: given up, its work tree is gone{gone}"], data)
