# SPDX-License-Identifier: GPL-2.0-only
"""``kpw import``: foreign patches become numbered ones of an extension."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from workbench import options
from workbench.errors import ExitCode, UsageError
from workbench.paths import Paths

if TYPE_CHECKING:
    from workbench.gitstore import Store
    from workbench.importing import Imported
    from workbench.madeon import MadeOn, Misfit
    from workbench.mailthread import Thread

# Raised when a name of the JSON changes its meaning; a new name does not raise it.
VERSION: Final = 1
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("import", short_help="Take an mbox, a quilt series or a git range into patches/.")
@click.argument("source", metavar="SOURCE", shell_complete=options.a_file)
@click.option(
    "--into",
    metavar="EXT",
    required=True,
    shell_complete=options.names_of(options.Kind.EXTENSION),
    help="The extension, a new one or not.",
)
@click.option("--new", is_flag=True, help="EXT is new, though one has nearly that name.")
@click.option(
    "--base",
    metavar="TAG",
    shell_complete=options.names_of(options.Kind.TAG),
    help="The kernel the patches were made on, or are to stand on.",
)
@click.option(
    "--repo",
    metavar="PATH",
    type=_DIRECTORY,
    help="SOURCE is a range A..B of commits of this git repository.",
)
@options.json_flag
def command(
    *, source: str, into: str, new: bool, base: str | None, repo: Path | None, as_json: bool
) -> ExitCode:
    """Take the patches of SOURCE into patches/EXT.

    SOURCE is an mbox, a thread as b4 or a list's archive saves it, a folder
    with a quilt series or with mails, or with --repo a range of commits.
    Reviewed-by, Acked-by and Tested-by that a reply gives to a patch, or to
    the whole, are taken too. Nothing that is there is written over, and a
    second import changes nothing.

    What was made on no kernel that is here goes onto the nearest by a 3-way
    merge, if the blobs it names are known. Exit code 3 when a patch neither
    applies nor merges; then nothing is written.
    """
    from workbench import journal, madeon, progress
    from workbench.gitstore import Store
    from workbench.importing import Importer
    from workbench.model import KernelTag

    paths = Paths.default()
    store = Store.open(paths)
    stated = madeon.MadeOn(KernelTag.parse(base), "as you said") if base else None
    thread, known = _read(store, source, repo)
    with progress.shown() as display, journal.held(paths.patches, display):
        result = Importer(paths, store, into, display, new=new).take(thread, stated or known)
    if isinstance(result, madeon.Misfit):
        return _misfit(result, as_json=as_json)
    for line in thread.skipped:
        sys.stderr.write(f"passed: {line}\n")
    for line in thread.given:
        sys.stderr.write(f"given: {line}\n")
    _tell(result, as_json=as_json)
    return ExitCode.GOOD


def _read(store: Store, source: str, repo: Path | None) -> tuple[Thread, MadeOn | None]:
    from workbench import exportfolder, gitrange, mailthread, quiltseries

    if repo is not None:
        return gitrange.read(store, repo, source)
    path = Path(source)
    if (path / exportfolder.QUILT_SERIES).is_file():
        return quiltseries.read(path), None
    if path.is_dir():
        return mailthread.read_folder(path), None
    if not path.exists() and ".." in source:
        raise UsageError(f"{source}: is no file", next_step="a range of commits wants --repo PATH")
    return mailthread.read(path), None


def _misfit(found: Misfit, *, as_json: bool) -> ExitCode:
    place = f"{found.path}:{found.line}" if found.line else found.path
    subject = found.patch.mail.subject
    if as_json:
        told = {"kpw": VERSION, "exit_code": int(ExitCode.CONFLICT), "written": []}
        misfit = {"subject": subject, "kernel": found.kernel, "place": place}
        told |= {"misfit": misfit | {"unknown": list(found.unknown)}}
        click.echo(json.dumps(told, indent=1))
    else:
        click.echo(f"{subject}: does not apply to {found.kernel} at {place}")
        click.echo(f"nothing is written; {_way_out(found)}")
    return ExitCode.CONFLICT


def _way_out(found: Misfit) -> str:
    if found.unknown:
        return (
            f"no kernel here has {found.unknown[0]} as it was made on: bring that one "
            "('kpw fetch REF --repo CLONE') and import again, or name another --base"
        )
    return f"name another --base, or rebase the patches onto {found.kernel} and import them"


def _tell(result: Imported, *, as_json: bool) -> None:
    made_on = result.made_on
    if as_json:
        told = {
            "kpw": VERSION,
            "exit_code": int(ExitCode.GOOD),
            "extension": result.extension,
            "base": str(made_on.tag) if made_on else "",
            "written": list(result.written),
            "there": list(result.there),
            "merged": list(result.merged),
            "new": result.is_new,
        }
        click.echo(json.dumps(told, indent=1))
        return
    if result.is_new:
        click.echo(f"patches/{result.extension}: a new extension")
    for name in result.there:
        click.echo(f"patches/{name}: there already")
    for name in result.written:
        click.echo(f"patches/{name}: written")
    for subject in result.merged:
        click.echo(f"{subject}: merged, since it does not apply there as it stands")
    if made_on:
        click.echo(f"made on {made_on.tag}: {made_on.known}")
    else:
        click.echo(f"nothing new for {result.extension}")
