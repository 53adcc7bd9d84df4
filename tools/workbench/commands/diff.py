# SPDX-License-Identifier: GPL-2.0-only
"""``kpw diff``: what the series is on one kernel, beside what it is on another."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


@click.command("diff", short_help="Compare the series on two kernels, patch by patch.")
@options.named_tag_argument("tag_a", "TAG_A")
@options.named_tag_argument("tag_b", "TAG_B")
@options.extension_argument
@options.repo_option
@options.json_flag
def command(
    *, tag_a: str, tag_b: str, extension: str | None, repo: Path | None, as_json: bool
) -> ExitCode:
    """Port the series to TAG_A and TAG_B and show the range-diff of the two.

    With EXT, the patches of that extension only. In what differs, the first
    sign of a line says which series has it ('-' the one on TAG_A, '+' the one
    on TAG_B), the second is the patch's own.

    Exit code 0 when all could be compared, different or not; 3 when a patch
    does not apply on one of the kernels: the others are compared all the same.
    """
    from workbench import carry, extensions, progress, rangediff, report_diff, source
    from workbench.gitstore import Store

    paths = Paths.default()
    chosen = extensions.load_extensions(paths)
    only = extensions.find(chosen, extension).name if extension is not None else None
    with progress.shown() as display:
        kernels = source.obtain_all(paths, (tag_a, tag_b), repo=repo, progress=display)
        store = Store.open(paths)
        a, b = carry.rebase_all(paths, store, kernels, chosen, display, repo=repo)
        pairs = rangediff.compare(store, a, b, only)
    conflict = any(pair.conflicts for pair in pairs)
    code = ExitCode.CONFLICT if conflict else ExitCode.GOOD
    if as_json:
        click.echo(json.dumps(report_diff.as_data((a, b), pairs, int(code)), indent=1))
    else:
        report_diff.show((a, b), pairs, sys.stdout)
    return code
