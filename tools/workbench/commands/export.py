# SPDX-License-Identifier: GPL-2.0-only
"""``kpw export``: the series for one kernel, as mails for git am or as a quilt series."""

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
    from workbench.export import Exporter, Mailing
    from workbench.model import RebasedSeries

# Raised when a name of the JSON changes its meaning; a new name does not raise it.
VERSION: Final = 1
_FOLDER = click.Path(path_type=Path)


@click.command("export", short_help="Write the series for a kernel: mails for git am, or quilt.")
@options.tag_argument
@options.only_option
@options.without_option
@options.repo_option
@click.option("--format-patch", "mails", metavar="DIR", type=_FOLDER, help="Mails, with a letter.")
@click.option("--quilt", metavar="DIR", type=_FOLDER, help="Patches, and the file 'series'.")
@click.option(
    "-v",
    "--reroll-count",
    "version",
    metavar="N",
    type=click.IntRange(1, 9999),
    default=1,
    help="The version of the mails; 2 and later say [PATCH vN ...].",
)
@click.option(
    "--since",
    metavar="REF|DIR|TAG",
    shell_complete=options.tag_or_folder,
    help="Range-diff to this: a commit of the store, an exported folder, or the series on a"
    " kernel. None: the last version below N that was exported.",
)
@click.option(
    "--replace", is_flag=True, help="Write other patches as a version that was exported already."
)
@click.option("--title", metavar="TEXT", default="", help="The letter's subject.")
@click.option(
    "--addresses/--no-addresses",
    default=True,
    help="To: and Cc: by the kernel's own get_maintainer.pl (the default), or none.",
)
@options.json_flag
def command(  # noqa: PLR0913  # click gives each option its own
    *,
    tag: str,
    only: tuple[str, ...],
    without: tuple[str, ...],
    repo: Path | None,
    mails: Path | None,
    quilt: Path | None,
    version: int,
    since: str | None,
    replace: bool,
    title: str,
    addresses: bool,
    as_json: bool,
) -> ExitCode:
    """Port the series to TAG and write it to a folder.

    With --format-patch the folder is for 'git am --empty=drop DIR/*.patch' on
    a plain checkout of TAG, and for 'git send-email DIR/*.patch'. Nothing is
    written when a patch conflicts (exit code 3), or over what kpw did not
    write. A version is kept in $KPW_STATE: the next one is compared with it,
    and takes over what you wrote into its letter.

    b4 sends from a branch, in a clone of your own:

    \b
    git switch -c TOPIC TAG && git am --empty=drop DIR/*.patch
    b4 prep --enroll TAG
    GIT_EDITOR="cp DIR/b4-cover.txt" b4 prep --edit-cover
    b4 prep --force-revision N        for version 2 and later
    b4 send --dry-run, then b4 send
    """  # noqa: D301 - \b is click's word for a paragraph that is not filled
    from workbench import exportfolder, extensions, progress, source
    from workbench.export import Exporter, Mailing
    from workbench.gitstore import Store

    folder = _folder(mails, quilt)
    paths = Paths.default()
    chosen = extensions.select(extensions.load_extensions(paths), only, without)
    wish = Mailing(version, since or "", title, addressed=addresses)
    with progress.shown() as display:
        kernel = source.obtain(paths, tag, repo=repo, progress=display)
        exporter = Exporter(paths, Store.open(paths), chosen, display, repo)
        ported = exporter.rebased(kernel)
        if not ported.applies:
            return _refused(ported, as_json=as_json)
        _refuse_empty(ported)
        if mails is None:
            files = exporter.quilt(ported)
        else:
            files = _mailed(exporter, ported, wish, mails, replace=replace)
        written = exportfolder.write(folder, files)
    _tell(ported, folder, tuple(files), written=written, as_json=as_json)
    return ExitCode.GOOD


def _folder(mails: Path | None, quilt: Path | None) -> Path:
    """Return where to write; UsageError unless one form is named, and its folder may be taken."""
    from workbench import exportfolder

    folder = mails or quilt
    if folder is None or (mails and quilt):
        raise UsageError("say either --format-patch DIR or --quilt DIR")
    exportfolder.refuse_foreign(folder)
    return folder


def _refuse_empty(ported: RebasedSeries) -> None:
    if ported.commit == ported.kernel.commit:
        raise UsageError(f"nothing to write: no patch is needed on {ported.kernel.name}")


def _mailed(
    exporter: Exporter, ported: RebasedSeries, wish: Mailing, folder: Path, *, replace: bool
) -> dict[str, bytes]:
    """Make the mails, and keep them as they were made: the next version needs them.

    UsageError when this version has other patches already, unless ``replace`` allows that.
    """
    from workbench import exported

    if not replace:
        exported.refuse_other(exporter.paths, ported, wish.version)
    made = exporter.mails(ported, wish)
    files = exporter.worded(ported, wish.version, made)
    exported.keep(exporter.paths, ported, wish.version, made, folder)
    return files


def _refused(ported: RebasedSeries, *, as_json: bool) -> ExitCode:
    from workbench import report_series

    code = ExitCode.CONFLICT
    if as_json:
        click.echo(json.dumps(report_series.as_data([ported], int(code)), indent=1))
    else:
        report_series.show([ported], sys.stdout)
        click.echo("nothing is written")
    return code


def _tell(
    ported: RebasedSeries, folder: Path, names: tuple[str, ...], *, written: bool, as_json: bool
) -> None:
    if as_json:
        told = {
            "kpw": VERSION,
            "exit_code": int(ExitCode.GOOD),
            "kernel": ported.kernel.name,
            "base": ported.kernel.commit,
            "commit": ported.commit,
            "tree": ported.tree,
            "folder": str(folder),
            "files": list(names),
            "written": written,
        }
        click.echo(json.dumps(told, indent=1))
        return
    count = sum(1 for outcome in ported.outcomes if outcome.commit)
    state = "" if written else " (nothing has changed)"
    patches = "patch" if count == 1 else "patches"
    click.echo(f"{folder}: {count} {patches} for {ported.kernel.name}{state}")
    click.echo(f"tree {ported.tree}")
