# SPDX-License-Identifier: GPL-2.0-only
"""What upstream did to some lines of a file since a patch was made.

With a real git history (the user's clone, or a commit of the store that has
parents) these are the commits that touched the lines. An imported tarball is
a commit without parents: then the imported kernels on the way are compared,
neighbour by neighbour, and the lines followed back through them.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from workbench import clone, process
from workbench.errors import InfraError
from workbench.explained import UpstreamCommit, UpstreamWork
from workbench.linemap import changes, followed
from workbench.model import KernelTag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.linemap import Span
    from workbench.model import Kernel

#: What is told of one place, and of how many places of a kernel.
_HANDFUL: Final = 5
_MOST_PLACES: Final = 40
#: A history is asked for at most so many seconds; then the imported tags must do.
_PATIENCE: Final = 30.0


class Place(NamedTuple):
    """Lines of the blob ``oid``; ``names`` it may have in a kernel, likeliest first.

    Without ``span`` it is the whole file, without ``oid`` one that is not there.
    """

    names: tuple[str, ...]
    oid: str = ""
    span: Span | None = None


class Upstream:
    """Knows what was done on the way to one kernel."""

    def __init__(self, store: Store, kernel: Kernel, repo: Path | None) -> None:
        """``repo`` is the user's repository, if the kernel may come from there."""
        self._store = store
        self.kernel = kernel
        self._repo = repo
        self._asked = 0
        self._bounds: dict[KernelTag, str | None] = {}

    def work(self, since: KernelTag, place: Place) -> UpstreamWork | None:
        """Tell what was done to a place since a tag; None when that is not known.

        After 40 places it is None: a series that fits nowhere is not worth
        minutes of looking.
        """
        self._asked += 1
        if self._asked > _MOST_PLACES:
            return None
        path, span = self._here(place)
        bound = self._bound(since)
        if bound:
            commits = self._commits(bound, path, span)
            if commits:
                return UpstreamWork(bound, commits)
        between = tuple(islice(self._between(since, place, path, span), _HANDFUL))
        if since > self.kernel.tag:
            between = tuple((older, newer) for newer, older in between)
        return UpstreamWork(str(since), between=between) if between else None

    def _here(self, place: Place) -> tuple[str, Span | None]:
        """Find the place in the kernel as upstream has it, without our earlier patches."""
        path = self._name(self.kernel.commit, place.names)
        if path is None or place.span is None:
            return path or place.names[-1], None
        there = changes(self._store, place.oid, f"{self.kernel.commit}:{path}")
        return path, followed(there, place.span)[0]

    def _name(self, commit: str, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if self._text(commit, name) is not None), None)

    def _text(self, commit: str, path: str) -> bytes | None:
        return self._store.read_file(commit, path)

    # With a history

    def _bound(self, since: KernelTag) -> str | None:
        """Name what the history is asked from: the tag, or its series' first release."""
        if since not in self._bounds:
            names = dict.fromkeys((str(since), since.series))
            self._bounds[since] = next(filter(self._reaches, names), None)
        return self._bounds[since]

    def _reaches(self, name: str) -> bool:
        """Tell whether the kernel's history meets that of a tag."""
        return bool(self._ask("merge-base", f"refs/tags/{name}^{{commit}}", self.kernel.commit))

    def _ask(self, *args: str) -> str:
        """Ask the history; empty when it has no answer."""
        argv = self._store.argv(*args) if self._repo is None else clone.argv(self._repo, *args)
        # Whatever keeps it from an answer, the rebase itself is not touched by it.
        with contextlib.suppress(InfraError):
            env = self._store.environment()
            done = process.run(argv, env=env, timeout=_PATIENCE, check=False)
            return done.stdout if done.returncode == 0 else ""
        return ""

    def _commits(self, bound: str, path: str, span: Span | None) -> tuple[UpstreamCommit, ...]:
        words = ["log", "-s", "--no-merges", f"--max-count={_HANDFUL}"]
        words += ["--abbrev=12", "--format=%h %s"]
        between = f"refs/tags/{bound}..{self.kernel.commit}"
        count = (self._text(self.kernel.commit, path) or b"").count(b"\n")
        if span is None or not count:
            told = self._ask(*words, between, "--", path)
        else:
            # git has no name for the place between two lines: both are asked for.
            empty = span.start == span.end
            ends = (span.start - empty, span.end - (not empty))
            first, last = (min(max(1, line), count) for line in ends)
            told = self._ask(*words, f"-L{first},{last}:{path}", between)
        pairs = (line.partition(" ") for line in told.splitlines() if line)
        return tuple(UpstreamCommit(oid, subject) for oid, _, subject in pairs)

    # With imported kernels

    def _between(
        self, since: KernelTag, place: Place, path: str, span: Span | None
    ) -> Iterator[tuple[str, str]]:
        """Follow the lines from the kernel to ``since``; yield the neighbours that differ there."""
        names = (path, *place.names)
        later, now = self.kernel.name, self._blob(self.kernel.commit, names)
        for earlier, commit in self._way(since):
            before = self._blob(commit, names)
            if (before is None) != (now is None):
                yield earlier, later
                if before is None or place.span is None:
                    return
                # Upstream took the file away; what was restored is followed from there on.
                span = followed(changes(self._store, place.oid, before), place.span)[0]
            elif before and now:
                found = changes(self._store, now, before)
                span, touched = followed(found, span) if span else (None, bool(found))
                if touched:
                    yield earlier, later
            later, now = earlier, before

    def _blob(self, commit: str, names: tuple[str, ...]) -> str | None:
        """Return git's word for a file, by the first of its names that is there."""
        name = self._name(commit, names)
        return name and f"{commit}:{name}"

    def _way(self, since: KernelTag) -> list[tuple[str, str]]:
        """Return the imported kernels next to the kernel, and on to ``since``."""
        low, high = sorted((since, self.kernel.tag))
        tags = self._store.tags()
        imported = {KernelTag.parse(name): (name, commit) for name, commit in tags.items()}
        way = sorted(tag for tag in imported if low <= tag <= high)
        found = [imported[tag] for tag in (way if since > self.kernel.tag else reversed(way))]
        return [item for item in found if item[0] != self.kernel.name]
