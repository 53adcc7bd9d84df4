# SPDX-License-Identifier: GPL-2.0-only
"""Take a foreign series into patches/<extension>: what is new gets the next numbers.

Nothing that is there is written over. All of it is planned first; only when
nothing speaks against it is anything written.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import atomic, description, madeon, patchmail, source
from workbench.errors import UsageError
from workbench.extensions import load_extensions
from workbench.madeon import Misfit
from workbench.patchfile import read_patch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.gitstore import Store
    from workbench.madeon import Fitted, MadeOn
    from workbench.mailthread import Thread
    from workbench.model import Kernel, KernelTag
    from workbench.patchfile import PatchFile
    from workbench.paths import Paths
    from workbench.progress import Progress

_ID = re.compile(r"[Ee](\d+)")
# Of 1: 'ha-cluster' is 0.9 of 'ha-clusterip'.
_NEARLY: Final = 0.8
_DESCRIPTION: Final = """\
# SPDX-License-Identifier: GPL-2.0-only
id = {id}
summary = {summary}
base = {base}

# Still to be written: uapi (what user space sees) and reached_by (who sets it).
"""


@dataclass(frozen=True)
class Imported:
    """What an import came to: files below patches/, those written and those that were there.

    ``made_on`` is None when nothing was new, and so nobody had to know it.
    ``merged`` are the subjects of patches that were merged onto it, ``is_new``
    tells that the extension was made.
    """

    extension: str
    written: tuple[str, ...]
    there: tuple[str, ...]
    made_on: MadeOn | None = None
    merged: tuple[str, ...] = ()
    is_new: bool = False


class Importer:
    """Imports into one extension, which need not be there yet."""

    def __init__(
        self, paths: Paths, store: Store, into: str, progress: Progress, *, new: bool = False
    ) -> None:
        """Look at what is there; UsageError when ``into`` is no name for an extension.

        A name that is nearly one that is there makes an extension only with ``new``.
        """
        self._paths = paths
        self._store = store
        self._progress = progress
        self._all = load_extensions(paths)
        self._into = into
        named = {each.name: each for each in self._all}
        named |= {each.id.lower(): each for each in self._all}
        self._extension = named.get(into.lower())
        if self._extension is not None:
            self._into = self._extension.name
            if new:
                raise UsageError(f"{self._into} is there", next_step="leave out --new")
        else:
            description.check_name(paths.patches / into)
            names = [each.name for each in self._all]
            near = difflib.get_close_matches(into, names, n=1, cutoff=_NEARLY)
            if near and not new:
                raise UsageError(
                    f"there is no extension {into!r} (did you mean {near[0]!r}?)",
                    next_step=f"say --into {near[0]}, or --new to make {into}",
                )
        self._folder = paths.patches / self._into

    def take(self, thread: Thread, stated: MadeOn | None) -> Imported | Misfit:
        """Import a series, all of it or nothing; ``stated`` is what it is said to be made on.

        UsageError for a malformed mail, for a patch that is there and
        differs, and when nobody knows the base.
        """
        patches = [post.patch() for post in thread.posts]
        new, there = self._sorted_out(patches)
        if not new:
            return Imported(self._into, (), there)
        made_on = stated or self._own_base() or self._guessed(patches, thread)
        self._refuse_other_base(made_on)
        placed = self._placed(new, made_on.tag)
        if isinstance(placed, Misfit):
            return placed
        files = self._files(placed.patches)
        if self._extension is None:
            files[description.DESCRIPTION] = self._described(thread, placed.patches, made_on)
            self._write_folder(files)
        else:
            self._write_beside(files)
        names = tuple(f"{self._into}/{name}" for name in files)
        is_new = self._extension is None
        return Imported(self._into, names, there, made_on, placed.merged, is_new)

    def _sorted_out(self, patches: Sequence[PatchFile]) -> tuple[list[PatchFile], tuple[str, ...]]:
        """Split what comes into the new patches and the files of those that are there."""
        own = [read_patch(path) for path in self._extension.patches] if self._extension else []
        ids = {patchmail.patch_id(self._store, each): each for each in own}
        subjects = {each.mail.subject: each for each in own}
        new: list[PatchFile] = []
        there: list[str] = []
        for patch in patches:
            same = ids.get(patchmail.patch_id(self._store, patch))
            like = same or subjects.get(patch.mail.subject)
            if like is None:
                new.append(patch)
            elif same is None or same.mail != patch.mail:
                raise UsageError(
                    f"{self._into}/{like.path.name} is there, and differs",
                    where=f"{patch.path}: {patch.mail.subject}",
                    next_step="remove that file first, or name another extension",
                )
            elif new:
                raise UsageError(
                    f"comes before {self._into}/{like.path.name}, which is there",
                    where=f"{patch.path}: {new[-1].mail.subject}",
                    next_step="renumber by hand, or name another extension",
                )
            else:
                there.append(f"{self._into}/{like.path.name}")
        return new, tuple(there)

    def _own_base(self) -> MadeOn | None:
        if self._extension is None:
            return None
        if self._extension.base is None:
            raise UsageError(
                "names no base, on which patches stand",
                where=str(self._folder / description.DESCRIPTION),
                next_step='add base = "vX.Y.Z"',
            )
        return madeon.MadeOn(self._extension.base, "the extension's own")

    def _refuse_other_base(self, made_on: MadeOn) -> None:
        own = self._own_base()
        if own is not None and own.tag != made_on.tag:
            raise UsageError(
                f"its patches are made on {own.tag}, and these on {made_on.tag}",
                where=str(self._folder),
                next_step=f"port them to {own.tag} first, or name another extension",
            )

    def _guessed(self, patches: Sequence[PatchFile], thread: Thread) -> MadeOn:
        with tempfile.TemporaryDirectory(prefix="kpw-import-") as scratch:
            found = madeon.guess(self._store, patches, thread.base_commit, Path(scratch))
        if found is None:
            raise UsageError(
                "it is not known which kernel they were made on",
                where=str(patches[0].path),
                next_step="say with --base TAG onto which one to take them",
            )
        return found

    def _placed(self, new: Sequence[PatchFile], tag: KernelTag) -> Fitted | Misfit:
        """Apply what is new where it was made, on what the extension has and requires."""
        with tempfile.TemporaryDirectory(prefix="kpw-import-") as name:
            site = madeon.Site(self._store, Path(name), self._kernel)
            return site.applied(self._kernel(tag), self._all, self._extension, new)

    def _kernel(self, tag: KernelTag) -> Kernel:
        return source.obtain(self._paths, str(tag), progress=self._progress)

    def _files(self, placed: Sequence[PatchFile]) -> dict[str, bytes]:
        """Return the new files: their numbers follow on all that are there, variants included."""
        last = 0
        if self._extension is not None:
            variants = self._extension.variants
            every = (self._extension.patches, *(each.patches for each in variants))
            numbers = (int(description.patch_number(path)) for paths in every for path in paths)
            last = max(numbers, default=0)
        return {
            patchmail.file_name(number, patch.mail.subject): patchmail.render(self._store, patch)
            for number, patch in enumerate(placed, last + 1)
        }

    def _described(self, thread: Thread, placed: Sequence[PatchFile], made_on: MadeOn) -> bytes:
        """Return the extension.toml of a new extension: what is known, and no more."""
        taken = (_ID.fullmatch(each.id) for each in self._all)
        number = max((int(match[1]) for match in taken if match), default=0) + 1
        first = placed[0].mail.subject
        more = f" (and {len(placed) - 1} more)" if len(placed) > 1 else ""
        # A JSON string is a TOML string.
        words = {
            "id": json.dumps(f"E{number}"),
            "summary": json.dumps(thread.title or first + more, ensure_ascii=False),
            "base": json.dumps(str(made_on.tag)),
        }
        return _DESCRIPTION.format(**words).encode()

    def _write_folder(self, files: Mapping[str, bytes]) -> None:
        """Make the new extension's folder appear whole."""
        # Beside patches/: whatever is in it is taken for an extension.
        mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        young = self._paths.repo / f".kpw-import-{mark}"
        try:
            young.mkdir()
            for name, data in files.items():
                (young / name).write_bytes(data)
            young.rename(self._folder)
        finally:
            shutil.rmtree(young, ignore_errors=True)

    def _write_beside(self, files: Mapping[str, bytes]) -> None:
        """Write patches into an extension's folder; all of them, or none stays."""
        paths = {self._folder / name: data for name, data in files.items()}
        try:
            for path, data in paths.items():
                atomic.write(path, data)
        except BaseException:
            for path in paths:
                path.unlink(missing_ok=True)
            raise
