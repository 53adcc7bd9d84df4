# SPDX-License-Identifier: GPL-2.0-only
"""The registry of extensions: the listing of patches/, their order, and who is asked for.

A folder under patches/ that holds an ``extension.toml`` is an extension; its
name (lower case, digits, dashes) is how users spell it. What is in such a
folder is told in :mod:`workbench.description`.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from workbench.description import DESCRIPTION, fault, listing, load, patch_number
from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from workbench.declared import Extension, Restore
    from workbench.model import KernelTag
    from workbench.paths import Paths


def load_extensions(paths: Paths) -> tuple[Extension, ...]:
    """Read every extension, required ones first, else by id; UsageError names file and key."""
    folders = sorted(entry for entry in listing(paths.patches) if entry.is_dir())
    found = [load(folder) for folder in folders if _is_extension(folder)]
    _check_unique_ids(paths.patches, found)
    return _in_order(paths.patches, found)


def select(
    extensions: Sequence[Extension], only: Iterable[str] = (), without: Iterable[str] = ()
) -> tuple[Extension, ...]:
    """Choose by name or id, keeping the order.

    ``only`` (empty: all) brings what it requires with it. UsageError for an
    unknown name, or when something left out is required by something kept.
    """
    named = {name: extension for extension in extensions for name in _names(extension)}
    left_out = {_lookup(named, name).name for name in without}
    wanted = {_lookup(named, name).name for name in only}
    kept = {extension.name for extension in extensions}
    if wanted:
        kept = {each.name for name in wanted for each in with_required(extensions, named[name])}
    kept -= left_out - wanted
    if clash := sorted(wanted & left_out):
        raise UsageError(
            f"{clash[0]} is both asked for and left out",
            next_step="name it in one of --only and --without",
        )
    chosen = tuple(extension for extension in extensions if extension.name in kept)
    for extension in chosen:
        if missing := sorted(set(extension.requires) & left_out):
            raise UsageError(
                f"{extension.name} requires {missing[0]}",
                next_step=f"leave out both (--without {missing[0]} --without {extension.name})",
            )
    return chosen


def find(extensions: Sequence[Extension], name: str) -> Extension:
    """Return an extension by its name or id; UsageError for an unknown one, with the nearest."""
    return _lookup({each: one for one in extensions for each in _names(one)}, name)


def patches_for(extension: Extension, tag: KernelTag) -> tuple[tuple[Path, KernelTag], ...]:
    """Return the patch files for one kernel, in order, each with the tag it was made on."""
    if extension.base is None or extension.is_upstream(tag):
        return ()
    chosen = {patch_number(path): (path, extension.base) for path in extension.patches}
    for variant in sorted(extension.variants, key=lambda each: each.since):
        if tag.includes(variant.since):
            chosen |= {patch_number(path): (path, variant.base) for path in variant.patches}
    return tuple(chosen[number] for number in sorted(chosen))


def restores_for(extension: Extension, tag: KernelTag) -> tuple[Restore, ...]:
    """Return what comes back on one kernel before the extension's first patch."""
    if extension.is_upstream(tag):
        return ()
    return tuple(each for each in extension.restores if tag.includes(each.since))


def with_required(extensions: Sequence[Extension], extension: Extension) -> tuple[Extension, ...]:
    """Return an extension after all it requires; those not among ``extensions`` are left out."""
    named = {each.name: each for each in extensions}
    reached: set[str] = set()
    todo = [extension.name]
    while todo:
        name = todo.pop()
        if name in named and name not in reached:
            reached.add(name)
            todo.extend(named[name].requires)
    return tuple(each for each in extensions if each.name in reached)


def _is_extension(folder: Path) -> bool:
    """Tell an extension from what a branch switch left behind (an empty folder)."""
    if (folder / DESCRIPTION).is_file():
        return True
    if not any(folder.rglob("*.patch")):
        return False
    raise UsageError(
        f"there are patches but no {DESCRIPTION}",
        where=str(folder),
        next_step=f"write {DESCRIPTION} beside them (CONTRIBUTING.md says how)",
    )


def _check_unique_ids(patches: Path, extensions: Sequence[Extension]) -> None:
    """Ids and names share one namespace: both may be given to --only."""
    seen: dict[str, Extension] = {}
    for extension in extensions:
        for name in _names(extension):
            other = seen.setdefault(name, extension)
            if other is not extension:
                where = patches / extension.name / DESCRIPTION
                raise fault(where, "id", f"{name!r} already means {other.name}")


def _in_order(patches: Path, extensions: Sequence[Extension]) -> tuple[Extension, ...]:
    by_name = {extension.name: extension for extension in extensions}
    for extension in extensions:
        for name in extension.requires:
            if name not in by_name:
                where = patches / extension.name / DESCRIPTION
                raise fault(
                    where, "requires", f"there is no extension {name!r}{_like(name, by_name)}"
                )
    sorter = TopologicalSorter({name: by_name[name].requires for name in by_name})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise UsageError(
            f"extensions require each other: {circle}",
            where=str(patches),
            next_step="take one 'requires' out",
        ) from error
    ordered: list[Extension] = []
    waiting: set[str] = set()
    while sorter.is_active():
        waiting.update(sorter.get_ready())
        name = min(waiting, key=lambda each: _id_key(by_name[each]))
        waiting.remove(name)
        ordered.append(by_name[name])
        sorter.done(name)
    return tuple(ordered)


def _id_key(extension: Extension) -> tuple[list[tuple[int, str]], str]:
    """Sort E2 before E10."""
    parts = re.findall(r"\d+|\D+", extension.id)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], extension.name


def _names(extension: Extension) -> set[str]:
    return {extension.name, extension.id.lower()}


def _lookup(named: dict[str, Extension], name: str) -> Extension:
    found = named.get(name.lower())
    if found is None:
        known = ", ".join(dict.fromkeys(each.name for each in named.values())) or "none"
        raise UsageError(
            f"there is no extension {name!r}{_like(name, named)}", next_step=f"there are: {known}"
        )
    return found


def _like(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
