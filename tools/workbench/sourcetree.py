# SPDX-License-Identifier: GPL-2.0-only
"""The source tree of one kernel: made once, switched in place between series.

``trees/<kernel>/src`` has an index of its own over the store's objects, and
holds the tree without the folders no configuration compiles (see
:class:`workbench.recipe.LeaveOut`). Switching rewrites what differs and leaves
every other file's time alone, so make compiles only what the patches touch.

Why a file that is not there cannot make another kernel, only a build that
fails and names it:

- Patches never meet this tree. They are applied in the store, to whole trees.
- All that decides what is built is there: every Kconfig file and Makefile is
  kept, in the folders that go as well, and what both run is in ``scripts``.
- What make goes on to build it names, and an object whose source is missing
  has no rule: make stops.
- A header could be found elsewhere instead only where another search path has
  one of the same name. Those every object has are ``include`` and the
  architecture's own, which are whole; what a Makefile adds to them is for the
  headers of one driver. Otherwise the compiler stops.
- What is only looked for, and done without when it is not there, lies in
  folders that are whole: ``$(wildcard)`` and ``test -f`` in the Makefiles and
  ``__has_include`` ask for the architecture's headers and postlink step, keys
  and policies in ``certs``, ``net/wireless`` and ``security``, tests in ``lib``,
  and the compiler's abilities in ``tools/build``. From v7.1 on kernel-doc, which
  ``make W=1`` runs on each source, is in ``tools/docs``. So ``arch/<its own>``,
  ``include``, ``scripts``, ``lib``, ``net``, ``security`` and what objtool is
  made of below ``tools`` must not be left out.

Two tests marked real hold it to that: with the whole tree, the configuration
is the same to the byte, and so is the kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import filelock

from workbench import atomic, process
from workbench.errors import InfraError
from workbench.gitstore import MEND_STORE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.model import Kernel
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.recipe import LeaveOut

_FOLDER_MODE: Final = b"40000"
_FRESH_NEEDS: Final = 1 << 30
_SWITCH_NEEDS: Final = 1 << 28


@dataclass(frozen=True)
class Room:
    """The working directory of one kernel: source, outputs, and their lock."""

    root: Path

    @property
    def src(self) -> Path:
        """The source tree; nothing but git writes here."""
        return self.root / "src"

    @property
    def index(self) -> Path:
        """Git's index of ``src``."""
        return self.root / "index"

    @property
    def state(self) -> Path:
        """The id of the tree that ``src`` holds; absent while it is being changed."""
        return self.root / "state"

    def out(self, arch: str, flavour: str) -> Path:
        """Return the output directory, beside ``src``: ccache sees the same relative paths."""
        return self.root / f"out-{arch}-{flavour}"

    def log(self, arch: str, flavour: str) -> Path:
        """Return the log of the last build there."""
        return self.root / f"log-{arch}-{flavour}"


@contextlib.contextmanager
def held(paths: Paths, kernel: Kernel, progress: Progress) -> Iterator[Room]:
    """Hold a kernel's working directory; waits for another run that does."""
    room = Room(paths.trees / kernel.name)
    room.root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(room.root / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.note(f"waiting for another run that builds {kernel.name}")
        lock.acquire()
    try:
        yield room
    finally:
        lock.release()


def switch(store: Store, room: Room, tree: str, leave_out: LeaveOut) -> str:
    """Make ``src`` hold a tree of the store, whatever it held; return the pruned tree's id.

    A file somebody changed there is put right; a run that was killed here
    before is repaired. InfraError when the disk is full.
    """
    pruned = _Pruner(store, room, leave_out).prune(tree)
    is_whole = _read_state(room) is not None
    _require_space(room, _SWITCH_NEEDS if is_whole else _FRESH_NEEDS)
    if not is_whole:
        # A dead run's lock: ours is held, so nobody else can be writing.
        room.index.with_name("index.lock").unlink(missing_ok=True)
    room.src.mkdir(exist_ok=True)
    if _read_state(room) != pruned:
        room.state.unlink(missing_ok=True)
    _reset(store, room, pruned)
    if not is_whole:
        _git(store, room, "clean", "-ffdxq")
    if not room.state.exists():
        atomic.write(room.state, f"{pruned}\n".encode())
    return pruned


def _reset(store: Store, room: Room, tree: str) -> None:
    try:
        _git(store, room, "read-tree", "--reset", "-u", tree)
    except InfraError:
        if not room.index.exists() or shutil.disk_usage(room.root).free < _SWITCH_NEEDS:
            raise
        # An index that cannot be read is only a cache of what lies in src.
        room.state.unlink(missing_ok=True)
        room.index.unlink()
        _git(store, room, "read-tree", "--reset", "-u", tree)


def _git(store: Store, room: Room, *args: str) -> None:
    env = store.environment() | {"GIT_INDEX_FILE": str(room.index)}
    done = process.run(
        store.argv("-c", "core.bare=false", "--work-tree", room.src, *args),
        cwd=room.src,
        env=env,
        check=False,
    )
    if done.returncode == 0:
        return
    if "No space left on device" in done.stderr:
        raise InfraError("the disk is full", where=str(room.src), next_step="free some space")
    raise InfraError(
        done.last_line(),
        where=f"git {args[0]} in {room.src}",
        next_step="remove that folder and run it again: it is made anew",
    )


def _read_state(room: Room) -> str | None:
    try:
        return room.state.read_text(encoding="ascii").strip() if room.index.exists() else None
    except FileNotFoundError:
        return None


def _require_space(room: Room, needed: int) -> None:
    free = shutil.disk_usage(room.root).free
    if free < needed:
        raise InfraError(
            f"only {free >> 20} MiB are free, a build needs {needed >> 20}",
            where=str(room.root),
            next_step="free some space, or set KPW_CACHE to another disk",
        )


class _Pruner:
    """Rewrites a tree object without the folders left out; a few ms once it knows them.

    What a left-out folder becomes depends on nothing but its own id, and a
    series touches few of them, so that is remembered beside the tree.
    """

    def __init__(self, store: Store, room: Room, rules: LeaveOut) -> None:
        self._store = store
        self._rules = rules
        self._memo_file = room.root / f"pruned-{rules.digest}.json"
        self._memo: dict[str, str | None] = self._read_memo()
        self._new: list[bytes] = []
        self._whole = ""
        self._folders: dict[str, bytes] = {}

    def prune(self, tree: str) -> str:
        self._whole = tree
        known = len(self._memo)
        pruned = self._pruned(tree, "")
        if self._new:
            self._store.git("mktree", "--batch", "--missing", "-z", input=b"\0".join(self._new))
        if len(self._memo) != known:
            atomic.write(self._memo_file, json.dumps(self._memo).encode())
        return pruned

    def _read_memo(self) -> dict[str, str | None]:
        try:
            memo: dict[str, str | None] = json.loads(self._memo_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        # The store may have been made anew since.
        probe = next(filter(None, memo.values()), None)
        return memo if probe is None or self._store.resolve(f"{probe}^{{tree}}") else {}

    def _pruned(self, tree: str, path: str) -> str:
        entries = []
        for mode, name, entry in _entries(self._store.cat_file(tree)):
            below = f"{path}/{name.decode(errors='replace')}" if path else name.decode()
            kept: str | None = entry
            if mode == _FOLDER_MODE and self._rules.covers(below):
                kept = self._skeleton_of(entry)
            elif mode == _FOLDER_MODE and self._rules.reaches_below(below):
                kept = self._pruned(entry, below)
            if kept is not None:
                entries.append((mode, name, kept))
        return self._remember(entries)

    def _skeleton_of(self, tree: str) -> str | None:
        if tree not in self._memo:
            self._memo[tree] = self._skeleton(tree)
        return self._memo[tree]

    def _skeleton(self, tree: str) -> str | None:
        entries = []
        for mode, name, entry in _entries(self._folder(tree)):
            kept: str | None = entry
            if mode == _FOLDER_MODE:
                kept = self._skeleton(entry)
            elif not self._rules.keeps(name.decode(errors="replace")):
                kept = None
            if kept is not None:
                entries.append((mode, name, kept))
        return self._remember(entries) if entries else None

    def _folder(self, tree: str) -> bytes:
        """Return the raw object of a folder somewhere in the whole tree."""
        if not self._folders:
            # All of them at once: one by one, 4,000 questions cost a second.
            self._folders = _folders(self._store, self._whole)
        return self._folders[tree]

    def _remember(self, entries: list[tuple[bytes, bytes, str]]) -> str:
        """Queue a tree object for one mktree at the end; its id is known beforehand."""
        raw = b"".join(
            mode + b" " + name + b"\0" + bytes.fromhex(entry) for mode, name, entry in entries
        )
        for mode, name, entry in entries:
            kind = b"tree" if mode == _FOLDER_MODE else b"blob"
            self._new.append(b"%06d %s %s\t%s" % (int(mode), kind, entry.encode(), name))
        self._new.append(b"")
        header = b"tree %d\0" % len(raw)
        return hashlib.sha1(header + raw, usedforsecurity=False).hexdigest()


def _folders(store: Store, tree: str) -> dict[str, bytes]:
    """Return the raw object of every folder below a tree, by id."""
    ids = store.git("ls-tree", "-rd", "--format=%(objectname)", tree)
    code, answers, err = store.git_bytes("cat-file", "--batch", "--buffer", input=ids.encode())
    if code != 0:
        raise InfraError(
            err or f"exit code {code}", where=f"git cat-file in {store.path}", next_step=MEND_STORE
        )
    found = {}
    at = 0
    while at < len(answers):
        end = answers.index(b"\n", at)
        name, _, size = answers[at:end].decode().split(" ")
        at = end + 1 + int(size) + 1
        found[name] = answers[end + 1 : at - 1]
    return found


def _entries(raw: bytes) -> Iterator[tuple[bytes, bytes, str]]:
    """Yield (mode, name, id) of a raw tree object with SHA-1 ids."""
    at = 0
    while at < len(raw):
        space = raw.index(b" ", at)
        end = raw.index(b"\0", space)
        yield raw[at:space], raw[space + 1 : end], raw[end + 1 : end + 21].hex()
        at = end + 21
