# SPDX-License-Identifier: GPL-2.0-only
"""``kpw status``: the whole series on all kernels at a glance."""

from __future__ import annotations

import json
import sys

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths


@click.command("status", short_help="Tell what applies, is built and is proven, on each kernel.")
@options.tags_argument
@options.only_option
@options.without_option
@options.flavour_option
@options.arch_option
@click.option("--check", is_flag=True, help="Exit with 1 when anything is not proven.")
@options.json_flag
def command(
    *,
    tags: tuple[str, ...],
    only: tuple[str, ...],
    without: tuple[str, ...],
    flavour: str,
    arch: str,
    check: bool,
    as_json: bool,
) -> ExitCode:
    """Tell where the series stands on each TAG (none: every kernel of patches/kernels.toml).

    Nothing is built, booted or brought: the series is rebased on the kernels
    that are here, and the cache and the reports of past runs are asked.

    \b
    applies     the extension is in the rebased series, '(remembered)' by
                a resolution that no selftest confirmed yet; or upstream, or
                a conflict, which leaves it (and what requires it) out
    build       the kernel of exactly this tree and configuration: built,
                not built, or failed the last time
    proven      'kpw run' or 'kpw prove' had it green on exactly this tree,
                and its proofs red without the patches; the newest word
                counts. 'older tree' was so once, 'other extensions' with
                another choice of them (see --only)

    Exit code 0; with --check 1 when an extension is not proven on the
    present tree of a kernel.
    """  # noqa: D301 - \b is click's word for a paragraph that is not filled
    from workbench import extensions, fragments, progress, report_status, source, status

    paths = Paths.default()
    chosen = extensions.select(extensions.load_extensions(paths), only, without)
    # A misspelt flavour shall be told though no kernel is here.
    names = tuple(each.name for each in chosen)
    fragments.files(paths, arch=arch, extensions=names, flavour=flavour)
    wanted = source.names(paths, tags, all_tags=not tags)
    with progress.shown() as display:
        done = status.look(paths, wanted, status.Question(chosen, flavour, arch), display)
    proven = all(each.is_proven for each in done)
    code = ExitCode.RED if check and not proven else ExitCode.GOOD
    if as_json:
        click.echo(json.dumps(report_status.as_data(done, int(code)), indent=1))
    else:
        report_status.show(done, sys.stdout)
    return code
