# SPDX-License-Identifier: GPL-2.0-only
"""A store with kernels of a few files, and patches made on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from workbench import applying, process
from workbench.errors import InfraError
from workbench.extensions import load_extensions
from workbench.gitapply import Entry, SmallIndex
from workbench.gitstore import Store
from workbench.paths import Paths
from workbench.rebase import rebase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from workbench.model import Kernel, KernelTag, PatchOutcome, RebasedSeries

MAIL = """\
From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
From: Alice Doe <alice@example.org>
Date: Fri, 13 Feb 2009 23:31:30 +0100
Subject: [PATCH {number}/9] {subject}

Why it is needed.

Signed-off-by: Alice Doe <alice@example.org>
---
{diff}--\x20
2.39.5
"""

#: File name -> content, or (mode, content).
Files = dict[str, bytes | tuple[str, bytes]]


def numbered(word: str, count: int) -> list[bytes]:
    """Return lines no other word's lines are like."""
    return [f"{word} {word} {number:04} {word}\n".encode() for number in range(1, count + 1)]


def text(lines: list[bytes], **changes: bytes) -> bytes:
    """Return the lines, some replaced: ``at20=b"..."`` is line 20 (1-based)."""
    lines = list(lines)
    for key, new in changes.items():
        lines[int(key.removeprefix("at")) - 1] = new
    return b"".join(lines)


def makefile(tag: str) -> bytes:
    major, minor, *rest = tag.removeprefix("v").split(".")
    patch = rest[0] if rest else "0"
    return f"VERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = {patch}\nEXTRAVERSION =\n".encode()


@dataclass
class ToyKernels:
    """Kernels in a store of their own below ``root``, and the patches/ beside them."""

    root: Path
    paths: Paths = field(init=False)
    store: Store = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        """Make the store."""
        self.paths = Paths(self.root / "repo", self.root / "cache", self.root / "state")
        self.paths.patches.mkdir(parents=True)
        self.store = Store.open(self.paths)

    def tree(self, files: Mapping[str, bytes | tuple[str, bytes]]) -> str:
        """Write a tree with these files."""
        self._count += 1
        index = SmallIndex(self.store, self.root / f"index-{self._count}")
        entries: dict[str, Entry | None] = {}
        for path, content in files.items():
            mode, data = content if isinstance(content, tuple) else ("100644", content)
            entries[path] = Entry(mode, self.store.git("hash-object", "-w", "--stdin", input=data))
        index.put(entries)
        return index.write_tree()

    def kernel(self, tag: str, files: Files, parent: str = "") -> Kernel:
        """Import a kernel of these files (its Makefile is added); ``parent`` gives it a history."""
        commit = self.commit({"Makefile": makefile(tag), **files}, tag, parent)
        self.store.update_ref(f"refs/tags/{tag}", commit)
        kernel = self.store.kernel(tag)
        assert kernel is not None
        return kernel

    def commit(self, files: Files, subject: str, parent: str = "") -> str:
        """Commit these files, and nothing else."""
        parents = ("-p", parent) if parent else ()
        return self.store.git("commit-tree", self.tree(files), *parents, "-m", subject)

    def diff(self, before: Files, after: Files) -> str:
        """Return git's diff between two sets of files."""
        words = ("diff-tree", "-p", "-M", "--full-index")
        return self.store.git(*words, self.tree(before), self.tree(after)) + "\n"

    def patch(self, name: str, before: Files, after: Files) -> Path:
        """Write a patch file: ``name`` is ``<extension>/NNNN-subject.patch``."""
        return self.write(name, self.diff(before, after))

    def write(self, name: str, diff: str) -> Path:
        """Write a patch file with this diff."""
        path = self.paths.patches / name
        path.parent.mkdir(parents=True, exist_ok=True)
        number, subject = path.stem.split("-", 1)
        path.write_text(MAIL.format(number=int(number), subject=subject, diff=diff))
        return path

    def describe(self, name: str, text: str = "", base: str = "v5.10.262") -> None:
        """Write an extension.toml."""
        path = self.paths.patches / name / "extension.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'id = "{name.upper()}"\nsummary = "s"\nbase = "{base}"\n{text}')

    def rebase(self, kernel: Kernel, repo: Path | None = None) -> RebasedSeries:
        """Port everything under patches/; a base that is not in the store is a fault."""
        extensions = load_extensions(self.paths)
        return rebase(self.paths, self.store, kernel, extensions, obtain_base=offline, repo=repo)

    def rebase_by_git(self, kernel: Kernel) -> RebasedSeries:
        """Port everything with each patch applied and merged by ``git apply``."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(applying, "plain", lambda *_: False)
            return self.rebase(kernel)

    def outcome(self, kernel: Kernel) -> PatchOutcome:
        """Port the only patch there is."""
        (outcome,) = self.rebase(kernel).outcomes
        return outcome

    def content(self, treeish: str, path: str) -> bytes | None:
        """Return a file's bytes in a result."""
        return self.store.read_file(treeish, path)

    def work_tree(self, kernel: Kernel) -> WorkTree:
        """Check a kernel out beside the store, to run git am in it."""
        self._count += 1
        folder = self.root / f"work-{self._count}"
        process.run(["git", "clone", "-q", "-s", "-n", self.store.path, folder])
        tree = WorkTree(folder, self.store.environment())
        tree.git("checkout", "-q", "--detach", kernel.commit)
        return tree


@dataclass
class WorkTree:
    """What we are measured against: git itself, in a work tree."""

    folder: Path
    env: dict[str, str]

    def git(self, *args: str | Path, check: bool = True) -> str:
        done = process.run(["git", "-C", self.folder, *args], env=self.env, check=check)
        return done.stdout.strip()

    def am(self, patch: Path) -> bool:
        """Apply a patch with ``git am -3``; take it back when it conflicts."""
        argv: list[str | Path] = ["git", "-C", self.folder, "am", "-q", "-3", patch]
        done = process.run(argv, env=self.env, check=False)
        if done.returncode == 0:
            return True
        # Shown by pytest beside an assertion that it should have been taken.
        sys.stdout.write(f"git am {patch.name}:\n{done.stdout}{done.stderr}")
        self.git("am", "--abort")
        return False

    def restore(self, name: str, paths: Sequence[str]) -> None:
        """Commit files as another kernel of the store has them."""
        self.git("checkout", "-q", name, "--", *paths)
        self.git("commit", "-q", "-m", f"restore from {name}")

    @property
    def tree(self) -> str:
        """The id of the tree that came out."""
        return self.git("rev-parse", "HEAD^{tree}")


def offline(tag: KernelTag) -> Kernel:
    """Stand for the way a base is obtained that is not in the store."""
    raise InfraError(f"{tag} is not in the toy store")
