# SPDX-License-Identifier: GPL-2.0-only
"""A range of commits of the user's own repository, as a series to be imported."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import clone, mailthread, process
from workbench.errors import UsageError
from workbench.madeon import MadeOn
from workbench.model import KernelTag
from workbench.post import Post

if TYPE_CHECKING:
    from workbench.gitstore import Store
    from workbench.mailthread import Thread


def read(store: Store, repo: Path, span: str) -> tuple[Thread, MadeOn | None]:
    """Return the commits of ``A..B`` as patches, and the kernel they stand on if A is its tag.

    UsageError when the range is empty, not straight, or not there.
    """
    since, dots, until = span.partition("..")
    if not (since and dots and until) or until.startswith("."):
        raise UsageError(f"{span!r} is no range", next_step="write it as A..B")
    ends = [clone.commit(store, repo, name) for name in (since, until)]
    for name, found in zip((since, until), ends, strict=True):
        if found is None:
            raise UsageError(
                f"has no {name!r}",
                where=str(repo),
                next_step=f"its nearest tags: {clone.nearest(store, repo, name)}",
            )
    commits = f"{ends[0]}..{ends[1]}"
    _, merges, _ = clone.ask(store, repo, "rev-list", "--merges", commits)
    if merges.split():
        raise UsageError(
            f"{merges.split()[0][:12]} in {span} is a merge", where=str(repo), next_step=_STRAIGHT
        )
    posts = _posts(store, repo, commits, Path(f"{repo} {span}"))
    if not posts:
        raise UsageError(f"{span} holds no commit", where=str(repo))
    return mailthread.Thread(tuple(posts)), _standing_on(store, repo, f"{ends[0]}", since)


_STRAIGHT = "make the range straight with 'git rebase' first"


def _posts(store: Store, repo: Path, commits: str, named: Path) -> list[Post]:
    with tempfile.TemporaryDirectory(prefix="kpw-import-") as name:
        shielded, folder = Path(name) / "git", Path(name) / "patches"
        _shield(store, repo, shielded)
        words = ("format-patch", "--quiet", "--full-index", "--no-signature", "--no-thread")
        argv = ("git", "--git-dir", shielded, *words, "--output-directory", folder, commits)
        done = process.run(argv, env=store.environment(), check=False)
        if done.returncode != 0:
            raise UsageError(done.stderr.strip() or "git format-patch failed", where=str(repo))
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return [Post.whole(named / path.name, path.read_bytes()) for path in files]


def _shield(store: Store, repo: Path, git_dir: Path) -> None:
    """Make a repository of nothing but the user's objects.

    The settings of his own (diff.noprefix, format.signOff, ...) change what
    git writes, and there is no end to them.
    """
    argv = ("git", "init", "--quiet", "--bare", "--template=", git_dir)
    process.run(argv, env=store.environment())
    where = ("rev-parse", "--path-format=absolute", "--git-path")
    objects, shallow = (
        clone.ask(store, repo, *where, name)[1].strip() for name in ("objects", "shallow")
    )
    (git_dir / "objects/info").mkdir(exist_ok=True)
    (git_dir / "objects/info/alternates").write_text(f"{objects}\n")
    if Path(shallow).is_file():
        shutil.copyfile(shallow, git_dir / "shallow")


def _standing_on(store: Store, repo: Path, commit: str, name: str) -> MadeOn | None:
    """Tell which release a commit is; None when no tag of the repository says so."""
    _, said, _ = clone.ask(store, repo, "tag", "--points-at", commit)
    for tag in said.split():
        with contextlib.suppress(UsageError):
            return MadeOn(KernelTag.parse(tag), f"{name} is that tag in {repo}")
    return None
