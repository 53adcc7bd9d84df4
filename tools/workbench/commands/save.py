# SPDX-License-Identifier: GPL-2.0-only
"""``kpw save``: write patches back as they came out of a rebase."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workbench.saving import Saved

# Raised when a name of the JSON changes its meaning; a new name does not raise it.
VERSION: Final = 1


@click.command("save", short_help="Write the patches that changed back, for a kernel.")
@options.tag_argument
@options.extensions_argument
@options.repo_option
@click.option("--merged", is_flag=True, help="Also what a 3-way merge changed by itself.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@options.json_flag
def command(
    *,
    tag: str,
    names: tuple[str, ...],
    repo: Path | None,
    merged: bool,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """Write the patches of each EXT (none: all) that changed on kernel TAG into patches/.

    A patch goes into the folder since-… that speaks for TAG, and its table
    into extension.toml. Those whose resolution was remembered are written;
    what a 3-way merge carries by itself only with --merged. When nothing
    changed, nothing is touched. Exit code 3 when a patch conflicts: its
    extension is then left as it is.
    """
    from workbench import extensions, journal, progress, saving, source, tested
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
            bench = saving.Bench(paths, Store.open(paths), display, merged, dry_run, repo)
            # Read anew: what was saved for one is what the next one stands on.
            loaded = extensions.load_extensions(paths)
            saved = saving.save(bench, kernel, loaded, extensions.find(loaded, name))
        # Told at once: a fault at the next one does not take this one back.
        if not as_json:
            _show(saved, kernel.name, tested.proofs(paths), dry_run=dry_run)
        done.append(saved)
    code = ExitCode.CONFLICT if any(each.refused for each in done) else ExitCode.GOOD
    if as_json:
        told = {"kpw": VERSION, "exit_code": int(code), "kernel": kernel.name, "dry_run": dry_run}
        told["extensions"] = [_data(each, tested.proofs(paths), paths) for each in done]
        click.echo(json.dumps(told, indent=1))
    elif not any(each.files or each.refused for each in done):
        click.echo(f"{kernel.name}: nothing changed")
    return code


def _unconfirmed(saved: Saved, proven: Mapping[tuple[str, str], str]) -> set[Path]:
    """Return the files whose resolution no kept run has proven."""
    return {
        file
        for file, commits in saved.resolved
        if all((saved.extension, commit) not in proven for commit in commits)
    }


def _data(saved: Saved, proven: Mapping[tuple[str, str], str], paths: Paths) -> dict[str, Any]:
    """Return what became of an extension; files by their names below patches/."""

    def names(files: Iterable[Path]) -> list[str]:
        return [str(file.relative_to(paths.patches)) for file in files]

    return {
        "extension": saved.extension,
        "written": names(saved.files),
        "kept": names(saved.kept),
        "resolutions": names(saved.resolutions),
        "unconfirmed": names(sorted(_unconfirmed(saved, proven))),
        "refused": [{"patch": each.patch, "state": str(each.state)} for each in saved.refused],
    }


def _show(
    saved: Saved, kernel: str, proven: Mapping[tuple[str, str], str], *, dry_run: bool
) -> None:
    wrote = f"{kernel}: {'would write' if dry_run else 'wrote'}"
    unconfirmed = _unconfirmed(saved, proven)
    for file in saved.files:
        note = ", whose resolution no selftest confirmed yet" if file in unconfirmed else ""
        click.echo(f"{wrote} {_short(file)}{note}")
    for file in saved.kept:
        click.echo(f"{wrote} {_short(file)}, so that this kernel keeps what it has")
    for file in saved.resolutions:
        click.echo(f"{wrote} {_short(file)}, as was resolved beside other extensions")
    if unconfirmed and not dry_run:
        click.echo(f"  next: kpw prove {kernel} --only {saved.extension}")
    if saved.files and not dry_run:
        click.echo(f"  next: say why in patches/{saved.extension}/extension.toml; kpw rebase --all")
    for outcome in saved.refused:
        name = f"{outcome.extension}/{outcome.patch}"
        click.echo(
            f"{kernel}: {saved.extension} is not saved: {name}: {outcome.state}; "
            f"run 'kpw resolve {kernel} {name}' first"
        )


def _short(file: Path) -> str:
    return os.path.relpath(file)
