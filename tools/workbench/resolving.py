# SPDX-License-Identifier: GPL-2.0-only
"""Conflicts a person is at: opened, taken up again, settled or given up.

What is open is a folder of the state directory and nothing else. It appears
and goes by one rename, so that a run killed at any moment leaves it open or
not; what such a run left half made is swept up by the next one.

A patch is resolved on its extension and what that requires: that is what its
file has to apply to (see 'kpw rebase --only'). Where all is well there and it
conflicts in the whole series, with what other extensions do, it is resolved
on that.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import kernelnames, opened, workfolder
from workbench.description import RESOLUTIONS, patch_number
from workbench.errors import InfraError, UsageError
from workbench.extensions import find, patches_for, select
from workbench.growing import GrowingTree
from workbench.model import PatchState
from workbench.rebase import Halted, halt_at, rebase
from workbench.resolutions import remember_at
from workbench.smalltree import SmallTree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.declared import Extension
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.model import Kernel, RebasedSeries
    from workbench.opened import Open
    from workbench.paths import Paths
    from workbench.progress import Progress

_PLACE = re.compile(r"([^/]+)/(?:since-[^/]+/)?(\d{1,4})(?:-.*)?")
_MARK = re.compile(rb"^(?:<{7}|\|{7}|>{7})(?: |$)", re.MULTILINE)


@dataclass(frozen=True)
class Settled:
    """What came of ``--continue``: the folder that remembers the resolution, or what is missing."""

    folder: Path | None
    missing: tuple[str, ...] = ()


class Desk:
    """Where conflicts are open; ``extensions`` are all there are.

    ``repo`` is the user's repository that is asked for what patches stand on.
    """

    def __init__(
        self,
        paths: Paths,
        store: Store,
        extensions: Sequence[Extension],
        repo: Path | None = None,
    ) -> None:
        """Nothing is read or written yet."""
        self._repo = repo
        self._paths = paths
        self._store = store
        self._extensions = extensions

    def ported(self, kernel: Kernel, progress: Progress) -> RebasedSeries:
        """Port the whole series to a kernel."""
        return rebase(self._paths, self._store, kernel, self._extensions, progress, repo=self._repo)

    def find(self, word: str, kernel: Kernel) -> tuple[Extension, Path]:
        """Find the patch a user names, as :meth:`find_open` does; UsageError when there is none."""
        name, number = _parsed(word)
        extension = find(self._extensions, name)
        files = {patch_number(path): path for path, _ in patches_for(extension, kernel.tag)}
        if number not in files:
            known = ", ".join(files) or "none"
            raise UsageError(
                f"{extension.name} has no patch {number} for {kernel.name}",
                next_step=f"there are: {known}",
            )
        return extension, files[number]

    def find_open(self, tag: str, word: str) -> tuple[Open, ...]:
        """Return what is open of a kernel and a patch (empty: of all), as a user spells them.

        The patch is ``EXT/0001``: name or id of the extension, and the number
        or the file's name.
        """
        found = [
            each for each in self.opened() if not tag or kernelnames.is_meant(tag, each.kernel)
        ]
        if word:
            name, number = _parsed(word)
            if name not in {each.extension for each in found}:
                name = find(self._extensions, name).name
            found = [each for each in found if each.name == f"{name}/{number}"]
        return tuple(found)

    def opened(self, kernel: str = "", name: str = "") -> tuple[Open, ...]:
        """Return what is open, of one kernel or patch where they are named."""
        found = opened.all_below(self._paths.resolve)
        return tuple(
            each for each in found if kernel in {"", each.kernel} and name in {"", each.name}
        )

    def open(self, kernel: Kernel, extension: Extension, patch: Path, progress: Progress) -> Open:
        """Open a conflict; UsageError when the patch has none, or stands on one that has."""
        number = patch_number(patch)
        where = f"{extension.name}/{number} on {kernel.name}"
        halted = alone = self._halted(kernel, extension, patch, progress)
        beside = alone.standoff is None
        if beside:
            halted = self._halted(kernel, extension, patch, progress, beside=True)
        standoff = halted.standoff
        if standoff is None:
            raise _nothing_to_do(alone, where)
        _refuse_earlier(halted, where)
        if blocked := [each.path for each in standoff.contested if each.text is None]:
            raise UsageError(
                f"{blocked[0]}: the patch makes a file where there is a directory, or below a file",
                where=where,
                next_step="mend the patch itself",
            )
        state = opened.State(
            kernel.name,
            extension.name,
            number,
            halted.patch.mail.subject,
            halted.series.commit,
            _digest(patch),
            {each.path: each.kind for each in standoff.contested},
            beside,
        )
        final = self._paths.resolve / kernel.name / f"{extension.name}-{number}"
        with workfolder.held(self._paths.resolve):
            if not final.exists():  # another run may have been faster
                with workfolder.appearing(final, state) as place:
                    message = halted.patch.mail.message
                    SmallTree.lay_out(self._store, place, state.commit, standoff, message)
                self._store.update_ref(opened.ref_name(final), state.commit)
            return opened.read(final)

    def settle(self, found: Open, kernel: Kernel, progress: Progress) -> Settled:
        """Take the resolution over, when all is settled, and close the work tree.

        UsageError when the patch or what it stands on is not what was opened.
        """
        tree = found.tree
        files = tree.changes(found.commit)
        if missing := _missing(found, files):
            return Settled(None, missing)
        if not files:
            raise UsageError(
                f"nothing is left of {found.name} on {found.kernel}",
                next_step="see 'upstream_since' in extension.toml, or --abort",
            )
        extension, patch = self.find(found.name, kernel)
        halted = self._halted(kernel, extension, patch, progress, beside=found.beside)
        if halted.standoff is not None:
            if (halted.series.commit, _digest(patch)) != (found.commit, found.digest):
                raise UsageError(
                    f"{found.name} or a patch before it was changed since this was opened",
                    where=str(found.folder),
                    next_step="copy your files, --abort, and open it again",
                )
            self._take(found, files)
            remember_at(self._store, self._paths.patches, halted, files)
            halted = self._halted(kernel, extension, patch, progress, beside=found.beside)
        folder = self._proven(halted, files)
        self.close(found)
        return Settled(folder)

    def close(self, found: Open) -> None:
        """Give the work tree up: it goes, and with it what was done there."""
        with workfolder.held(self._paths.resolve):
            if not found.folder.exists():
                raise UsageError(
                    f"another run settled {found.name} on {found.kernel}, or gave it up",
                    where=str(found.folder),
                    next_step="'kpw resolve' lists what is open",
                )
            with self._store.writing():
                self._store.git("update-ref", "-d", opened.ref_name(found.folder))
            workfolder.remove(found.folder)

    def _take(self, found: Open, files: dict[str, Entry | None]) -> None:
        """Bring the resolved files into the store; the store has the rest."""
        with self._store.writing():
            for entry in files.values():
                if entry is not None:
                    self._store.add("blob", found.tree.content(entry))

    def _proven(self, halted: Halted, files: dict[str, Entry | None]) -> Path:
        """See that a rebase now comes to the very files; return the folder that has them."""
        outcome = halted.series.outcomes[-1]
        with tempfile.TemporaryDirectory(prefix="kpw-resolve-") as name:
            tree = GrowingTree(self._store, halted.series.tree, Path(name))
            same = all(tree.file(path) == entry for path, entry in files.items())
        if outcome.state is PatchState.REMEMBERED and same:
            return self._paths.patches / outcome.extension / RESOLUTIONS
        raise InfraError(
            f"'kpw rebase' does not come to the same files ({outcome.state})",
            where=f"{outcome.extension}, {outcome.patch}",
            next_step="remove other resolutions of this patch from its folder resolutions/",
        )

    def _halted(
        self,
        kernel: Kernel,
        extension: Extension,
        patch: Path,
        progress: Progress,
        *,
        beside: bool = False,
    ) -> Halted:
        chain = select(self._extensions, () if beside else (extension.name,))
        return halt_at(self._paths, self._store, kernel, chain, patch, progress, repo=self._repo)


def _parsed(word: str) -> tuple[str, str]:
    """Return the extension and the number in a patch's name."""
    match = _PLACE.fullmatch(word)
    if match is None:
        raise UsageError(f"{word!r} is no patch", next_step="write it like spi-timeout/0001")
    return match[1], match[2].zfill(4)


def _missing(found: Open, files: dict[str, Entry | None]) -> tuple[str, ...]:
    """Say what keeps a work tree from being settled."""
    tree = found.tree
    missing = [f"{path}: not settled, 'git add' (or 'git rm') it" for path in tree.unsettled()]
    missing += [f"{path}: changed after 'git add', add it again" for path in tree.not_added()]
    for path, entry in files.items():
        if entry and path in dict(found.conflicts) and (at := _marked(tree.content(entry))):
            missing.append(f"{path}:{at}: a conflict mark is left")
        if entry and dict(found.conflicts).get(path) == "gone upstream":
            missing.append(f"{path}: gone upstream; 'git rm' it, a [[restore]] would bring it back")
    return tuple(missing)


def _marked(data: bytes) -> int:
    """Return the line of the first mark, 0 when there is none."""
    match = _MARK.search(data)
    return data.count(b"\n", 0, match.start()) + 1 if match else 0


def _refuse_earlier(halted: Halted, where: str) -> None:
    """Raise UsageError when a patch that comes before conflicts too."""
    for outcome in halted.series.outcomes[:-1]:
        if outcome.state is PatchState.CONFLICT and not outcome.patch.endswith(".patch"):
            raise UsageError(
                f"{outcome.extension}: {outcome.patch}: {outcome.detail}",
                where=where,
                next_step="mend the [[restore]] in its extension.toml first",
            )
        if outcome.state is PatchState.CONFLICT:
            first = f"{outcome.extension}/{outcome.patch.rpartition('/')[2][:4]}"
            raise UsageError(
                f"{first} conflicts too, and comes before it",
                where=where,
                next_step=f"run 'kpw resolve {halted.series.kernel.name} {first}' first",
            )


def _nothing_to_do(halted: Halted, where: str) -> UsageError:
    outcome = halted.series.outcomes[-1]
    if outcome.state is PatchState.REMEMBERED:
        return UsageError(
            f"is resolved already, {outcome.detail}",
            where=where,
            next_step="to do it anew, remove that file from the folder resolutions/",
        )
    return UsageError(
        f"has no conflict ({outcome.state}) on what {outcome.extension} requires, "
        "nor in the whole series",
        where=where,
        next_step="see 'kpw rebase'",
    )


def _digest(patch: Path) -> str:
    return hashlib.sha256(patch.read_bytes()).hexdigest()
