# SPDX-License-Identifier: GPL-2.0-only
"""``kpw image``: make the guest image, or choose its package versions anew."""

from __future__ import annotations

import click

from workbench import options
from workbench.errors import ExitCode
from workbench.paths import Paths


@click.command("image", short_help="Make the guest image, or lock it to newer packages.")
@options.arch_option
@click.option(
    "--relock",
    is_flag=True,
    help="Take the newest packages the archive has, and write them to qemu/ARCH.lock.",
)
def command(*, arch: str, relock: bool) -> ExitCode:
    """Make the guest image of qemu/image.toml and qemu/ARCH.lock, and say where it is.

    A version that the archive has no more gives way to the archive's newest;
    every such difference is told. Then 'kpw image --relock' writes the lock
    anew, to be reviewed and committed like any other change.
    """
    from workbench import image, progress

    paths = Paths.default()
    with progress.shown() as display:
        if relock:
            display.note(f"wrote {image.relock(paths, display, arch)}")
        made = image.ensure_image(paths, display, arch)
    click.echo(f"{made.root}  sha256 {made.digest}")
    return ExitCode.GOOD
