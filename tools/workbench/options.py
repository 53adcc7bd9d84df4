# SPDX-License-Identifier: GPL-2.0-only
"""Arguments and options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from workbench.order import Order, Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.errors import ExitCode

DEFAULT_FLAVOUR: Final = "plain"
DEFAULT_ARCH: Final = "x86_64"


def split_commas(
    _context: click.Context, _parameter: click.Parameter, words: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of a repeatable option that also takes ``a,b``; order kept, no doubles."""
    names = (name.strip() for word in words for name in word.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


tag_argument = click.argument("tag", metavar="TAG")
tags_argument = click.argument("tags", metavar="[TAG]...", nargs=-1)

all_option = click.option(
    "--all", "all_tags", is_flag=True, help="Every kernel of patches/kernels.toml."
)
only_option = click.option(
    "--only",
    metavar="EXT",
    multiple=True,
    callback=split_commas,
    help="Only this extension and what it requires; repeatable, or a,b.",
)
without_option = click.option(
    "--without",
    metavar="EXT",
    multiple=True,
    callback=split_commas,
    help="All extensions but this one; repeatable, or a,b.",
)
repo_option = click.option(
    "--repo",
    metavar="PATH",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take the kernel from this git repository; TAG may be any of its tree-ishes.",
)
flavour_option = click.option(
    "--flavour",
    metavar="NAME",
    default=DEFAULT_FLAVOUR,
    show_default=True,
    help="Kernel configuration: a fragment of kconfigs/flavour, or 'plain' for none.",
)
arch_option = click.option(
    "--arch",
    metavar="NAME",
    default=DEFAULT_ARCH,
    show_default=True,
    help="Architecture: one of kconfigs/arch and qemu.",
)
json_flag = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)
json_file_option = click.option(
    "--json", "json_file", metavar="FILE", help="Write the result as JSON; '-' is stdout."
)
junit_file_option = click.option(
    "--junit", "junit_file", metavar="FILE", help="Write the result as JUnit XML; '-' is stdout."
)
ktap_file_option = click.option(
    "--ktap", "ktap_file", metavar="FILE", help="Write the result as KTAP; '-' is stdout."
)
svg_file_option = click.option(
    "--svg", "svg_file", metavar="FILE", help="Draw the matrix as a picture; '-' is stdout."
)


def trial_options(function: Callable[[Order, Outputs], ExitCode]) -> Callable[..., ExitCode]:
    """Give a verb the options of trials, and call it with an Order and Outputs.

    A verb adds its tag argument (``tag`` or ``tags``), ``--all`` or ``-k`` itself.
    """

    def command(**given: Any) -> ExitCode:
        outputs = Outputs.of(**{kind: given.pop(f"{kind}_file") for kind in _REPORTS})
        if "tag" in given:
            given["tags"] = (given.pop("tag"),)
        return function(Order(**given), outputs)

    command.__doc__ = function.__doc__
    for option in reversed(_TRIAL):
        command = option(command)
    return command


_REPORTS: Final = ("json", "junit", "ktap", "svg")
_TRIAL: Final[tuple[Callable[[Any], Any], ...]] = (
    only_option,
    without_option,
    repo_option,
    flavour_option,
    arch_option,
    json_file_option,
    junit_file_option,
    ktap_file_option,
    svg_file_option,
)
