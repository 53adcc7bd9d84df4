# SPDX-License-Identifier: GPL-2.0-only
"""A git work tree with a branch of patches, for whatever a person does with git there.

It is an ordinary repository that shows the folders the patches touch. It
reads the store's objects and writes its own. The branch is called ``edit``,
what it stands on ``base``.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError
from workbench.gitstore import Store
from workbench.smalltree import escaped, repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BRANCH: Final = "edit"
BASE: Final = "base"
_HEAD: Final = f"refs/heads/{BRANCH}"
#: What git leaves in its folder while it is in the middle of something.
_UNDER_WAY: Final = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick",
    "BISECT_START": "bisect",
}


class BranchTree:
    """The work tree in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Stand before one that is there: :meth:`lay_out` makes it."""
        self.folder = folder
        self._git = Store(folder / ".git")

    @classmethod
    def lay_out(
        cls, store: Store, folder: Path, ends: tuple[str, str], touched: Iterable[str]
    ) -> BranchTree:
        """Make a work tree with a branch between two commits of the store, below and tip.

        The folders of the files ``touched`` are in it, without the folders in them.
        """
        below, tip = ends
        git = repository(store, folder, BRANCH, _shown(touched))
        shallow = store.path / "shallow"
        if shallow.exists():  # kernels out of a clone are one commit deep
            (git.path / "shallow").write_bytes(shallow.read_bytes())
        git.git("update-ref", f"refs/heads/{BASE}", below)
        git.git("update-ref", "HEAD", tip)
        # So that 'git rebase -i' and 'git status' need no further word.
        git.git("config", f"branch.{BRANCH}.remote", ".")
        git.git("config", f"branch.{BRANCH}.merge", f"refs/heads/{BASE}")
        git.git("read-tree", "--reset", "-u", "HEAD")
        return cls(folder)

    @property
    def git_dir(self) -> Path:
        """Where its objects are."""
        return self._git.path

    def tip(self) -> str:
        """Return the last commit of the branch; UsageError when it is gone."""
        found = self._git.resolve(f"{_HEAD}^{{commit}}")
        if found is None:
            raise UsageError(
                f"its branch {BRANCH!r} is gone",
                where=str(self.folder),
                next_step=f"'git branch {BRANCH} COMMIT' has it back, 'git reflog' tells which",
            )
        return found

    def unsettled(self, below: str, opened: str) -> tuple[str, ...]:
        """Say what keeps the branch from being taken over; a line each.

        ``below`` is what it has to stand on, ``opened`` its tip when it was made.
        """
        if under_way := self._under_way():
            end = "reset" if under_way == "bisect" else "--abort"
            return (f"a {under_way} is under way: finish it there, or 'git {under_way} {end}'",)
        return tuple(
            line
            for found in (
                self._elsewhere(opened),
                self._uncommitted(),
                self._moved(below) or self._crooked(below),
            )
            for line in found
        )

    def _under_way(self) -> str:
        found = (word for name, word in _UNDER_WAY.items() if (self._git.path / name).exists())
        return next(found, "")

    def _elsewhere(self, opened: str) -> Iterator[str]:
        """Tell of work that is not on the branch, and would be lost with the tree."""
        code, head, _ = self._git.git_rc("symbolic-ref", "--quiet", "HEAD")
        if code != 0 or head.strip() != _HEAD:
            yield f"another branch than {BRANCH!r} is checked out: 'git switch {BRANCH}' first"
        words = (f"--no-merged={_HEAD}", f"--no-merged={opened}", "refs/heads", "refs/stash")
        for name in self._git.git("for-each-ref", "--format=%(refname:short)", *words).split():
            if name == "stash":
                yield "a stash is left: 'git stash pop' or 'git stash drop' it"
            else:
                yield f"the branch {name!r} has commits {BRANCH!r} has not: take them, or delete it"

    def uncommitted(self) -> tuple[str, ...]:
        """Name the files that were changed, or are new, and are in no commit."""
        words = ("status", "--porcelain", "--no-renames", "--untracked-files=all", "-z")
        return tuple(each[3:] for each in self._git.git(*words).split("\0") if each)

    def _uncommitted(self) -> Iterator[str]:
        found = self.uncommitted()
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield f"{found[0]}{more}: not committed; commit or restore it (remove it if it is new)"

    def _moved(self, below: str) -> tuple[str, ...]:
        """Tell of a branch that does not stand any more on what it was opened on."""
        code, _, _ = self._git.git_rc("merge-base", "--is-ancestor", below, _HEAD)
        if code == 0:
            return ()
        mend = f"'git rebase --onto {below[:12]} FIRST^' with the first of its own mends that"
        return (f"commits below the extension's own were changed; {mend}",)

    def _crooked(self, below: str) -> tuple[str, ...]:
        """Tell of commits that can be no patch: merges, and those that change nothing."""
        words = ("log", "--format=%H%x00%T%x00%P%x00%h (%s)", "--reverse", f"{below}..{_HEAD}")
        lines = [line.split("\0") for line in self._git.git(*words).split("\n") if line]
        trees = {below: self._git.tree_of(below)} | {line[0]: line[1] for line in lines}
        told = []
        for _, tree, parents, name in lines:
            if " " in parents:
                told.append(f"{name} is a merge: make the branch straight with 'git rebase {BASE}'")
            elif trees.get(parents) == tree:
                told.append(f"{name} changes nothing: drop it with 'git rebase -i'")
        return tuple(told or ([] if lines else [f"no commit is left on {BRANCH!r}"]))

    def beside(self, opened: str) -> int:
        """Count the commits there that are not those it was made with."""
        return int(self._git.git("rev-list", "--count", "HEAD", "--branches", f"^{opened}"))


def _shown(touched: Iterable[str]) -> list[str]:
    """Return the sparse-checkout file that shows the files' folders, outer ones first."""
    folders = sorted({PurePosixPath(path).parent.parts for path in touched})
    lines = []
    for parts in folders:
        name = "".join(f"/{escaped(part)}" for part in parts)
        lines += [f"{name}/", f"!{name}/*/"] if parts else ["/*", "!/*/"]
    return lines
