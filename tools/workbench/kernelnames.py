# SPDX-License-Identifier: GPL-2.0-only
"""The names of kernels that mean something here: supported, imported, the user's own.

Nobody is asked: what a source elsewhere has is not among them.
"""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING

from workbench import catalogue
from workbench.errors import UsageError
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.release import trailers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.catalogue import SupportedKernel
    from workbench.model import Kernel
    from workbench.paths import Paths


def known(paths: Paths) -> tuple[str, ...]:
    """Return the supported kernels, oldest first, then the others of the store by name."""
    names = [str(each.tag) for each in catalogue.load(paths).supported]
    if (paths.store / "HEAD").exists():  # looking shall not make a store
        names += sorted(Store.open(paths).names())
    return tuple(dict.fromkeys(names))


def parse(paths: Paths, name: str) -> KernelTag:
    """Read a release's name; UsageError for one that is none, with the nearest known."""
    try:
        return KernelTag.parse(name)
    except UsageError as error:
        near: list[str] = []
        with contextlib.suppress(UsageError):  # the name is what is wrong, not what could help
            near = difflib.get_close_matches(name, known(paths), n=1)
        hint = f"did you mean {near[0]!r}? Else " if near else ""
        raise UsageError(error.what, next_step=hint + error.next_step) from error


def is_meant(word: str, name: str) -> bool:
    """Tell whether a user's word is the name of a kernel, however its tag is spelt."""
    with contextlib.suppress(UsageError):
        word = str(KernelTag.parse(word))
    return word == name


def here(paths: Paths, name: str) -> Kernel | None:
    """Return a kernel of the store by its name, however its tag is spelt; None if not there.

    One whose tarball is not the one patches/kernels.toml pins now is not the
    kernel that is meant. UsageError for a name no source could know.
    """
    if not (paths.store / "HEAD").exists():
        parse(paths, name)
        return None
    store = Store.open(paths)
    found = store.kernel(name)
    tag = parse(paths, name) if found is None else found.tag
    if found is None or found.name == str(tag):
        return imported(store, tag, catalogue.load(paths).find(tag))
    return found


def release_of(paths: Paths, kernel: Kernel, files: Iterable[str]) -> Kernel:
    """Return the release whose ``files`` a kernel has: itself, or that its Makefile names.

    Others find a kernel by its release only. UsageError when one of the
    user's own has files of its own, or the release is not there to compare.
    """
    if kernel.name == str(kernel.tag):
        return kernel
    release = here(paths, str(kernel.tag))
    if release is None:
        raise UsageError(
            f"is no release, and {kernel.tag} is not here to see whether its files are the same",
            where=kernel.name,
            next_step=f"run 'kpw fetch {kernel.tag}', then this again",
        )
    specs = (f":(literal){path}" for path in files)
    words = ("-r", "-z", "--name-only", kernel.tree, release.tree)
    own = Store.open(paths).git("diff-tree", *words, "--", *specs).split("\0")[0]
    if own:
        raise UsageError(
            f"its {own} is not that of {kernel.tag}, and only a release can be found again",
            where=kernel.name,
            next_step=f"settle and save it for {kernel.tag}, "
            f"or take the series as it is with 'kpw export {kernel.name}'",
        )
    return release


def imported(store: Store, tag: KernelTag, pinned: SupportedKernel | None) -> Kernel | None:
    """Return the imported kernel of a tag, unless the catalogue now pins another tarball."""
    kernel = store.kernel(str(tag))
    if kernel and pinned and trailers(store.cat_file(kernel.commit)).get("Sha256") != pinned.sha256:
        return None
    return kernel
