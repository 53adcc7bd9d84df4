# SPDX-License-Identifier: GPL-2.0-only
"""Arguments and options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from workbench.order import Order, Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem

    from workbench.errors import ExitCode

#: Set by the script of 'kpw completion' to what a shell asks; the launcher looks at it too.
COMPLETE_VARIABLE: Final = "_KPW_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")
DEFAULT_FLAVOUR: Final = "plain"
DEFAULT_ARCH: Final = "x86_64"


class Kind(StrEnum):
    """What a word on the command line names; the root context knows which names there are."""

    TAG = "tag"
    EXTENSION = "extension"
    PATCH = "patch"
    SINCE = "since"
    FLAVOUR = "flavour"
    ARCH = "arch"


def names_of(
    kind: Kind,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completion: the names of a kind that begin as the word does.

    The object of the root context is asked, which a shell's completion sets.
    """

    def complete(
        context: click.Context, parameter: click.Parameter, word: str
    ) -> list[CompletionItem]:
        ask = context.find_root().obj
        found: list[CompletionItem] = ask(kind, word) if callable(ask) else []
        given = context.params.get(parameter.name or "")
        return [item for item in found if not isinstance(given, tuple) or item.value not in given]

    return complete


def first_tag(
    context: click.Context, parameter: click.Parameter, word: str
) -> list[CompletionItem]:
    """Complete the first word of several as a tag, and leave the others alone."""
    given = context.params.get(parameter.name or "")
    return [] if given else names_of(Kind.TAG)(context, parameter, word)


def a_file(_context: click.Context, _parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Leave the word to the shell: it knows the files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(word, type="file")]


def tag_or_folder(
    context: click.Context, parameter: click.Parameter, word: str
) -> list[CompletionItem]:
    """Complete a word as a tag; one that begins none is left to the shell."""
    from click.shell_completion import CompletionItem

    return names_of(Kind.TAG)(context, parameter, word) or [CompletionItem(word, type="dir")]


def split_commas(
    _context: click.Context, _parameter: click.Parameter, words: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of a repeatable option that also takes ``a,b``; order kept, no doubles."""
    names = (name.strip() for word in words for name in word.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


tag_argument = click.argument("tag", metavar="TAG", shell_complete=names_of(Kind.TAG))
tags_argument = click.argument(
    "tags", metavar="[TAG]...", nargs=-1, shell_complete=names_of(Kind.TAG)
)
optional_tag_argument = click.argument(
    "tag", metavar="[TAG]", required=False, default="", shell_complete=names_of(Kind.TAG)
)
extensions_argument = click.argument(
    "names", metavar="[EXT]...", nargs=-1, shell_complete=names_of(Kind.EXTENSION)
)
extension_argument = click.argument(
    "extension", metavar="[EXT]", required=False, shell_complete=names_of(Kind.EXTENSION)
)


def named_tag_argument(name: str, metavar: str) -> Callable[[Any], Any]:
    """Return an argument that is one kernel, for a verb that takes several with a role each."""
    return click.argument(name, metavar=metavar, shell_complete=names_of(Kind.TAG))


all_option = click.option(
    "--all", "all_tags", is_flag=True, help="Every kernel of patches/kernels.toml."
)
only_option = click.option(
    "--only",
    metavar="EXT",
    multiple=True,
    callback=split_commas,
    shell_complete=names_of(Kind.EXTENSION),
    help="Only this extension and what it requires; repeatable, or a,b.",
)
without_option = click.option(
    "--without",
    metavar="EXT",
    multiple=True,
    callback=split_commas,
    shell_complete=names_of(Kind.EXTENSION),
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
    shell_complete=names_of(Kind.FLAVOUR),
    show_default=True,
    help="Kernel configuration: a fragment of kconfigs/flavour, or 'plain' for none.",
)
arch_option = click.option(
    "--arch",
    metavar="NAME",
    default=DEFAULT_ARCH,
    shell_complete=names_of(Kind.ARCH),
    show_default=True,
    help="Architecture: one of kconfigs/arch and qemu.",
)
json_flag = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)
json_file_option = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    shell_complete=a_file,
    help="Write the result as JSON; '-' is stdout.",
)
junit_file_option = click.option(
    "--junit",
    "junit_file",
    metavar="FILE",
    shell_complete=a_file,
    help="Write the result as JUnit XML; '-' is stdout.",
)
ktap_file_option = click.option(
    "--ktap",
    "ktap_file",
    metavar="FILE",
    shell_complete=a_file,
    help="Write the result as KTAP; '-' is stdout.",
)
svg_file_option = click.option(
    "--svg",
    "svg_file",
    metavar="FILE",
    shell_complete=a_file,
    help="Draw the matrix as a picture; '-' is stdout.",
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
