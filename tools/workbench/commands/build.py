# SPDX-License-Identifier: GPL-2.0-only
"""``kpw build``: rebase the series and build the kernel, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.declared import Extension
    from workbench.gitstore import Store
    from workbench.model import BuildFailure, BuiltKernel, Kernel, RebasedSeries
    from workbench.progress import Progress


@click.command("build", short_help="Rebase the series and build the kernel.")
@options.tags_argument
@options.all_option
@options.only_option
@options.without_option
@options.repo_option
@options.flavour_option
@options.arch_option
def command(
    *,
    tags: tuple[str, ...],
    all_tags: bool,
    only: tuple[str, ...],
    without: tuple[str, ...],
    repo: Path | None,
    flavour: str,
    arch: str,
) -> ExitCode:
    """Rebase the series on each TAG (none: the default one), build it, print where it is.

    Exit code 0 when every kernel is built, 3 when a patch does not apply
    (that kernel is left), 4 when a build fails or a configuration is unmet.
    """
    from workbench import extensions, fragments, progress, source
    from workbench.gitstore import Store

    paths = Paths.default()
    chosen = extensions.select(extensions.load_extensions(paths), only, without)
    # A misspelt flavour shall not cost a download first.
    names = tuple(each.name for each in chosen)
    fragments.files(paths, arch=arch, extensions=names, flavour=flavour)
    with progress.shown() as display:
        wanted = source.names(paths, tags, all_tags=all_tags)
        kernels = source.obtain_all(paths, wanted, repo=repo, progress=display)
        order = _Order(paths, Store.open(paths), display, chosen, flavour, arch, repo)
        codes = [order.fill(kernel) for kernel in kernels]
    return max(codes)


@dataclass(frozen=True)
class _Order:
    """What is built on every kernel."""

    paths: Paths
    store: Store
    progress: Progress
    extensions: tuple[Extension, ...]
    flavour: str
    arch: str
    repo: Path | None

    def fill(self, kernel: Kernel) -> ExitCode:
        """Rebase and build one kernel and print what came of it."""
        from workbench import build, rebase
        from workbench.model import BuiltKernel

        series = rebase.rebase(
            self.paths, self.store, kernel, self.extensions, self.progress, repo=self.repo
        )
        if not series.applies:
            _tell_conflict(series)
            return ExitCode.CONFLICT
        request = build.BuildRequest(
            kernel, series.tree, series.extensions, self.flavour, self.arch
        )
        done = build.build(self.paths, self.store, request, self.progress)
        if isinstance(done, BuiltKernel):
            _tell_built(done)
            return ExitCode.GOOD
        _tell_failed(done)
        return ExitCode.BUILD


def _tell_conflict(series: RebasedSeries) -> None:
    lost = [each for each in series.outcomes if not each.state.applies]
    patches = ", ".join(f"{each.extension}/{each.patch}" for each in lost)
    name = series.kernel.name
    click.echo(f"{name}: not built: {patches} does not apply; 'kpw rebase {name}' says why")


def _tell_built(done: BuiltKernel) -> None:
    how = "built before" if done.cached else f"built in {done.seconds:.1f} s"
    click.echo(f"{done.kernel.name}: {done.release} {how}: {done.vmlinux}")


def _tell_failed(done: BuildFailure) -> None:
    click.echo(f"{done.kernel.name}: build failed: {done.reason}")
    if done.excerpt:
        click.echo("\n".join(f"    {line}" for line in done.excerpt.splitlines()))
    if not done.unmet:
        click.echo(f"    the whole log: {done.log}")
