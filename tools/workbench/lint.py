# SPDX-License-Identifier: GPL-2.0-only
"""The tree's own gates, on every patch as it comes out of the rebase.

Each patch: checkpatch --strict of that tree; whether what it touches builds
on the tree up to it; what W=1 and sparse say that they did not say before it.
The whole series: whether what the patches touch builds in each variant of
kconfigs/lint, and whether its kernel links when that is asked for. What was
found before from the same contents is not done again.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench import checkpatch, fragments, lintcache, lintgates, sandbox, toolchain, touched
from workbench import sparse as sparse_program
from workbench.errors import UsageError
from workbench.gates import CHECKPATCH, COMPILED, GateResult, GateState, KernelLint, PatchLint
from workbench.lintgates import Change
from workbench.lintmake import Bench
from workbench.model import PatchState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.lintmake import HeldBench
    from workbench.model import PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress


def lint(
    paths: Paths,
    store: Store,
    series: RebasedSeries,
    extensions: Sequence[Extension],
    progress: Progress,
    *,
    arch: str,
    link: bool = False,
) -> KernelLint:
    """Put every patch of a rebased series through every gate.

    ``extensions`` are those of the series. With ``link`` the kernel of each
    variant is made whole, that of the base, too: minutes each. InfraError when the machine fails,
    or a program says nothing where it must have looked.
    """
    began = time.monotonic()
    tried = fragments.lint_variants(paths) if link else variants(paths)
    gates = (CHECKPATCH, *COMPILED, *tried)
    exempt = exemptions(paths, extensions)
    bench = Bench.make(paths, store, series.kernel, arch, progress)
    with contextlib.ExitStack() as stack:
        work = _Work(bench, stack, series)
        for outcome in series.outcomes:
            work.alone(outcome)
        for variant in tried:
            work.variant(variant, exempt, link=link)
        patches = tuple(work.told(outcome, gates) for outcome in series.outcomes)
    named = {outcome.extension for outcome in series.outcomes}
    return KernelLint(
        kernel=series.kernel,
        gates=gates,
        patches=patches,
        upstream=tuple(name for name in series.extensions if name not in named),
        notes=tuple(filter(None, (work.sparse.note if work.compiles else "",))),
        cached=work.cached,
        seconds=time.monotonic() - began,
    )


def variants(paths: Paths) -> tuple[str, ...]:
    """Return the configurations the whole series must build with."""
    return tuple(name for name in fragments.lint_variants(paths) if name != fragments.LINT_BASE)


def exemptions(paths: Paths, extensions: Sequence[Extension]) -> Mapping[tuple[str, str], str]:
    """Return (extension, variant) -> reason; UsageError for a variant there is not."""
    known = variants(paths)
    found = {}
    for extension in extensions:
        for name, reason in extension.lint_not_applicable:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
                raise UsageError(
                    f"lint_not_applicable: there is no variant {name!r}",
                    where=str(paths.patches / extension.name / "extension.toml"),
                    next_step=hint,
                )
            found[extension.name, name] = reason
    return found


@dataclass(frozen=True)
class _Patch:
    """A patch that is in the series."""

    outcome: PatchOutcome
    commit: str
    change: Change

    @property
    def label(self) -> str:
        return f"{self.outcome.extension}/{self.outcome.patch}"


class _Work:
    """Goes through one kernel's patches; takes hold of its directory when there is work."""

    def __init__(self, bench: Bench, stack: contextlib.ExitStack, series: RebasedSeries) -> None:
        self.sparse = sparse_program.find()
        self.cached = 0
        self._bench = bench
        self._stack = stack
        self._held: HeldBench | None = None
        self._series = series
        self._patches = {patch.outcome: patch for patch in _patches(bench.store, series)}
        self._results: dict[tuple[PatchOutcome, str], GateResult] = {}

    @property
    def compiles(self) -> bool:
        """Tell whether a patch has anything for the compiler in it."""
        return any(patch.change.is_compiled for patch in self._patches.values())

    def alone(self, outcome: PatchOutcome) -> None:
        """Put one patch through the gates that look at it alone."""
        patch = self._patches.get(outcome)
        if patch is None:
            return
        change = patch.change
        mail = checkpatch.mail(self._bench.store, patch.commit)
        digest = hashlib.sha256(mail).hexdigest()

        def check(held: HeldBench) -> tuple[GateResult, ...]:
            held.begin(f"{CHECKPATCH} on {patch.label}")
            held.switch(change.before)
            return (checkpatch.run(held.place(fragments.LINT_BASE), mail),)

        def build(held: HeldBench) -> tuple[GateResult, ...]:
            held.begin(f"compiling {patch.label}")
            return lintgates.alone(held, change, self.sparse)

        key = lintcache.key((CHECKPATCH, change.before, digest, checkpatch.identity()))
        self._store([outcome], key, (CHECKPATCH,), check)
        asked = (*self.sparse.words, self.sparse.version)
        key = self._key(fragments.LINT_BASE, *change.key, *asked)
        self._store([outcome] * len(COMPILED), key, COMPILED, build)

    def variant(
        self, name: str, exempt: Mapping[tuple[str, str], str], *, link: bool = False
    ) -> None:
        """Build what the patches touch in one variant, those that are exempt aside."""
        asked = []
        others: dict[str, None] = {}
        for outcome in self._patches:
            reason = exempt.get((outcome.extension, name))
            if reason is None:
                asked.append(outcome)
            else:
                others[outcome.extension] = None
                result = GateResult(name, GateState.EXEMPT, reason)
                self._results[outcome, name] = result
        changes = [self._patches[outcome].change for outcome in asked]
        if not changes:
            return

        def build(held: HeldBench) -> tuple[GateResult, ...]:
            held.begin(f"compiling with {name}")
            held.switch(self._series.tree)
            results = lintgates.variant(held, name, changes)
            return lintgates.linked(held, results, tuple(others)) if link else results

        parts = [part for change in changes for part in change.key]
        if link:
            parts += ["link", self._bench.recipe.target, *others]
        key = self._key(name, self._series.tree, *parts)
        self._store(asked, key, [name] * len(asked), build)

    def told(self, outcome: PatchOutcome, gates: Sequence[str]) -> PatchLint:
        """Return what was found about a patch, or why nothing could be."""
        if outcome in self._patches:
            results = tuple(self._results[outcome, gate] for gate in gates)
        else:
            lost = not outcome.state.applies
            state = GateState.CONFLICT if lost else GateState.NOTHING
            why = f"'kpw rebase {self._series.kernel.name}' tells why" if lost else outcome.detail
            detail = f"{outcome.state}: {why}" if why else str(outcome.state)
            results = tuple(GateResult(gate, state, detail) for gate in gates)
        return PatchLint(outcome.extension, outcome.patch, results)

    def _store(
        self,
        outcomes: Sequence[PatchOutcome],
        key: str,
        gates: Sequence[str],
        work: Callable[[HeldBench], tuple[GateResult, ...]],
    ) -> None:
        """Remember results by patch and gate; do the work when they are not known."""
        paths = self._bench.paths
        results = lintcache.find(paths, key, gates)
        if results is None:
            results = work(self._hold())
            lintcache.keep(paths, key, results)
        else:
            self.cached += len(results)
        for outcome, result in zip(outcomes, results, strict=True):
            self._results[outcome, result.gate] = result

    def _key(self, variant: str, *parts: str) -> str:
        """Name what compiling in a variant comes to."""
        bench = self._bench
        merged, must = bench.merged(variant)
        return lintcache.key(
            (
                variant,
                bench.arch,
                merged.text,
                *(request.text for request in must),
                toolchain.find(bench.recipe).identity,
                *toolchain.make_words(bench.recipe),
                bench.recipe.leave_out.digest,
                *parts,
            )
        )

    def _hold(self) -> HeldBench:
        if self._held is None:
            sandbox.require()
            self._held = self._bench.hold(self._stack)
        return self._held


def _patches(store: Store, series: RebasedSeries) -> tuple[_Patch, ...]:
    """Return the patches in the series; what was restored is upstream's, and not among them."""
    before = series.kernel.tree
    restored: dict[str, frozenset[str]] = {}
    found: list[_Patch] = []
    for outcome in series.outcomes:
        if outcome.commit is None:
            continue
        after = store.tree_of(outcome.commit)
        differs = touched.between(store, before, after)
        mine = restored.get(outcome.extension, frozenset())
        if outcome.state is PatchState.RESTORED:
            restored[outcome.extension] = mine | differs.lines.keys()
        else:
            change = Change(before, after, differs, restored=mine)
            found.append(_Patch(outcome, outcome.commit, change))
        before = after
    wiring: set[str] = set()
    for at in reversed(range(len(found))):
        patch = found[at]
        name = patch.outcome.extension
        found[at] = replace(patch, change=replace(patch.change, wired_later=name in wiring))
        if patch.change.touches_makefile:
            wiring.add(name)
    return tuple(found)
