# SPDX-License-Identifier: GPL-2.0-only
"""``kpw boot``: a shell in a guest, or one command and its exit code."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode, UsageError
from workbench.model import BuildFailure, BuiltKernel
from workbench.paths import Paths
from workbench.printable import safe

if TYPE_CHECKING:
    from workbench.boot import GuestRun
    from workbench.image import GuestImage
    from workbench.model import RebasedSeries
    from workbench.order import Order
    from workbench.payload import Payload
    from workbench.progress import Progress

_INTERACTIVE = """#!/bin/sh
stty rows {rows} cols {columns} sane
export TERM={term}
echo "Linux $(uname -r). 'exit' or Ctrl-A x leaves; the selftests are in /payload/tests."
exec bash -i
"""


@dataclass(frozen=True)
class _Wish:
    """What is to be done in the guest: ``words`` empty means a shell."""

    words: tuple[str, ...]
    timeout: float
    memory_mib: int | None
    append: tuple[str, ...]


@click.command(
    "boot",
    short_help="Boot a patched kernel: a shell, or one command.",
    context_settings={"ignore_unknown_options": False},
)
@click.argument(
    "words",
    metavar="TAG [-- COMMAND [ARG]...]",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=options.first_tag,
)
@click.option(
    "--vmlinux",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Boot this kernel; then there is no TAG, and nothing is built.",
)
@click.option("--timeout", metavar="SECONDS", default=3600.0, help="Let a command take this long.")
@click.option("--memory", "memory_mib", metavar="MIB", type=int, help="Give the guest this much.")
@click.option("--append", metavar="WORDS", default="", help="Words for the kernel's command line.")
@options.only_option
@options.without_option
@options.repo_option
@options.flavour_option
@options.arch_option
def command(  # noqa: PLR0913 - click passes one argument an option
    *,
    words: tuple[str, ...],
    vmlinux: Path | None,
    timeout: float,
    memory_mib: int | None,
    append: str,
    only: tuple[str, ...],
    without: tuple[str, ...],
    repo: Path | None,
    flavour: str,
    arch: str,
) -> int:
    """Boot TAG with the series applied and give a shell, or run COMMAND there.

    One COMMAND word is a shell's line; several are run as they are. Without
    a terminal the shell reads its commands from stdin. The exit code is the
    command's own; 5 when the kernel crashed, hung or complained meanwhile.
    """
    from workbench import image, progress
    from workbench.order import Order

    paths = Paths.default()
    if vmlinux is None and not words:
        raise UsageError("no TAG to boot", next_step="'kpw kernels' lists them")
    tag, rest = ("", words) if vmlinux is not None else (words[0], words[1:])
    wish = _Wish(rest, timeout, memory_mib, tuple(append.split()))
    order = Order(tags=(tag,), only=only, without=without, repo=repo, flavour=flavour, arch=arch)
    with progress.shown() as display:
        kernel = vmlinux or _kernel(paths, order, display)
        if not isinstance(kernel, (Path, BuiltKernel)):
            return kernel
        guest = image.ensure_image(paths, display, arch)
    return _run(paths, kernel, guest, wish, arch)


def _kernel(paths: Paths, order: Order, display: Progress) -> BuiltKernel | ExitCode:
    """Rebase and build; a finding is told and becomes the exit code."""
    from workbench import build, extensions, fragments, rebase, source
    from workbench.gitstore import Store

    chosen = extensions.select(extensions.load_extensions(paths), order.only, order.without)
    # A misspelt flavour shall not cost a download first.
    names = tuple(each.name for each in chosen)
    fragments.files(paths, arch=order.arch, extensions=names, flavour=order.flavour)
    kernel = source.obtain(paths, order.tags[0], repo=order.repo, progress=display)
    store = Store.open(paths)
    series = rebase.rebase(paths, store, kernel, chosen, display, repo=order.repo)
    if not series.applies:
        _tell_conflicts(series)
        return ExitCode.CONFLICT
    request = build.BuildRequest(kernel, series.tree, series.extensions, order.flavour, order.arch)
    built = build.build(paths, store, request, display)
    if isinstance(built, BuildFailure):
        click.echo(f"kpw: {kernel.name} does not build: {built.reason}\n{built.excerpt}", err=True)
        return ExitCode.BUILD
    return built


def _tell_conflicts(series: RebasedSeries) -> None:
    for outcome in series.outcomes:
        if not outcome.state.applies:
            line = f"kpw: {outcome.extension}/{outcome.patch}: {outcome.state.value}"
            click.echo(line, err=True)
    click.echo(f"kpw: 'kpw rebase {series.kernel.name}' tells more", err=True)


def _run(
    paths: Paths, kernel: BuiltKernel | Path, guest: GuestImage, wish: _Wish, arch: str
) -> int:
    from workbench import accel, boot, runs

    chosen = accel.choose(paths, arch)
    click.echo(f"kpw: {chosen.reason}", err=True)
    work = _payload(paths, kernel, wish.words)
    settings = boot.BootOptions(
        where=runs.new_run(paths),
        arch=arch,
        accelerator=chosen,
        memory_mib=wish.memory_mib,
        append=wish.append,
        step_deadline=wish.timeout,
        total_deadline=wish.timeout + boot.BootOptions.boot_deadline,
        on_output=_to_stdout,
    )
    return _told(boot.boot(paths, kernel, guest, work, settings))


def _payload(paths: Paths, kernel: BuiltKernel | Path, words: tuple[str, ...]) -> Payload:
    from workbench.payload import Payload, modules

    files = modules(kernel.modules) if isinstance(kernel, BuiltKernel) else ()
    if paths.guest_tests.is_dir():
        files += (("tests", paths.guest_tests),)
    if words:
        line = words[0] if len(words) == 1 else "exec " + shlex.join(words)
        return Payload(f"#!/bin/sh\n{line}\n", files)
    if not sys.stdin.isatty():
        script = sys.stdin.buffer.read()
        return Payload("#!/bin/sh\nexec sh /payload/stdin\n", (*files, ("stdin", script)))
    size = shutil.get_terminal_size()
    term = shlex.quote(os.environ.get("TERM", "dumb"))
    text = _INTERACTIVE.format(rows=size.lines, columns=size.columns, term=term)
    return Payload(text, files, terminal=True)


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _told(run: GuestRun) -> int:
    """Tell what went wrong on stderr; return the exit code."""
    sys.stdout.flush()
    for splat in run.splats:
        click.echo(f"kpw: {splat.kind.value}: {safe(splat.line)}", err=True)
        for line in splat.excerpt.splitlines():
            click.echo(safe(line), err=True)
    if run.splats:
        click.echo(f"kpw: the whole console is in {run.console}", err=True)
        return ExitCode.CRASH
    return run.exit_status or ExitCode.GOOD
