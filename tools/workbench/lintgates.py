# SPDX-License-Identifier: GPL-2.0-only
"""The gates that compile: each patch by itself, and the whole series in each variant."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from workbench import buildlog, diagnostics, touched
from workbench.errors import InfraError
from workbench.fragments import LINT_BASE
from workbench.gates import BUILDS, COMPILED, SPARSE, WARNINGS, Finding, GateResult, GateState
from workbench.lintmake import Broken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.diagnostics import Diagnostic
    from workbench.kobjects import ConfiguredObjects
    from workbench.lintmake import HeldBench
    from workbench.sparse import Sparse
    from workbench.touched import Touched

_PLACE = re.compile(r"(?P<path>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?P<text>.*)")

# Sparse counts to a hundred errors and says no more; its warnings have no such end.
_GAVE_UP: Final = "error: too many errors"


@dataclass(frozen=True)
class Change:
    """One patch as it is on one kernel: the trees before and after it, and what differs.

    ``restored`` are upstream's files its extension brought back before, which
    no Makefile names until a patch does; ``wired_later`` tells that a later
    patch of the extension is about Makefiles.
    """

    before: str
    after: str
    touched: Touched
    restored: frozenset[str] = frozenset()
    wired_later: bool = False

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The files of it that are compiled; what a Makefile of it may have wired in is."""
        wired = self.restored if self.touches_makefile else ()
        return touched.sources(sorted({*self.touched.lines, *wired}))

    @property
    def touches_makefile(self) -> bool:
        """Tell whether it is about what is built."""
        return any(map(touched.is_makefile, self.touched.lines))

    @property
    def key(self) -> tuple[str, ...]:
        """What the gates that compile it depend on."""
        waits = (*sorted(self.restored), str(self.wired_later)) if self.restored else ()
        return self.before, self.after, *waits

    @cached_property
    def headers(self) -> tuple[str, ...]:
        """The files of it that others include, or did."""
        return touched.headers(sorted((*self.touched.lines, *self.touched.gone)))

    @property
    def is_compiled(self) -> bool:
        """Tell whether there is anything for a compiler in it."""
        return bool(self.sources or self.headers)


@dataclass(frozen=True)
class _Look:
    """What compiler and checker say of some sources in one tree."""

    configured: ConfiguredObjects | None = None
    objects: tuple[str, ...] = ()
    said: tuple[Diagnostic, ...] = ()
    checked: tuple[Diagnostic, ...] = ()
    broken: Broken | None = None


def alone(held: HeldBench, change: Change, sparse: Sparse) -> tuple[GateResult, ...]:
    """Compile what a patch touches before and after it: whether it builds, and what is new."""
    if not change.is_compiled:
        what = f"nothing for a compiler in {', '.join(sorted(change.touched.lines))}"
        return tuple(GateResult(gate, GateState.NOTHING, what) for gate in COMPILED)
    held.switch(change.before)
    before = _look(held, _sources(held, change), sparse)
    held.switch(change.after)
    after = _look(held, _sources(held, change), sparse)
    compared = (
        _compared(WARNINGS, before, after, change),
        _compared(SPARSE, before, after, change),
    )
    return (_builds(held, change, after), *compared)


def variant(held: HeldBench, name: str, changes: Sequence[Change]) -> tuple[GateResult, ...]:
    """Compile in the tree that is there what each patch touches; a result for each."""
    objects = held.configured(name)
    if isinstance(objects, Broken):
        return tuple(_broken(name, (objects,)) for _ in changes)
    wanted = [objects.among(_all_objects(held, change)) for change in changes]
    made = held.make(name, sorted({each for some in wanted for each in some}))
    results = []
    for some in wanted:
        broken = [made.broken[each] for each in some if each in made.broken]
        if broken:
            results.append(_broken(name, broken))
        elif some:
            results.append(GateResult(name, GateState.OK, f"{len(some)} objects"))
        else:
            results.append(GateResult(name, GateState.NOTHING, "nothing of it is built with this"))
    return tuple(results)


def linked(
    held: HeldBench, results: tuple[GateResult, ...], exempt: Sequence[str]
) -> tuple[GateResult, ...]:
    """Link the kernel of a variant after its objects were compiled, and add what came of it.

    A symbol that nothing has is the whole series' affair, so every patch is
    told of it; one that did not compile keeps its own reason. The kernel has
    the extensions that are ``exempt``, too: with any it need not link.
    """
    if all(result.state is GateState.BROKEN for result in results):
        return results
    if exempt:
        told = f"not linked: it need not build with {', '.join(exempt)}"
        return tuple(_also(result, told) for result in results)
    name = results[0].gate
    held.begin(f"linking with {name}")
    broken = held.link(name)
    if broken is None:
        return tuple(_also(result, "the kernel links") for result in results)
    failed = _broken(name, (broken,))
    return tuple(each if each.state is GateState.BROKEN else failed for each in results)


def _also(result: GateResult, told: str) -> GateResult:
    return replace(result, detail=f"{result.detail}; {told}")


def _sources(held: HeldBench, change: Change) -> tuple[str, ...]:
    """Return what is looked at closely: a header alone is seen through those who include it."""
    return change.sources or touched.includers(held.src, change.headers)


def _all_objects(held: HeldBench, change: Change) -> set[str]:
    there = (each for each in change.sources if (held.src / each).is_file())
    return set(map(touched.object_of, (*there, *touched.includers(held.src, change.headers))))


def _look(held: HeldBench, sources: Iterable[str], sparse: Sparse) -> _Look:
    there = {touched.object_of(each): each for each in sources if (held.src / each).is_file()}
    configured = held.configured(LINT_BASE)
    if isinstance(configured, Broken):
        return _Look(broken=configured)
    objects = configured.among(there)
    made = held.make(LINT_BASE, objects, "W=1", again=True)
    if made.broken:
        return _Look(configured, objects, broken=next(iter(made.broken.values())))
    _require(objects, _compiled(made.log), "make did not compile")
    made_again = held.make(LINT_BASE, objects, "W=1", *sparse.words)
    if made_again.broken:
        return _Look(configured, objects, broken=next(iter(made_again.broken.values())))
    if gave_up := [line for line in made_again.log.splitlines() if _GAVE_UP in line]:
        raise InfraError(
            f"sparse gave up, so that its silence says nothing: {gave_up[0]}",
            next_step="try a newer sparse, or leave the file's extension out with --without",
        )
    source = str(held.src)
    expected = [there[each] for each in objects if there[each].endswith(".c")]
    _require(expected, diagnostics.checked(made_again.log, source), "make did not run sparse on")
    return _Look(
        configured,
        objects,
        diagnostics.read(made.log, source),
        diagnostics.read(made_again.log, source),
    )


def _compiled(log: str) -> set[str]:
    return {name for line in log.splitlines() if (name := buildlog.compiled_file(line.rstrip()))}


def _require(expected: Iterable[str], seen: Iterable[str], what: str) -> None:
    """Take silence for what it is."""
    if missing := sorted(set(expected) - set(seen)):
        raise InfraError(
            f"{what} {missing[0]}, so that its silence says nothing",
            next_step="'tools/kpw doctor' looks for the programs a kernel build needs",
        )


def _builds(held: HeldBench, change: Change, after: _Look) -> GateResult:
    if after.broken is not None or after.configured is None:
        return _broken(BUILDS, (after.broken or Broken("it was not configured"),))
    users = set(after.configured.among(_all_objects(held, change))) - set(after.objects)
    made = held.make(LINT_BASE, sorted(users))
    if made.broken:
        return _broken(BUILDS, tuple(made.broken.values()))
    unseen = {path for path in change.sources if touched.object_of(path) not in after.objects}
    waiting = unseen & change.restored if change.wired_later else set()
    blind = tuple(
        Finding(path, 0, f"{held.why_not_built(LINT_BASE, path)}: nothing is known")
        for path in sorted(unseen - waiting)
    )
    if waiting and not (blind or after.objects or users):
        what = f"restored, and in no Makefile yet: {', '.join(sorted(waiting))}"
        return GateResult(BUILDS, GateState.NOTHING, what)
    if blind or not (after.objects or users):
        what = "not all of it is compiled" if after.objects else "none of it is compiled"
        return GateResult(BUILDS, GateState.FOUND, what, blind)
    more = f", {len(users)} that include what it touches" if users else ""
    return GateResult(BUILDS, GateState.OK, f"{len(after.objects)} objects{more}")


def _compared(gate: str, before: _Look, after: _Look, change: Change) -> GateResult:
    """Say what is new; a tree that does not build has no silence to compare with."""
    if after.broken is not None:
        return GateResult(gate, GateState.BROKEN, "not compared: it does not build")
    if before.broken is not None:
        return GateResult(gate, GateState.BROKEN, "not compared: the tree before does not build")
    if not after.objects:
        return GateResult(gate, GateState.NOTHING, "nothing of it is compiled")
    old, now = (look.said if gate == WARNINGS else look.checked for look in (before, after))
    found = diagnostics.new(old, now, change.touched.lines)
    if found:
        findings = tuple(Finding(each.path, each.line, each.text) for each in found)
        return GateResult(gate, GateState.FOUND, f"{len(found)} new", findings)
    known = sum(each.path in change.touched.lines for each in now)
    told = f" ({known} were there before)" if known else ""
    return GateResult(gate, GateState.OK, f"nothing new{told}")


def _broken(gate: str, all_broken: Sequence[Broken]) -> GateResult:
    each_once = tuple(dict.fromkeys(all_broken))
    first = each_once[0]
    more = f" (and {len(each_once) - 1} more)" if len(each_once) > 1 else ""
    findings = tuple(dict.fromkeys(map(_finding, each_once)))
    return GateResult(gate, GateState.BROKEN, first.reason + more, findings, first.excerpt)


def _finding(broken: Broken) -> Finding:
    match = _PLACE.fullmatch(broken.reason)
    if match is None:
        return Finding("", 0, broken.reason)
    return Finding(match["path"], int(match["line"]), match["text"])
