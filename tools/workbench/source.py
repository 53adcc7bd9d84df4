# SPDX-License-Identifier: GPL-2.0-only
"""From a name to a kernel in the store, by the first source that has it.

The order: the user's own repository; what is imported; the kernel's own
download site; the Debian archive.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench import apt, archive, clone, download, fastimport, kernelnames, site
from workbench.catalogue import ORIGINS, Catalogue, SupportedKernel, load
from workbench.errors import InfraError, UsageError
from workbench.gitstore import MEND_STORE, Store
from workbench.model import Kernel, KernelTag
from workbench.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workbench.paths import Paths

_NEAREST = 3
_IMPORT_BYTES = 450 << 20  # what the pack of one more kernel takes at most


def supported(paths: Paths) -> tuple[SupportedKernel, ...]:
    """Return the supported kernels, oldest first."""
    return load(paths).supported


def default_tag(paths: Paths) -> str:
    """Return the tag that is meant when none is named."""
    return str(load(paths).default.tag)


def obtain(
    paths: Paths, name: str, *, repo: Path | None = None, progress: Progress | None = None
) -> Kernel:
    """Return a kernel of the store, brought there first if need be.

    ``name`` is a tag, any tree-ish with ``repo``, or the name of a kernel that
    was taken out of a repository before. UsageError when no source knows it,
    InfraError when it is known and cannot be had now.
    """
    progress = progress or Silent()
    store = Store.open(paths)
    tag = _tag(name)
    if repo is not None:
        kernel = clone.take(store, repo, name, progress)
        if kernel is not None:
            return kernel
        if tag is None:
            raise UsageError(
                f"has no {name!r}",
                where=str(repo),
                next_step=f"its nearest tags: {clone.nearest(store, repo, name)}",
            )
        progress.note(f"{repo} has no {name}; asking the other sources")
    if tag is None:
        kernel = store.kernel(name)
        if kernel is not None:
            return kernel
    return _by_tag(paths, store, tag or kernelnames.parse(paths, name), progress)


def names(paths: Paths, tags: tuple[str, ...], *, all_tags: bool) -> tuple[str, ...]:
    """Return the kernels a user means by ``tags`` or --all, each once; the default for neither."""
    if all_tags and tags:
        raise UsageError("name tags or say --all, not both", next_step="leave one of them out")
    if all_tags:
        return tuple(str(each.tag) for each in supported(paths))
    return tuple(dict.fromkeys(tags)) or (default_tag(paths),)


def obtain_all(
    paths: Paths, wanted: Iterable[str], *, repo: Path | None, progress: Progress
) -> list[Kernel]:
    """Return kernels by their names; a wrong one is told before another is fetched."""
    wanted = tuple(wanted)
    if repo is None:
        refuse_unnamed(paths, wanted)
    return [obtain(paths, name, repo=repo, progress=progress) for name in wanted]


def refuse_unnamed(paths: Paths, names: Iterable[str]) -> None:
    """Raise UsageError for a name that no source could know, before any work is begun."""
    store = Store.open(paths)
    for name in names:
        if store.kernel(name) is None:
            kernelnames.parse(paths, name)


def _tag(name: str) -> KernelTag | None:
    """Return the release a name means, None when it means something else (or nothing)."""
    with contextlib.suppress(UsageError):
        return KernelTag.parse(name)
    return None


def _by_tag(paths: Paths, store: Store, tag: KernelTag, progress: Progress) -> Kernel:
    catalogue = load(paths)
    pinned = catalogue.find(tag)
    kernel = kernelnames.imported(store, tag, pinned)
    if kernel is not None:
        return kernel
    search = _Search(paths, catalogue, tag, progress)
    tarball = _pinned(search, pinned) if pinned else _any(search)
    with store.writing(progress):
        if kernelnames.imported(store, tag, pinned) is None:  # nobody did it while we waited
            _room(paths)
            fastimport.import_tarball(store, tarball, tag, progress)
    tarball.path.unlink(missing_ok=True)  # the store has it all, checked and smaller to share
    kernel = store.kernel(str(tag))
    if kernel is None:
        raise InfraError(
            "was imported and is not there", where=f"{store.path} {tag}", next_step=MEND_STORE
        )
    return kernel


def _room(paths: Paths) -> None:
    free = shutil.disk_usage(paths.cache).free
    if free < _IMPORT_BYTES:
        raise InfraError(
            f"the disk is too full to import a kernel: {_IMPORT_BYTES >> 20} MiB may be needed,"
            f" {free >> 20} MiB are free",
            where=str(paths.cache),
            next_step="free some space, or set KPW_CACHE to another disk",
        )


@dataclass
class _Search:
    """One search for a tarball: who was asked, what failed, who listed what is not there."""

    paths: Paths
    catalogue: Catalogue
    tag: KernelTag
    progress: Progress
    asked: list[str] = field(default_factory=list)
    faults: list[InfraError] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def fetch(self, wanted: download.Wanted, origin: str) -> fastimport.Tarball | None:
        """Download it; None when it is not there or the server does not answer."""
        try:
            path = download.fetch(wanted, self.paths.downloads, self.progress)
        except download.MissingError:
            return None
        except download.UnreachableError as error:
            self.faults.append(error)
            return None
        return fastimport.Tarball(path, wanted.name, wanted.sha256, ORIGINS[origin])


def _pinned(search: _Search, pinned: SupportedKernel) -> fastimport.Tarball:
    """Bring the tarball with the pinned digest, from wherever it can be had.

    The site's tarball of a release is another file with another tree than the
    archive's, so only the places that can have the pinned one are asked.
    """
    file = search.paths.downloads / pinned.tarball
    if download.is_whole(file, pinned.sha256, search.progress):
        return fastimport.Tarball(file, pinned.tarball, pinned.sha256, ORIGINS[pinned.origin])
    for url, proxy in _pinned_places(search, pinned):
        wanted = download.Wanted(pinned.tarball, url, pinned.sha256, pinned.size, proxy)
        tarball = search.fetch(wanted, pinned.origin)
        if tarball is not None:
            return tarball
    if pinned.origin == "debian":
        tarball = _from_archive(search, pinned.sha256)
        if tarball is not None:
            return tarball
    why = search.faults[0].what if search.faults else "no place has it any more"
    raise InfraError(
        f"its pinned tarball cannot be had: {why}",
        where=str(pinned.tag),
        next_step=f"try again later, or put {pinned.tarball} (sha256 {pinned.sha256[:12]}…)"
        f" into {search.paths.downloads} yourself",
    )


def _pinned_places(search: _Search, pinned: SupportedKernel) -> list[tuple[str, str]]:
    if pinned.origin == "kernel.org":
        return [(site.url(search.catalogue.site, pinned.tag), "")]
    pool = search.catalogue.debian.pool
    return [
        (f"{base.url}{directory}/{pinned.tarball}", base.proxy)
        for base in apt.bases()
        for directory in pool
        if base.security == ("updates" in directory)
    ]


def _any(search: _Search) -> fastimport.Tarball:
    """Bring the tarball of a release nobody pinned, checked to a signature."""
    tarball = _from_site(search) or _from_archive(search, None)
    if tarball is not None:
        return tarball
    known = _near(search)
    if search.gone:
        raise InfraError(
            f"is listed in {', '.join(search.gone)}, but cannot be downloaded there"
            " (the archive answers 404)",
            where=str(search.tag),
            next_step=f"nearest known: {known}",
        )
    if search.faults:
        raise search.faults[0]
    raise UsageError(
        f"no source has {search.tag}",
        next_step=f"asked: {', '.join(search.asked)}; nearest known: {known}",
    )


def _from_site(search: _Search) -> fastimport.Tarball | None:
    keys = site.keyring()
    if keys is None:
        search.asked.append(site.skipped())
        search.progress.note(f"{search.asked[-1]}; asking the Debian archive")
        return None
    search.asked.append("kernel.org")
    try:
        wanted = site.offer(search.paths, search.catalogue.site, search.tag, keys)
    except download.MissingError:
        return None
    except download.UnreachableError as error:
        search.progress.note(f"{error}; asking the Debian archive")
        search.asked[-1] += " (no answer)"
        return None
    return search.fetch(wanted, "kernel.org")


def _from_archive(search: _Search, sha256: str | None) -> fastimport.Tarball | None:
    debian = search.catalogue.debian
    search.asked.append(f"the Debian archive's {', '.join(debian.suites)}")
    args = (search.paths, debian, search.tag, search.faults, search.progress)
    for offer in archive.offers(*args):
        if sha256 not in {None, offer.sha256}:
            continue
        tarball = search.fetch(offer.wanted(), "debian")
        archive.remember(search.paths, offer.url, is_gone=tarball is None and not search.faults)
        if tarball is not None:
            return tarball
        search.gone.append(offer.suite)
        search.progress.note(f"{search.tag}: listed in {offer.suite}, but not to be had there")
    return None


def _near(search: _Search) -> str:
    """Name the known releases nearest to the one asked for: its own series first."""
    tag = search.tag
    known = {kernel.tag for kernel in search.catalogue.supported}
    gone = archive.gone(search.paths)
    listed = (offer for offer in archive.known(search.paths) if offer.url not in gone)
    known |= {KernelTag.parse(offer.tag) for offer in listed} - {tag}

    def distance(other: KernelTag) -> tuple[int, int, int]:
        versions = (abs(other.major - tag.major), abs(other.minor - tag.minor))
        return (*versions, abs(other.patch - tag.patch))

    return ", ".join(map(str, sorted(known, key=distance)[:_NEAREST]))
