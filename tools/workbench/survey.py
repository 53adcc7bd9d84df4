# SPDX-License-Identifier: GPL-2.0-only
"""What is known of every kernel without asking anybody: for ``kpw kernels``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from workbench import archive
from workbench.catalogue import ORIGINS, Catalogue, SupportedKernel, load
from workbench.errors import InfraError
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.release import trailers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.paths import Paths


_OWN = "your own repository"


class State(StrEnum):
    """How far a kernel is on its way into the store."""

    IMPORTED = "imported"
    DOWNLOADED = "downloaded"
    PARTLY = "partly downloaded"
    AVAILABLE = "available"
    GONE = "not to be had"


@dataclass(frozen=True)
class Known:
    """One kernel: ``size`` in bytes of its tarball, 0 when nobody said or there is none.

    ``name`` is not the tag's for a tree of the user's own repository. What an
    imported kernel without such a size takes in the store is ``stored``.
    """

    name: str
    tag: KernelTag
    source: str
    state: State
    size: int = 0
    supported: bool = False
    default: bool = False
    stored: int = 0


def survey(paths: Paths) -> tuple[Known, ...]:
    """Return every kernel that is supported, imported, or in a kept index; oldest first.

    Those of the user's own repository come behind the release they are of.
    """
    catalogue, store = load(paths), Store.open(paths)
    gone = archive.gone(paths)
    found: dict[KernelTag, Known] = {}
    offers = archive.known(paths)
    for offer in offers:
        tag = KernelTag.parse(offer.tag)
        state = State.GONE if offer.url in gone else _on_disk(paths, offer.name)
        known = Known(str(tag), tag, f"Debian archive, {offer.suite}", state, offer.size)
        if tag not in found or found[tag].state is State.GONE:
            found[tag] = known
    for kernel in catalogue.supported:
        found[kernel.tag] = _supported(paths, kernel)
    sizes = {offer.sha256: offer.size for offer in offers}
    sizes |= {kernel.sha256: kernel.size for kernel in catalogue.supported}
    own = []
    for name in store.names():
        known, is_meant = _imported(store, name, catalogue, sizes)
        if known.name != str(known.tag):
            own.append(known)
        elif is_meant:
            found[known.tag] = known
    return tuple(sorted((*found.values(), *own), key=lambda known: (known.tag, known.name)))


def _supported(paths: Paths, kernel: SupportedKernel) -> Known:
    state = _on_disk(paths, kernel.tarball)
    source = f"{ORIGINS[kernel.origin].partition(',')[0]}, pinned"
    name = str(kernel.tag)
    return Known(
        name, kernel.tag, source, state, kernel.size, supported=True, default=kernel.default
    )


def _imported(
    store: Store, name: str, catalogue: Catalogue, sizes: Mapping[str, int]
) -> tuple[Known, bool]:
    """Tell of a kernel in the store, and whether it is not of another tarball than is pinned."""
    kernel = store.kernel(name)
    if kernel is None:
        raise InfraError(
            "was imported and is not there",
            where=f"{store.path} {name}",
            next_step="run it again: another run may have written to the store",
        )
    own = name != str(kernel.tag)
    pinned = None if own else catalogue.find(kernel.tag)
    sha256 = trailers(store.cat_file(kernel.commit)).get("Sha256", "")
    size = 0 if own else sizes.get(sha256, 0)
    known = Known(
        name,
        kernel.tag,
        _OWN if own else kernel.origin.partition(",")[0] + (", pinned" if pinned else ""),
        State.IMPORTED,
        size,
        supported=pinned is not None,
        default=pinned is not None and pinned.default,
        stored=0 if size else store.bytes_of(kernel.commit),
    )
    return known, pinned is None or pinned.sha256 == sha256


def _on_disk(paths: Paths, name: str) -> State:
    if (paths.downloads / name).exists():
        return State.DOWNLOADED
    return State.PARTLY if (paths.downloads / f"{name}.part").exists() else State.AVAILABLE
