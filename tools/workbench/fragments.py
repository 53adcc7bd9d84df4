# SPDX-License-Identifier: GPL-2.0-only
"""Configuration fragments: which symbols a trial asks for, and who asked.

A fragment is the kernel's own format (``CONFIG_X=y``, ``# CONFIG_X is not
set``), one symbol a line. A trailing comment may say on which kernels the
line holds (``# since v6.14``, ``# before v5.17``), so that one set of
fragments serves every kernel, and the unpatched one too (``# where known``);
kconfigs/base.config describes it to authors.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError
from workbench.model import KernelTag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from workbench.paths import Paths

PLAIN: Final = "plain"
"""The flavour that adds no fragment."""

LINT_BASE: Final = "base"
"""The file of kconfigs/lint that every patch is compiled with by itself."""

_SYMBOL = r"CONFIG_(?P<symbol>\w+)"
_VALUE = r'(?P<value>[ynm]|-?\d+|0x[0-9a-fA-F]+|"(?:[^"\\]|\\.)*")'
_SET = re.compile(rf"{_SYMBOL}={_VALUE}\s*(?:#\s*(?P<remark>.*))?")
_UNSET = re.compile(rf"#\s*{_SYMBOL} is not set\s*(?:#\s*(?P<remark>.*))?")
# A comment about a symbol is welcome; one that means to unset it and does not is a trap.
_NEARLY_UNSET = re.compile(r"#\s*CONFIG_\w+\s+is\b")
_TAGS = r"v\d[\w.-]*(?:\s*,\s*v\d[\w.-]*)*"
_WHEN = re.compile(
    rf"(?:since\s+(?P<since>{_TAGS}))?\s*(?:before\s+(?P<before>v\d[\w.-]*))?"
    r"\s*(?P<known>where\s+known)?\s*(?:\(.*)?"
)
_NEARLY_WHEN = re.compile(r"(since|before|until|from|after|where)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """One line of a fragment: ``value`` is as .config spells it, ``n`` for "is not set".

    ``fragment`` is the file's path as the user knows it and ``line`` is
    1-based. ``since`` empty and ``before`` None mean every kernel. With
    ``where_known`` a kernel need not have the symbol: the series adds it.
    """

    symbol: str
    value: str
    fragment: str
    line: int
    since: tuple[KernelTag, ...] = ()
    before: KernelTag | None = None
    where_known: bool = False

    @property
    def where(self) -> str:
        """The line's place, as compilers write it."""
        return f"{self.fragment}:{self.line}"

    @property
    def text(self) -> str:
        """The request as the kernel's ``conf`` reads and writes it."""
        if self.value == "n":
            return f"# CONFIG_{self.symbol} is not set"
        return f"CONFIG_{self.symbol}={self.value}"

    def holds_for(self, tag: KernelTag) -> bool:
        """Tell whether the line speaks for this kernel."""
        if self.before is not None and tag.includes(self.before):
            return False
        return not self.since or any(tag.includes(since) for since in self.since)


@dataclass(frozen=True)
class Clash:
    """Two fragments that contradict each other: the later one won."""

    winner: Request
    loser: Request

    def __str__(self) -> str:
        """Return the one line for the log."""
        return (
            f"{self.winner.where}: CONFIG_{self.winner.symbol}={self.winner.value}"
            f" overrides ={self.loser.value} of {self.loser.where}"
        )


@dataclass(frozen=True)
class MergedFragments:
    """What a trial asks for on one kernel: one request a symbol, and the file for ``conf``."""

    requests: tuple[Request, ...]
    clashes: tuple[Clash, ...] = ()

    @property
    def text(self) -> str:
        """The merged fragment, sorted: the order of files does not change what is asked."""
        lines = sorted(request.text for request in self.requests)
        return "".join(f"{line}\n" for line in lines)


def parse(text: str, name: str) -> tuple[Request, ...]:
    """Parse one fragment; UsageError with ``name:line`` for a line that cannot be taken."""
    requests = (_parse_line(line, name, at) for at, line in enumerate(text.splitlines(), 1))
    return tuple(request for request in requests if request is not None)


def merge(layers: Iterable[Sequence[Request]], tag: KernelTag) -> MergedFragments:
    """Merge fragments, later over earlier, keeping what holds for ``tag``.

    The same symbol twice in one file is UsageError: one of the lines is a
    mistake. The same in two files is how a fragment states its own needs;
    only a contradiction is told, as a Clash.
    """
    chosen: dict[str, Request] = {}
    clashes: list[Clash] = []
    for layer in layers:
        for request in layer:
            if not request.holds_for(tag):
                continue
            former = chosen.get(request.symbol)
            if former is not None and former.fragment == request.fragment:
                raise UsageError(
                    f"CONFIG_{request.symbol} is set a second time for {tag}",
                    where=request.where,
                    next_step=f"remove it or line {former.line}",
                )
            if former is not None and former.value != request.value:
                clashes.append(Clash(request, former))
            chosen[request.symbol] = request
    return MergedFragments(tuple(chosen.values()), tuple(clashes))


def files(paths: Paths, *, arch: str, extensions: Sequence[str], flavour: str) -> tuple[Path, ...]:
    """Return the fragments of a trial in their order; UsageError for an unknown name.

    An extension needs no fragment; an architecture and a flavour (but
    ``plain``) are one file each.
    """
    found = [
        _existing(paths.kconfigs, "."),
        _existing(paths.kconfigs, "arch", arch),
    ]
    extra = (paths.kconfigs / "extension" / f"{name}.config" for name in extensions)
    found += [path for path in extra if path.is_file()]
    if flavour != PLAIN:
        found.append(_existing(paths.kconfigs, "flavour", flavour))
    return tuple(found)


def flavours(paths: Paths) -> tuple[str, ...]:
    """Return the names a flavour can have."""
    return (PLAIN, *(name for name in _names(paths.kconfigs / "flavour") if name != PLAIN))


def load(
    paths: Paths, tag: KernelTag, *, arch: str, extensions: Sequence[str], flavour: str
) -> MergedFragments:
    """Read and merge the fragments of a trial."""
    chosen = files(paths, arch=arch, extensions=extensions, flavour=flavour)
    return merge([_read(paths, path) for path in chosen], tag)


def lint_variants(paths: Paths) -> tuple[str, ...]:
    """Return the names of the configurations in kconfigs/lint, ``base`` first."""
    names = _names(paths.kconfigs / "lint")
    return tuple(sorted(names, key=lambda name: (name != LINT_BASE, name)))


def load_lint(
    paths: Paths, tag: KernelTag, *, arch: str, extensions: Sequence[str], variant: str
) -> tuple[MergedFragments, tuple[Request, ...]]:
    """Read what a file of kconfigs/lint makes of the configuration, and what it asks itself."""
    own = _read(paths, _existing(paths.kconfigs, "lint", variant))
    chosen = files(paths, arch=arch, extensions=extensions, flavour=PLAIN)
    merged = merge([*(_read(paths, path) for path in chosen), own], tag)
    return merged, tuple(request for request in own if request.holds_for(tag))


def _read(paths: Paths, path: Path) -> tuple[Request, ...]:
    name = str(path.relative_to(paths.repo)) if path.is_relative_to(paths.repo) else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text", where=name, next_step="write it as UTF-8") from error
    return parse(text, name)


def _parse_line(line: str, name: str, at: int) -> Request | None:
    stripped = line.strip()
    match = _SET.fullmatch(stripped) or _UNSET.fullmatch(stripped)
    where = f"{name}:{at}"
    if match is None:
        if not stripped or (stripped.startswith("#") and not _NEARLY_UNSET.match(stripped)):
            return None
        raise UsageError(
            f"cannot read {stripped!r}",
            where=where,
            next_step="write CONFIG_NAME=value or '# CONFIG_NAME is not set', one a line",
        )
    since, before, known = _parse_when(match["remark"] or "", where)
    value = match.groupdict().get("value") or "n"
    return Request(match["symbol"], value, name, at, since, before, known)


def _parse_when(remark: str, where: str) -> tuple[tuple[KernelTag, ...], KernelTag | None, bool]:
    match = _WHEN.fullmatch(remark.strip())
    if match is None:
        if _NEARLY_WHEN.match(remark.strip()):
            raise UsageError(
                f"cannot read the condition {remark.strip()!r}",
                where=where,
                next_step="write '# since v6.14', '# before v5.17' or '# where known', "
                "a remark after it in ()",
            )
        return (), None, False
    try:
        since = tuple(KernelTag.parse(tag) for tag in re.findall(r"v[^\s,]+", match["since"] or ""))
        before = KernelTag.parse(match["before"]) if match["before"] else None
    except UsageError as error:
        raise UsageError(error.what, where=where, next_step=error.next_step) from error
    return since, before, match["known"] is not None


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.config"))


def _existing(kconfigs: Path, folder: str, name: str = "base") -> Path:
    path = kconfigs / folder / f"{name}.config"
    if path.is_file():
        return path
    known = _names(kconfigs / folder)
    if folder == "flavour":
        known.insert(0, PLAIN)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    what = {"flavour": "flavour", "arch": "architecture"}.get(folder, "fragment")
    raise UsageError(f"no {what} {name!r} in {kconfigs / folder}", next_step=hint)
