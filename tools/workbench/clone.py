# SPDX-License-Identifier: GPL-2.0-only
"""A kernel out of the user's own git repository.

What is asked for is copied into the store, one commit deep: with alternates
the store would break when the user's repository moves or is pruned, and a
whole history costs gigabytes. The user's repository is only read.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench import process
from workbench.errors import InfraError, UsageError
from workbench.gitstore import is_disk_full
from workbench.release import makefile_tag

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.model import Kernel
    from workbench.progress import Progress

# The user named the repository himself, so it may belong to somebody else; and
# a commit may be asked for that no branch points at.
_TRUST = ("-c", "safe.directory=*")
_SERVE = "git -c safe.directory=* -c uploadpack.allowAnySHA1InWant=true upload-pack"
_SHORT = 12
_LONGEST_NAME = 60


def take(store: Store, repo: Path, name: str, progress: Progress) -> Kernel | None:
    """Bring a tree-ish of a repository into the store; None when it is not there.

    The kernel's name is the tree-ish made safe for a file name, and the short
    id of what it stands for now, since a branch moves. UsageError when this is
    no repository or the tree is no kernel.
    """
    code, where, _ = ask(store, repo, "rev-parse", "--path-format=absolute", "--git-common-dir")
    if code != 0:
        raise UsageError("is no git repository", where=str(repo), next_step="give --repo a clone")
    git_dir = where.strip()
    commit = _resolve(store, repo, f"{name}^{{commit}}")
    tree = _resolve(store, repo, f"{name}^{{tree}}")
    if tree is None:
        return None
    kernel = _name(name, commit or tree)
    if not store.has(kernel):
        _check(store, repo, name, tree)
        progress.step(f"taking {name} out of {repo}")
        with store.writing(progress):
            _copy(store, git_dir, (commit, tree), kernel)
    found = store.kernel(kernel)
    return found and replace(found, origin=f"{repo}, {name}")


def nearest(store: Store, repo: Path, name: str) -> str:
    """Return up to three tags of the repository that look like a name."""
    _, tags, _ = ask(store, repo, "tag", "--list")
    return ", ".join(difflib.get_close_matches(name, tags.split(), 3)) or "none like it"


def argv(repo: Path, *args: str) -> tuple[str, ...]:
    """Return the command line of a git command that reads the user's repository."""
    return ("git", "-C", str(repo), *_TRUST, *args)


def commit(store: Store, repo: Path, name: str) -> str | None:
    """Return the commit a name stands for in the repository, None when it has none."""
    return _resolve(store, repo, f"{name}^{{commit}}")


def ask(store: Store, repo: Path, *args: str) -> tuple[int, str, str]:
    """Run git in the user's repository: (code, stdout, stderr)."""
    done = process.run(argv(repo, *args), env=store.environment(), check=False)
    return done.returncode, done.stdout, done.stderr


def _resolve(store: Store, repo: Path, name: str) -> str | None:
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", name)
    code, out, _ = ask(store, repo, *words)
    return out.split()[-1] if code == 0 and out.strip() else None


def _name(name: str, found: str) -> str:
    """Return a name that is good for a ref, a file, and a make variable."""
    safe = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", name).strip("-.")[:_LONGEST_NAME]
    if not safe or found.startswith(safe):
        return found[:_SHORT]
    return f"{safe}+{found[:_SHORT]}"


def _check(store: Store, repo: Path, name: str, tree: str) -> None:
    """Refuse what is no kernel before gigabytes of it are copied."""
    code, makefile, _ = ask(store, repo, "cat-file", "blob", f"{tree}:Makefile")
    if code != 0 or makefile_tag(makefile.encode()) is None:
        raise UsageError(
            "is no kernel source: no Makefile at its top that names a release",
            where=f"{name} in {repo}",
            next_step="name a tag, branch or commit of a kernel",
        )


def _copy(store: Store, git_dir: str, what: tuple[str | None, str], kernel: str) -> None:
    commit, tree = what
    ref = f"refs/kpw/user/{kernel}"
    if commit is None:
        _copy_tree(store, git_dir, tree)
        store.git("update-ref", ref, store.git("commit-tree", tree, "-m", f"Tree {tree}"))
        return
    fetch = store.argv(
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--depth=1",
        f"--upload-pack={_SERVE}",
        git_dir,
        f"+{commit}:{ref}",
    )
    done = process.run(fetch, env=store.environment(), check=False)
    if done.returncode != 0:
        raise _failed(git_dir, done.stderr)


def _copy_tree(store: Store, git_dir: str, tree: str) -> None:
    """Copy a tree that no commit is asked for with: fetch only serves commits and tags."""
    pack = ("git", "--git-dir", git_dir, *_TRUST, "pack-objects", "--revs", "--stdout", "-q")
    with process.spawned(pack, env=store.environment(), stdin=process.PIPE) as packer:
        if packer.stdin is None:  # pragma: no cover  # asked for above
            raise AssertionError("no pipe to git pack-objects")
        with contextlib.suppress(BrokenPipeError):  # its exit code tells more
            packer.stdin.write(f"{tree}\n".encode())
            packer.stdin.close()
        index = store.argv("index-pack", "--stdin")
        with process.spawned(index, env=store.environment(), stdin=packer.stdout) as indexer:
            _, said = indexer.communicate()
        if packer.wait() != 0 or indexer.returncode != 0:
            raise _failed(git_dir, said.decode(errors="replace"))


def _failed(git_dir: str, said: str) -> InfraError:
    if is_disk_full(said):
        return InfraError("the disk is full", where="git fetch", next_step="free about 1 GB")
    lines = [line for line in said.splitlines() if line.strip()] or ["git gave no reason"]
    return InfraError(
        f"cannot be copied from: {lines[-1].strip()}",
        where=git_dir,
        next_step="see if 'git fsck' finds it whole, or name another clone",
    )
