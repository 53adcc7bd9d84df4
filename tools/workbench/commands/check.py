# SPDX-License-Identifier: GPL-2.0-only
"""``kpw check``: everything CI asks, the README's test command."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from workbench import process
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

_OURS = ("tools", "tests", "tools/kpw")
# import-linter is no module to run: 'python -m importlinter.cli' does nothing and exits with 0.
_LAYERS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@dataclass(frozen=True)
class Stage:
    """One thing to check: a module run by our own Python, in the repository."""

    name: str
    argv: tuple[str, ...]
    on_request: bool = False


STAGES = (
    Stage("lint", ("-m", "ruff", "check", *_OURS)),
    Stage("format", ("-m", "ruff", "format", "--check", *_OURS)),
    Stage("types", ("-m", "mypy", "tools/workbench", "tests")),
    Stage("layers", ("-c", _LAYERS, "--no-cache")),
    Stage("host", ("-m", "pytest", "-q", "-n", "2")),
    # One at a time: the tests of this stage build, boot and measure the machine's whole load.
    Stage("real", ("-m", "pytest", "-m", "real", "-v", "--durations=10")),
    Stage("soak", ("-m", "pytest", "-m", "soak", "-v"), on_request=True),
    Stage("bench", ("tests/bench",), on_request=True),
)


def _passes(stage: Stage, repo: Path) -> bool:
    """Run one stage with its output on ours; True when it exits with 0."""
    env = os.environ | {"PYTHONPATH": str(repo / "tools"), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-P", *stage.argv]
    with process.spawned(argv, cwd=repo, env=env, stdout=None, stderr=None) as child:
        return child.wait() == 0


@click.command("check", short_help="Lint, types, layers, host tests, one real run: what CI asks.")
@click.option(
    "--stage",
    "names",
    multiple=True,
    type=click.Choice([stage.name for stage in STAGES]),
    help="Only this stage (may be given again).",
)
def command(names: tuple[str, ...]) -> ExitCode:
    """Run every check, the quick ones first; all of them, whatever fails.

    The soak, many runs ended at random moments, and the benchmarks take long and run on request
    only.
    """
    repo = Paths.default().repo
    failed = []
    for stage in STAGES:
        if stage.name not in names if names else stage.on_request:
            continue
        click.echo(f"== {stage.name}", err=True)
        started = time.monotonic()
        passed = _passes(stage, repo)
        seconds = time.monotonic() - started
        click.echo(f"== {stage.name}: {'ok' if passed else 'FAILED'}, {seconds:.0f} s", err=True)
        if not passed:
            failed.append(stage.name)
    if failed:
        again = " ".join(f"--stage {name}" for name in failed)
        click.echo(f"kpw: failed: {', '.join(failed)}; run 'tools/kpw check {again}'", err=True)
        return ExitCode.RED
    click.echo("kpw: all checks passed", err=True)
    return ExitCode.GOOD
