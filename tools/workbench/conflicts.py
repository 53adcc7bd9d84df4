# SPDX-License-Identifier: GPL-2.0-only
"""Lay out what could not be merged: regions, both sides, and what upstream has around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.description import patch_number
from workbench.linemap import Span, changes, followed
from workbench.mergefile import Versions, merge_file
from workbench.model import Conflict
from workbench.upstream import Place
from workbench.variants import since_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.explained import UpstreamWork
    from workbench.filechange import FileChange
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.linemap import Change
    from workbench.model import Kernel, KernelTag
    from workbench.threeway import Clash

_CONTEXT = 6
_MARKS = 63


@dataclass(frozen=True)
class Region:
    """Lines ``start`` (1-based) to before ``start + count`` of the upstream file; 0: all."""

    start: int
    upstream: bytes
    base: bytes
    ours: bytes

    @property
    def count(self) -> int:
        """How many upstream lines it covers."""
        return len(self.upstream.splitlines())

    @property
    def span(self) -> Span | None:
        """The lines, unless it is the whole file."""
        return Span(self.start, self.start + self.count) if self.start else None


class Explainer:
    """Turns clashes into conflicts; ``folder`` is scratch."""

    def __init__(
        self, store: Store, folder: Path, remedy: str, work: Callable[[Place], UpstreamWork | None]
    ) -> None:
        """Take what to do about a conflict, and whom to ask what upstream did at a place.

        ``remedy`` names the patch file to write; how to see the place is added here.
        """
        self._store = store
        self._folder = folder
        self._remedy = remedy
        self._work = work

    def explain(self, clash: Clash) -> tuple[Conflict, ...]:
        """Return a conflict for each region of a clash, or one for the whole file."""
        text = self._text(clash.upstream)
        regions = self._regions(clash, text)
        if not regions:
            regions = [Region(0, b"", *_both(clash.change))]
        return tuple(self._conflict(clash, region, text) for region in regions)

    def explain_gone(self, change: FileChange, kernel: str) -> Conflict:
        """Return the conflict of a change to a file that upstream no longer has."""
        base, ours = _both(change)
        return Conflict(
            path=change.old or "",
            line=0,
            kind=f"gone in {kernel}",
            upstream="",
            ours=_readable(ours),
            context="",
            next_step=f"find out what replaced {change.old}, then {self._remedy}",
            base=_readable(base),
            work=self._work(Place((change.old or "",))),
        )

    def _conflict(self, clash: Clash, region: Region, text: bytes) -> Conflict:
        first = max(1, region.start - _CONTEXT)
        last = region.start + region.count + _CONTEXT - 1
        look, oid = "", ""
        if clash.upstream is not None:
            oid = clash.upstream.oid
            show = f"git --git-dir={self._store.path} cat-file -p {oid[:16]}"
            look = f"; see the place with: {show} | sed -n {first},{last}p"
        names = tuple(dict.fromkeys((clash.path, *clash.change.paths)))
        return Conflict(
            path=clash.path,
            line=region.start,
            kind=clash.kind,
            upstream=_readable(region.upstream),
            ours=_readable(region.ours),
            context=_readable(b"".join(text.splitlines(keepends=True)[first - 1 : last])),
            next_step=self._remedy + look,
            base=_readable(region.base),
            work=self._work(Place(names, oid, region.span)),
        )

    def _regions(self, clash: Clash, text: bytes) -> list[Region]:
        if clash.failed_line:
            return _hunk_region(clash, text)
        if clash.patched is None or clash.upstream is None:
            return []
        versions = Versions(text, self._text(clash.base), self._text(clash.patched))
        # With the base shown: the three texts of a region are of the same lines.
        options = (f"--marker-size={_MARKS}", "--diff3")
        merged = merge_file(self._store, self._folder, versions, *options)
        return [] if merged is None else self._in_upstream(*_parse(merged[1]), text)

    def _in_upstream(self, regions: list[Region], kept: bytes, text: bytes) -> list[Region]:
        """Place regions in upstream's text; what merged elsewhere has moved them."""
        files = self._folder / "text-merged", self._folder / "text-upstream"
        for file, data in zip(files, (kept, text), strict=True):
            file.write_bytes(data)
        moved = changes(self._store, *files, "--no-index")
        return [replace(each, start=_place(each, moved, text)) for each in regions]

    def _text(self, entry: Entry | None) -> bytes:
        return b"" if entry is None else self._store.cat_file(entry.oid)


def remedy(kernel: Kernel, extension: Extension, base: KernelTag, path: Path) -> str:
    """Say what to do about a patch made on ``base`` that does not go into a kernel."""
    tag, name = kernel.tag, extension.name
    since = since_for(extension, path, base, tag)
    return (
        f"run 'kpw resolve {kernel.name} {name}/{patch_number(path)}', or "
        f"write patches/{name}/since-{since}/{path.name} for {kernel.name} "
        f'and a table [variants."{since}"] with base = "{tag}" in extension.toml'
    )


def _both(change: FileChange) -> tuple[bytes, bytes]:
    """Return what all hunks of a file expect, and what they leave."""
    return b"".join(hunk.before for hunk in change.hunks), b"".join(
        hunk.after for hunk in change.hunks
    )


def _hunk_region(clash: Clash, text: bytes) -> list[Region]:
    """Return what upstream has where a hunk expected its old text."""
    hunk = next(
        (each for each in clash.change.hunks if each.old_start >= clash.failed_line),
        clash.change.hunks[-1],
    )
    start = max(1, hunk.old_start)
    lines = text.splitlines(keepends=True)[start - 1 : start - 1 + hunk.old_count]
    return [Region(start, b"".join(lines), hunk.before, hunk.after)]


def _parse(merged: bytes) -> tuple[list[Region], bytes]:
    """Find the regions between the marks ``git merge-file`` wrote, and take upstream's side.

    The regions' lines are those of the text that is returned.
    """
    opened, base, middle, closed = (bytes([mark]) * _MARKS for mark in b"<|=>")
    regions = []
    kept: list[bytes] = []
    sides: list[list[bytes]] = []
    for line in merged.split(b"\n"):
        if line.startswith(opened + b" "):
            sides = [[]]
        elif sides and (line.startswith(base + b" ") or line.rstrip(b"\r") == middle):
            sides.append([])
        elif sides and line.startswith(closed + b" "):
            regions.append(Region(len(kept) + 1, *(_joined(side) for side in sides)))
            kept += sides[0]
            sides = []
        else:
            (sides[-1] if sides else kept).append(line)
    return regions, b"\n".join(kept)


def _place(region: Region, moved: list[Change], text: bytes) -> int:
    """Return where a region is in ``text``; a diff may put what is beside it on either side."""
    (start, end), _ = followed(moved, Span(region.start, region.start + region.count))
    last = end - region.count
    there = text.splitlines(keepends=True)[last - 1 : end - 1]
    return last if b"".join(there) == region.upstream else start


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _readable(text: bytes) -> str:
    return text.decode(errors="replace")
