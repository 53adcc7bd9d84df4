# SPDX-License-Identifier: GPL-2.0-only
"""The modules of a kernel whose configuration has any: made with it, kept beside it.

A guest gets them with its payload; the image, which all kernels share, has none.
"""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from workbench import process

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.configure import Workplace
    from workbench.fragments import MergedFragments
    from workbench.recipe import Recipe

FOLDER: Final = "modules"
"""Where they lie, beside a kernel in the cache and in a guest's payload."""


def goals(recipe: Recipe, merged: MergedFragments) -> tuple[str, ...]:
    """Return what make is to make; what is asked for is what comes out, or the build fails."""
    asked = {request.symbol: request.value for request in merged.requests}
    return (recipe.target, "modules") if asked.get("MODULES") == "y" else (recipe.target,)


def stripped(place: Workplace) -> dict[str, Path]:
    """Strip the modules that a make of these goals left of what a debugger reads.

    Return copies in the output directory, by ``modules/<name>.ko``, the name
    spelled as the kernel spells it. InfraError when one cannot be read.
    """
    folder = place.out / ".kpw-modules"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # In 6.1 it names the modules, in 6.12 the objects they are linked from.
    listed = (place.out / "modules.order").read_text(encoding="utf-8").split()
    found = {}
    for name in listed:
        origin = PurePosixPath(name).with_suffix(".ko")
        target = folder / origin.name.replace("-", "_")
        argv = (f"{place.recipe.cross_compile}strip", "--strip-debug", "-o", target, str(origin))
        process.run(place.inside(argv, cwd=place.out), env=place.environment())
        found[f"{FOLDER}/{target.name}"] = target
    return found
