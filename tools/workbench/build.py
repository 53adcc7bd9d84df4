# SPDX-License-Identifier: GPL-2.0-only
"""Build one kernel: fragments, source tree, configuration, make, cache.

A build that was made before comes from the cache in milliseconds and touches
nothing. One that was not is made in the kernel's own working directory, where
make compiles only what changed since the last one there.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench import (
    buildlog,
    configure,
    fragments,
    kernelcache,
    loadable,
    outdir,
    process,
    recipe,
    sandbox,
    sourcetree,
    toolchain,
)
from workbench.errors import InfraError
from workbench.model import BuildFailure, BuiltKernel, Kernel

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.fragments import MergedFragments
    from workbench.gitstore import Store
    from workbench.model import UnmetSymbol
    from workbench.paths import Paths
    from workbench.progress import Progress
    from workbench.sourcetree import Room

_RECIPE: Final = 1
"""Raise it when the same inputs come to a different kernel."""

_USUAL_OBJECTS: Final = 1350


@dataclass(frozen=True)
class BuildRequest:
    """One kernel to build: ``tree`` is the id of the (patched) source tree in the store.

    ``extensions`` choose fragments only: the unpatched tree is built with the
    same configuration as the patched one.
    """

    kernel: Kernel
    tree: str
    extensions: tuple[str, ...] = ()
    flavour: str = fragments.PLAIN
    arch: str = "x86_64"


@dataclass(frozen=True)
class _Job:
    """A request with all that was found out about it."""

    request: BuildRequest
    merged: MergedFragments
    recipe: recipe.Recipe
    goals: tuple[str, ...]
    key: str
    label: str


def build(
    paths: Paths, store: Store, request: BuildRequest, progress: Progress
) -> BuiltKernel | BuildFailure:
    """Return the kernel, from the cache or newly built, or why it does not build.

    UsageError for a fragment that cannot be read or an unknown flavour,
    InfraError when the machine fails (disk, memory, no sandbox).
    """
    job = _job(paths, request)
    ready = kernelcache.find(paths, job.key, request.kernel)
    if ready is not None:
        return ready
    for clash in job.merged.clashes:
        progress.note(str(clash))
    sandbox.require()
    with sourcetree.held(paths, request.kernel, progress) as room:
        # Another run may have built it while this one waited.
        ready = kernelcache.find(paths, job.key, request.kernel)
        if ready is not None:
            return ready
        done = _build(paths, store, job, room, progress)
        if isinstance(done, BuildFailure):
            kernelcache.remember_failure(paths, job.key, done)
        return done


def kernel_key(paths: Paths, request: BuildRequest) -> str:
    """Name the build: 16 hex digits of everything that decides its bytes."""
    return _job(paths, request).key


def _job(paths: Paths, request: BuildRequest) -> _Job:
    how = recipe.load(paths, request.arch)
    merged = fragments.load(
        paths,
        request.kernel.tag,
        arch=request.arch,
        extensions=request.extensions,
        flavour=request.flavour,
    )
    goals = loadable.goals(how, merged)
    parts = (
        str(_RECIPE),
        request.tree,
        request.arch,
        request.flavour,
        merged.text,
        toolchain.find(how).identity,
        *toolchain.make_words(how),
        *goals,
        how.leave_out.digest,
    )
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    flavour = "" if request.flavour == fragments.PLAIN else f" {request.flavour}"
    return _Job(request, merged, how, goals, key, f"{request.kernel.name}{flavour}")


def _build(
    paths: Paths, store: Store, job: _Job, room: Room, progress: Progress
) -> BuiltKernel | BuildFailure:
    began = time.monotonic()
    request = job.request
    log = room.log(request.arch, request.flavour)
    out = room.out(request.arch, request.flavour)
    outdir.discard_unfinished(out)
    progress.step(f"{job.label}: source tree")
    pruned = sourcetree.switch(store, room, request.tree, job.recipe.leave_out)
    (paths.ccache / "tmp").mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with outdir.compiling(out) as is_new:
        place = configure.Workplace(paths, room.src, out, log, pruned, job.recipe)
        progress.step(f"{job.label}: configuration")
        config = configure.configure(store, place, job.merged)
        if isinstance(config, configure.ConfFailure):
            return _broken(store, job, place)
        if config.unmet:
            return _unmet(job, log, config.unmet)
        objects = _compile(job, place, progress, is_new=is_new)
        if objects is None:
            return _broken(store, job, place)
        return _keep(paths, job, place, time.monotonic() - began, objects if is_new else 0)


def _compile(
    job: _Job, place: configure.Workplace, progress: Progress, *, is_new: bool
) -> int | None:
    """Run make; return the number of files compiled, None when it failed."""
    usual = kernelcache.usual_objects(place.paths, job.request.flavour, _USUAL_OBJECTS)
    total = usual if is_new else None
    jobs = len(os.sched_getaffinity(0))
    argv = place.make(f"-j{jobs}", "--output-sync=target", *job.goals)
    done = 0
    progress.step(f"{job.label}: compiling", done, total, "files")
    with (
        place.log.open("ab", buffering=0) as log,
        process.spawned(
            argv, env=place.environment(), stderr=process.STDOUT, cwd=place.out.parent
        ) as child,
    ):
        for line in child.stdout or ():
            log.write(line)
            if buildlog.compiled_file(line.decode(errors="replace").rstrip()):
                done += 1
                about = total and max(total, done)
                progress.step(f"{job.label}: compiling", done, about, "files")
        status = child.wait()
    return done if status == 0 else None


def _keep(
    paths: Paths, job: _Job, place: configure.Workplace, seconds: float, objects: int
) -> BuiltKernel:
    release = (place.out / "include/config/kernel.release").read_text(encoding="utf-8")
    record = kernelcache.Record(
        key=job.key,
        tree=job.request.tree,
        flavour=job.request.flavour,
        release=release.strip(),
        seconds=round(seconds, 2),
        objects=objects,
        toolchain=toolchain.find(job.recipe).identity,
    )
    files = {
        "vmlinux": place.out / job.recipe.artefact,
        "config": place.out / ".config",
        "build.log": place.log,
    }
    if len(job.goals) > 1:
        files |= loadable.stripped(place)
    return kernelcache.keep(paths, job.request.kernel, record, files)


def _broken(store: Store, job: _Job, place: configure.Workplace) -> BuildFailure:
    text = place.log.read_text(encoding="utf-8", errors="replace")
    fault = buildlog.machine_fault(text)
    if fault is not None:
        raise InfraError(
            fault,
            where=str(place.out),
            next_step=f"free some and run it again; the log is {place.log}",
        )
    failure = buildlog.first_failure(text, (f"{place.src}/", f"../{place.src.name}/"))
    hidden = _left_out(store, job, buildlog.missing_file(failure.reason))
    hint = f" ({recipe.left_out(job.request.arch, hidden)})" if hidden else ""
    return BuildFailure(
        kernel=job.request.kernel,
        tree=job.request.tree,
        flavour=job.request.flavour,
        reason=failure.reason + hint,
        excerpt=failure.excerpt,
        log=place.log,
    )


def _left_out(store: Store, job: _Job, missing: str | None) -> str | None:
    """Return the folder that holds what an error misses and that the source tree goes without."""
    if missing is None:
        return None
    rules = job.recipe.leave_out
    folder = rules.hides(missing)
    if folder is None:
        # An #include says as much of a path as the compiler needs to find it.
        end = "/" + missing.removeprefix("./").rpartition("../")[2]
        every = store.git("ls-tree", "-r", "-z", "--name-only", job.request.tree).split("\0")
        folders = {rules.hides(path) for path in every if path.endswith(end)}
        # More than one, or a file that is there: to name any would be a guess.
        folder = folders.pop() if len(folders) == 1 else None
    return folder


def _unmet(job: _Job, log: Path, unmet: tuple[UnmetSymbol, ...]) -> BuildFailure:
    first = unmet[0]
    more = f" (and {len(unmet) - 1} more)" if len(unmet) > 1 else ""
    lines = [describe_unmet(item) for item in unmet]
    return BuildFailure(
        kernel=job.request.kernel,
        tree=job.request.tree,
        flavour=job.request.flavour,
        reason=describe_unmet(first) + more,
        excerpt="\n".join(lines),
        log=log,
        unmet=unmet,
    )


def describe_unmet(item: UnmetSymbol) -> str:
    """Return the one line about a symbol: place, what was asked and came out, why."""
    return (
        f"{item.fragment}:{item.line}: CONFIG_{item.symbol}={item.wanted}"
        f" came out as {item.got}: {item.reason}"
    )
