# SPDX-License-Identifier: GPL-2.0-only
"""Read patches/<name>/: the directory listing is the registry.

A folder under patches/ that holds an ``extension.toml`` is an extension; its
name (lower case, digits, dashes) is how users spell it::

    patches/spi-timeout/
        extension.toml
        0001-xfrm-let-an-SPI-expire.patch    canonical, made on `base`
        0002-....patch
        since-v6.12/0001-....patch           replaces 0001 on v6.12 and later
        since-v6.12.90/0002-....patch        replaces 0002 on v6.12.90 and later 6.12.y

``extension.toml`` (a key that is not listed here is refused)::

    # SPDX-License-Identifier: GPL-2.0-only
    id = "E2"                       # required; orders extensions that do not require each other
    summary = "one line"            # required
    base = "v5.10.262"              # tag of the canonical patches; required when there are any
    requires = ["other-extension"]  # applied before this one
    upstream_since = ["v4.19"]      # tags from which the feature needs no patch
    uapi = "what user space sees: attribute, sysctl, ... (one line)"
    reached_by = "who sets it: strongSwan option, ip command, ... (one line)"

    [lint_not_applicable]           # files of kconfigs/lint it need not build with
    no-ipv6 = "the reason, in one line"

    [variants."v6.12"]              # exactly one table for each since-v6.12/ folder
    base = "v6.12.107"              # the tag this folder's patches were made on

Patches are ``git format-patch --full-index`` mails named ``NNNN-subject.patch``;
the number is the order and, in a ``since-`` folder, says which one is
replaced (a number the canonical patches do not have is added). Of several
folders that speak for a tag the youngest wins, patch by patch. The bases are
what a 3-way merge starts from, so each must be a tag that 'kpw fetch' can
bring; patch N of a folder is understood to stand on patches 1..N-1 as they
are chosen for that folder's base.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import msgspec

from workbench.errors import UsageError
from workbench.model import Extension, KernelTag, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from workbench.paths import Paths

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PATCH_NAME = re.compile(r"(\d{4})-[^/]+\.patch")
_SINCE = "since-"
_DESCRIPTION = "extension.toml"


class _Variant(msgspec.Struct, forbid_unknown_fields=True):
    base: str


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of extension.toml."""

    id: str
    summary: str
    base: str | None = None
    requires: list[str] = []
    upstream_since: list[str] = []
    uapi: str = ""
    reached_by: str = ""
    variants: dict[str, _Variant] = {}
    lint_not_applicable: dict[str, str] = {}


def load_extensions(paths: Paths) -> tuple[Extension, ...]:
    """Read every extension, required ones first, else by id; UsageError names file and key."""
    folders = sorted(entry for entry in _listing(paths.patches) if entry.is_dir())
    found = [_load(folder) for folder in folders if _is_extension(folder)]
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
        raise UsageError(f"{clash[0]} is both asked for and left out")
    chosen = tuple(extension for extension in extensions if extension.name in kept)
    for extension in chosen:
        if missing := sorted(set(extension.requires) & left_out):
            raise UsageError(
                f"{extension.name} requires {missing[0]}",
                next_step=f"leave out both (--without {missing[0]} --without {extension.name})",
            )
    return chosen


def patches_for(extension: Extension, tag: KernelTag) -> tuple[tuple[Path, KernelTag], ...]:
    """Return the patch files for one kernel, in order, each with the tag it was made on."""
    if extension.base is None or extension.is_upstream(tag):
        return ()
    chosen = {patch_number(path): (path, extension.base) for path in extension.patches}
    for variant in sorted(extension.variants, key=lambda each: each.since):
        if tag.includes(variant.since):
            chosen |= {patch_number(path): (path, variant.base) for path in variant.patches}
    return tuple(chosen[number] for number in sorted(chosen))


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


def patch_number(path: Path) -> str:
    """Return the four digits a patch's file name starts with."""
    return path.name[:4]


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(folder),
            next_step="run kpw from a whole checkout",
        ) from error


def _is_extension(folder: Path) -> bool:
    """Tell an extension from what a branch switch left behind (an empty folder)."""
    if (folder / _DESCRIPTION).is_file():
        return True
    if not any(folder.rglob("*.patch")):
        return False
    raise UsageError(
        f"there are patches but no {_DESCRIPTION}",
        where=str(folder),
        next_step=f"write {_DESCRIPTION} beside them (CONTRIBUTING.md says how)",
    )


def _load(folder: Path) -> Extension:
    where = folder / _DESCRIPTION
    if _NAME.fullmatch(folder.name) is None:
        raise UsageError(
            "an extension's name is lower case letters, digits and single dashes",
            where=str(folder),
            next_step="rename the folder",
        )
    read = _decode(where)
    patches = _patch_files(folder)
    if patches and read.base is None:
        raise _fault(where, "base", "missing, though there are patches")
    return Extension(
        name=folder.name,
        id=_filled(where, "id", read.id),
        summary=_filled(where, "summary", read.summary),
        base=None if read.base is None else _tag(where, "base", read.base),
        patches=patches,
        variants=_variants(folder, read),
        upstream_since=tuple(_tag(where, "upstream_since", text) for text in read.upstream_since),
        requires=tuple(read.requires),
        uapi=read.uapi,
        reached_by=read.reached_by,
        lint_not_applicable=tuple(
            (variant, _filled(where, f"lint_not_applicable.{variant}", reason))
            for variant, reason in read.lint_not_applicable.items()
        ),
    )


def _decode(where: Path) -> _Description:
    try:
        return msgspec.toml.decode(where.read_bytes(), type=_Description)
    except msgspec.ValidationError as error:
        keys = ", ".join(_Description.__struct_fields__)
        raise UsageError(
            str(error).replace("`$.", "`"), where=str(where), next_step=f"the keys are {keys}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"not TOML: {error}", where=str(where), next_step="mend that line"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(where)) from error


def _variants(folder: Path, read: _Description) -> tuple[Variant, ...]:
    """Match since- folders with their tables: each must have the other."""
    where = folder / _DESCRIPTION
    bases = {
        _tag(where, f'variants."{since}"', since): _tag(
            where, f'variants."{since}".base', table.base
        )
        for since, table in read.variants.items()
    }
    found = []
    for entry in sorted(each for each in _listing(folder) if each.is_dir()):
        since = _since(entry)
        if since not in bases:
            raise _fault(where, f'variants."{since}"', f"missing for the folder {entry.name}/")
        if read.base is None:
            raise _fault(where, "base", f"missing, though there is {entry.name}/")
        base = bases.pop(since)
        if not base.includes(since):
            raise _fault(where, f'variants."{since}".base', f"{since} does not speak for {base}")
        found.append(Variant(since, base, _patch_files(entry)))
    for since in bases:
        raise _fault(where, f'variants."{since}"', f"there is no folder {_SINCE}{since}/")
    return tuple(sorted(found, key=lambda variant: variant.since))


def _since(folder: Path) -> KernelTag:
    if not folder.name.startswith(_SINCE):
        raise UsageError(
            "a folder in an extension is named since-<tag>",
            where=str(folder),
            next_step="rename it, as in since-v6.12",
        )
    return _tag(folder, "", folder.name.removeprefix(_SINCE))


def _patch_files(folder: Path) -> tuple[Path, ...]:
    by_number: dict[str, Path] = {}
    for path in sorted(folder.glob("*.patch")):
        if _PATCH_NAME.fullmatch(path.name) is None:
            raise UsageError(
                "a patch's file name starts with its number",
                where=str(path),
                next_step="name it NNNN-subject.patch, as git format-patch does",
            )
        other = by_number.setdefault(patch_number(path), path)
        if other != path:
            raise UsageError(
                f"{other.name} has the same number", where=str(path), next_step="renumber one"
            )
    return tuple(by_number.values())


def _tag(where: Path, key: str, text: str) -> KernelTag:
    try:
        return KernelTag.parse(text)
    except UsageError as error:
        raise _fault(where, key, error.what) from error


def _filled(where: Path, key: str, text: str) -> str:
    if not text.strip() or "\n" in text.strip():
        raise _fault(where, key, "one line is needed")
    return text.strip()


def _fault(where: Path, key: str, what: str) -> UsageError:
    return UsageError(
        f"{key}: {what}" if key else what, where=str(where), next_step="mend it there"
    )


def _check_unique_ids(patches: Path, extensions: Sequence[Extension]) -> None:
    """Ids and names share one namespace: both may be given to --only."""
    seen: dict[str, Extension] = {}
    for extension in extensions:
        for name in _names(extension):
            other = seen.setdefault(name, extension)
            if other is not extension:
                where = patches / extension.name / _DESCRIPTION
                raise _fault(where, "id", f"{name!r} already means {other.name}")


def _in_order(patches: Path, extensions: Sequence[Extension]) -> tuple[Extension, ...]:
    by_name = {extension.name: extension for extension in extensions}
    for extension in extensions:
        for name in extension.requires:
            if name not in by_name:
                where = patches / extension.name / _DESCRIPTION
                raise _fault(
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
