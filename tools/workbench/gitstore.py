# SPDX-License-Identifier: GPL-2.0-only
"""The bare git store every kernel and every rebased series lies in.

The only module that knows GitPython. Imported kernels are ``refs/tags/<tag>``,
trees of the user's own repository ``refs/kpw/user/<name>``.

Two ways lead to git. Short commands go through GitPython (1.7 ms a call, and
one persistent ``cat-file --batch`` for reading objects). What runs for seconds
(fast-import, fetch) is started by :mod:`workbench.process` with
:meth:`Store.argv` and :meth:`Store.environment`, and so dies with us.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import filelock

from workbench import gitsettings, looseobject
from workbench.errors import InfraError
from workbench.model import Kernel
from workbench.progress import Silent
from workbench.release import makefile_tag, trailers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workbench.paths import Paths
    from workbench.progress import Progress

_RELEASE = re.compile(r"v\d+\.\d+(\.\d+)?(-rc\d+)?")


#: What to do when git finds fault with the store itself.
MEND_STORE: Final = "run it again; if that does not help move the store away, it is made anew"


class _Object(NamedTuple):
    """An object of the store; ``kind`` is git's word for it."""

    oid: str
    kind: bytes
    data: bytes


class Store:
    """The store; make one with :meth:`open`. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Stand before an existing store: use :meth:`open`."""
        self.path = path
        self._lock = filelock.FileLock(path.with_suffix(".lock"), thread_local=False)
        self._writer = threading.RLock()  # the file lock does not tell threads apart
        self._guard = threading.Lock()
        self._git: Any = None

    @classmethod
    def open(cls, paths: Paths) -> Store:
        """Open the store, and create it on first use; InfraError when it cannot be."""
        gitsettings.forget_outer()
        store = cls(paths.store)
        if not (paths.store / "HEAD").exists():
            with _disk(paths.store):
                paths.cache.mkdir(parents=True, exist_ok=True)
                with store._lock:
                    store._create()
        return store

    def _create(self) -> None:
        """Make the repository under another name and rename it: all of it or nothing."""
        if (self.path / "HEAD").exists():
            return
        for stale in self.path.parent.glob(f"{self.path.name}.new-*"):
            shutil.rmtree(stale)
        new = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.new-", dir=self.path.parent))
        new.chmod(0o755)
        young = Store(new)
        young.git("init", "--quiet", "--bare", "--template=", "--initial-branch=none")
        for key, value in gitsettings.CONFIGURATION.items():
            young.git("config", key, value)
        new.rename(self.path)

    # How git is run

    def environment(self) -> dict[str, str]:
        """Return the whole environment git is run with: the user's, without any GIT_* of theirs."""
        return {
            k: v for k, v in os.environ.items() if not k.startswith("GIT_")
        } | gitsettings.fixed()

    def argv(self, *args: str | Path) -> tuple[str, ...]:
        """Return the command line of a git command on this store."""
        return ("git", "--git-dir", str(self.path), *map(str, args))

    def git(
        self,
        *args: str | Path,
        input: bytes | None = None,  # noqa: A002  # git's own word, and the contract's
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a short git command; its stdout without the last newline, or InfraError."""
        code, out, err = self.git_rc(*args, input=input, env=env)
        if code != 0:
            raise _failed(args, code, err)
        return out.removesuffix("\n")

    def git_rc(
        self,
        *args: str | Path,
        input: bytes | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Run a short git command whose exit code is an answer: (code, stdout, stderr)."""
        code, out, err = self.git_bytes(*args, input=input, env=env)
        return code, out.decode(errors="replace"), err

    def git_bytes(
        self,
        *args: str | Path,
        input: bytes | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, str]:
        """Run a short git command for its bytes: (code, stdout, stderr)."""
        with contextlib.ExitStack() as stack:
            stdin = None
            if input is not None:
                # A memory file, since a pipe would need a thread to feed it.
                stdin = stack.enter_context(os.fdopen(os.memfd_create("git-input"), "w+b"))
                stdin.write(input)
                stdin.seek(0)
            git = _git(self.path.parent)
            child = git.execute(
                self.argv(*args),
                istream=stdin,
                as_process=True,
                env=gitsettings.fixed() | dict(env or {}),
            )
            try:
                out, err = child.communicate()
            except BaseException:
                child.proc.kill()
                child.proc.wait()
                raise
        return child.proc.returncode, out, err.decode(errors="replace").strip()

    # What is in it

    def resolve(self, name: str) -> str | None:
        """Return the full id of the object a name stands for, or None."""
        code, out, _ = self.git_rc("rev-parse", "--verify", "--quiet", "--end-of-options", name)
        return out.strip() if code == 0 else None

    def cat_file(self, name: str) -> bytes:
        """Return the bytes of a blob (or raw commit, tree, tag) by id or ``treeish:path``.

        KeyError when there is no such object. About 0.1 ms a call.
        """
        return self._ask(name).data

    def read_file(self, treeish: str, path: str) -> bytes | None:
        """Return the bytes of a file in a tree, None when there is no such file."""
        try:
            found = self._ask(f"{treeish}:{path}")
        except KeyError:
            return None
        return found.data if found.kind == b"blob" else None

    def _ask(self, name: str) -> _Object:
        if "\n" in name:
            raise KeyError(name)
        with self._guard:
            if self._git is None:
                self._git = _git(self.path)
                self._git.update_environment(GIT_DIR=str(self.path), **gitsettings.fixed())
            try:
                oid, kind, _, data = self._git.get_object_data(name)
            except ValueError:
                raise KeyError(name) from None
            except BaseException:
                # Half an answer may be in the pipe: the next question needs a fresh one.
                self._git.clear_cache()
                self._git = None
                raise
        return _Object(oid.decode(), kind, data)

    def must_read(self, oid: str) -> bytes:
        """Return the bytes of an object that a tree of the store names; InfraError without it."""
        try:
            return self.cat_file(oid)
        except KeyError as error:
            raise InfraError(
                f"object {oid} is missing",
                where=str(self.path),
                next_step=MEND_STORE,
            ) from error

    def require(self, oid: str) -> None:
        """Raise InfraError unless the store has an object of this id."""
        if not looseobject.place(self.path, oid).exists():
            self.must_read(oid)

    def has(self, name: str) -> bool:
        """Tell whether a kernel of this name is complete in the store."""
        return self._ref(name) is not None

    def _ref(self, name: str) -> str | None:
        # A release needs no start of git; another name may mean something to cat-file.
        if _RELEASE.fullmatch(name):
            with contextlib.suppress(KeyError):
                self._ask(f"refs/tags/{name}")
                return f"refs/tags/{name}"
        for ref in (f"refs/tags/{name}", f"refs/kpw/user/{name}"):
            if self.git_rc("show-ref", "--verify", "--quiet", ref)[0] == 0:
                return ref
        return None

    def tags(self) -> dict[str, str]:
        """Return the imported tags and their commits."""
        lines = self.git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/tags")
        return dict(line.split(" ") for line in lines.splitlines())

    def names(self) -> tuple[str, ...]:
        """Return the names of all kernels: imported tags, and the user's own."""
        refs = self.git("for-each-ref", "--format=%(refname)", "refs/tags", "refs/kpw/user")
        prefixes = ("refs/tags/", "refs/kpw/user/")
        lines = refs.splitlines()
        return tuple(line.removeprefix(prefixes[0]).removeprefix(prefixes[1]) for line in lines)

    def kernel(self, name: str) -> Kernel | None:
        """Return an imported kernel by its name, None when it is not in the store."""
        ref = self._ref(name)
        if ref is None:
            return None
        commit = self._ask(f"{ref}^{{commit}}")
        tree = self.tree_of(commit.oid)
        makefile = self.read_file(tree, "Makefile")
        tag = None if makefile is None else makefile_tag(makefile)
        if tag is None:
            raise InfraError(
                "its Makefile names no kernel release",
                where=f"{self.path} {name}",
                next_step="remove the ref with 'git update-ref -d', and fetch it again",
            )
        origin = trailers(commit.data).get("Origin", "the user's own repository")
        return Kernel(name, tag, commit.oid, tree, origin)

    def tree_of(self, commit: str) -> str:
        """Return the id of a commit's tree."""
        return self._ask(f"{commit}^{{tree}}").oid

    def bytes_of(self, commit: str) -> int:
        """Return what a commit's objects take on the disk, those it shares with others too."""
        return int(self.git("rev-list", "--disk-usage", "--objects", "--no-walk", commit))

    # Writing

    @contextlib.contextmanager
    def writing(self, progress: Progress | None = None) -> Iterator[None]:
        """Hold the store for writing; waits for another run, and clears what a killed one left.

        Whoever holds it is the only writer, so every lock file and half-written
        pack found inside belongs to a run that is gone.
        """
        with self._writer:
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                (progress or Silent()).note("waiting for another run that writes to the store")
                self._lock.acquire()
            try:
                self._clear_leftovers()
                yield
            finally:
                self._clear_leftovers()
                self._lock.release()

    def add(self, kind: str, data: bytes) -> str:
        """Write an object (``blob``, ``tree``, ``commit``) without starting git; return its id."""
        return looseobject.write(self.path, kind, data)

    def update_ref(self, ref: str, commit: str) -> None:
        """Point a ref at a commit, under the store's lock."""
        with self.writing():
            self.git("update-ref", ref, commit)

    def _clear_leftovers(self) -> None:
        if self._lock.lock_counter > 1:  # an inner writing(): the outer one's files are alive
            return
        stale = [self.path / name for name in ("packed-refs.lock", "shallow.lock", "config.lock")]
        stale += (self.path / "refs").rglob("*.lock")
        stale += (self.path / "objects" / "pack").glob("tmp_*")
        stale += self.path.glob("fast_import_crash_*")
        for file in stale:
            file.unlink(missing_ok=True)


def is_disk_full(said: str) -> bool:
    """Tell whether what git wrote to stderr means a full disk; it has two ways to say so."""
    return "No space left on device" in said or "Out of diskspace" in said


def _git(directory: Path) -> Any:
    """Return GitPython's runner; imported late, since the import itself runs git."""
    try:
        from git.cmd import Git
    except ImportError as error:  # GitPython raises it when there is no git
        raise InfraError(
            "git is not installed", next_step="run 'tools/kpw doctor' to see how to mend it"
        ) from error
    return Git(str(directory))


def _failed(args: tuple[str | Path, ...], code: int, err: str) -> InfraError:
    words = " ".join(map(str, args[:3]))
    line = err.splitlines()[-1] if err else f"no output, exit code {code}"
    if is_disk_full(err):
        return InfraError("the disk is full", where=f"git {words}", next_step="free some space")
    return InfraError(line, where=f"git {words}", next_step=MEND_STORE)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InfraError(
            f"cannot be created: {error.strerror}",
            where=str(path),
            next_step="check the disk, or set KPW_CACHE to another directory",
        ) from error
