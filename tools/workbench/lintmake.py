# SPDX-License-Identifier: GPL-2.0-only
"""One kernel's working directory, while its patches go through the gates.

The source tree is the one builds use; the output directories are of our own,
one a file of kconfigs/lint, and stay for the next run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench import build, buildlog, configure, fragments, outdir, process, recipe, sourcetree
from workbench.errors import InfraError
from workbench.kobjects import ConfiguredObjects

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from workbench.configure import Workplace
    from workbench.fragments import MergedFragments, Request
    from workbench.gitstore import Store
    from workbench.model import Kernel
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.recipe import Recipe
    from workbench.sourcetree import Room

_FAILED = re.compile(r"\*\*\* \[[^\]]*?([^\s:\]]+\.o)\] Error")


@dataclass(frozen=True)
class Bench:
    """What is needed to work on one kernel; ``extensions`` choose fragments only."""

    paths: Paths
    store: Store
    kernel: Kernel
    recipe: Recipe
    arch: str
    extensions: tuple[str, ...]
    progress: Progress

    @classmethod
    def make(
        cls, paths: Paths, store: Store, kernel: Kernel, arch: str, progress: Progress
    ) -> Bench:
        """Prepare to work; nothing is held yet.

        Every extension's fragments are merged, whichever are asked for: the
        outputs stay good from one run to the next.
        """
        names = sorted(path.stem for path in (paths.kconfigs / "extension").glob("*.config"))
        return cls(paths, store, kernel, recipe.load(paths, arch), arch, tuple(names), progress)

    def merged(self, variant: str) -> tuple[MergedFragments, tuple[Request, ...]]:
        """Return a variant's configuration, and what of it must come out."""
        return fragments.load_lint(
            self.paths,
            self.kernel.tag,
            arch=self.arch,
            extensions=self.extensions,
            variant=variant,
        )

    def hold(self, stack: ExitStack) -> HeldBench:
        """Hold the directory until ``stack`` is unwound; waits for another run that does."""
        room = stack.enter_context(sourcetree.held(self.paths, self.kernel, self.progress))
        (self.paths.ccache / "tmp").mkdir(parents=True, exist_ok=True)
        return HeldBench(self, room)


@dataclass(frozen=True)
class Broken:
    """Why something was not built: ``reason`` is one line, ``excerpt`` the log around it."""

    reason: str
    excerpt: str = ""


@dataclass(frozen=True)
class Made:
    """What came of one make: its whole ``log``, and the objects that were not made."""

    log: str
    broken: dict[str, Broken]


class HeldBench:
    """The working directory itself; nobody else is at it."""

    def __init__(self, bench: Bench, room: Room) -> None:
        """Take over a held room."""
        self.bench = bench
        self._room = room
        self._tree = ""
        self._pruned = ""
        self._doing = ""

    def begin(self, what: str) -> None:
        """Say what the directory is used for from now on."""
        self._doing = f"{self.bench.kernel.name}: {what}"
        self.bench.progress.step(self._doing)

    @property
    def src(self) -> Path:
        """The source tree."""
        return self._room.src

    def switch(self, tree: str) -> None:
        """Make the source tree hold a tree of the store."""
        if tree != self._tree:
            bench = self.bench
            self._tree = ""
            self._pruned = sourcetree.switch(bench.store, self._room, tree, bench.recipe.leave_out)
            self._tree = tree

    def place(self, variant: str) -> Workplace:
        """Return the output directory of a variant; it is there, and configured or not."""
        bench = self.bench
        name = f"lint-{variant}"
        out = self._room.out(bench.arch, name)
        log = self._room.log(bench.arch, name)
        outdir.discard_unfinished(out)
        out.mkdir(exist_ok=True)
        return configure.Workplace(
            bench.paths, self._room.src, out, log, self._pruned, bench.recipe
        )

    def configured(self, variant: str) -> ConfiguredObjects | Broken:
        """Configure a variant for the tree that is there; what it builds, or why it cannot be."""
        place = self.place(variant)
        place.log.write_bytes(b"")
        merged, must = self.bench.merged(variant)
        with outdir.compiling(place.out):
            config = configure.configure(self.bench.store, place, merged, must)
        if isinstance(config, configure.ConfFailure):
            return _broken(place)
        if config.unmet:
            lines = [build.describe_unmet(item) for item in config.unmet]
            return Broken(lines[0], "\n".join(lines))
        return ConfiguredObjects(place)

    def why_not_built(self, variant: str, source: str) -> str:
        """Say why a variant makes nothing of a source that a patch touches."""
        bench = self.bench
        folder = bench.recipe.leave_out.hides(source)
        if folder is not None:
            return recipe.left_out(bench.arch, folder)
        return f"kconfigs/lint/{variant}.config does not build it"

    def make(self, variant: str, objects: Sequence[str], *words: str, again: bool = False) -> Made:
        """Make objects, as many as can be; ``again`` even those that are up to date.

        InfraError when the machine failed, not the source.
        """
        if not objects:
            return Made("", {})
        place = self.place(variant)
        if again:
            for name in objects:
                (place.out / name).unlink(missing_ok=True)
        words = ("-k", *words)
        status = self._run(place, objects, words)
        log = place.log.read_text(encoding="utf-8", errors="replace")
        if status == 0:
            return Made(log, {})
        failed = _failed(log, objects)
        found = _broken(place)
        if not failed:
            return Made(log, dict.fromkeys(objects, found))
        # What did not fail itself may have been left for want of something shared.
        rest = [name for name in objects if name not in failed]
        broken = {name: _broken(place, name) for name in failed}
        if rest and self._run(place, rest, words) != 0:
            broken |= dict.fromkeys(rest, _broken(place))
        return Made(log, broken)

    def link(self, variant: str) -> Broken | None:
        """Make a configured variant's whole kernel; return the first thing that kept it from it.

        InfraError when the machine failed, not the source.
        """
        place = self.place(variant)
        return _broken(place) if self._run(place, (), (self.bench.recipe.target,)) != 0 else None

    def _run(self, place: Workplace, objects: Sequence[str], words: Sequence[str]) -> int:
        """Run make to its end, with its log in place of the last one's; return its exit code.

        Without ``objects`` it counts what it compiles.
        """
        place.log.write_bytes(b"")
        jobs = len(os.sched_getaffinity(0))
        argv = place.make(f"-j{jobs}", "--output-sync=target", *words, *objects)
        done = 0
        total = len(objects) or None
        with (
            outdir.compiling(place.out),
            place.log.open("ab", buffering=0) as log,
            process.spawned(
                argv, env=place.environment(), stderr=process.STDOUT, cwd=place.out.parent
            ) as child,
        ):
            for line in child.stdout or ():
                log.write(line)
                name = buildlog.compiled_file(line.decode(errors="replace").rstrip())
                if name is not None and (total is None or name in objects):
                    done += 1
                    self.bench.progress.step(self._doing, done, total, "files")
            return child.wait()


def _failed(log: str, objects: Iterable[str]) -> tuple[str, ...]:
    named = set(_FAILED.findall(log))
    return tuple(name for name in objects if name in named)


def _broken(place: Workplace, name: str = "") -> Broken:
    """Say what broke; of several, what make says just before it gives up on ``name``."""
    text = place.log.read_text(encoding="utf-8", errors="replace")
    fault = buildlog.machine_fault(text)
    if fault is not None:
        raise InfraError(fault, where=str(place.out), next_step=f"the log is {place.log}")
    prefixes = (f"{place.src}/", f"../{place.src.name}/")
    found = buildlog.first_failure(_part(text, name) if name else text, prefixes)
    return Broken(found.reason, found.excerpt)


def _part(log: str, name: str) -> str:
    """Return a log's lines on one object: make writes them together."""
    lines = log.splitlines()
    ends = [at for at, line in enumerate(lines) if f"{name}] Error" in line]
    if not ends:
        return log
    starts = [at for at in range(ends[0]) if buildlog.compiled_file(lines[at])]
    return "\n".join(lines[max(starts, default=0) : ends[0] + 1])
