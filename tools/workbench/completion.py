# SPDX-License-Identifier: GPL-2.0-only
"""Completion in bash, zsh and fish: click's own, told which names there are.

What a shell asks is answered from this checkout and the store alone, and a
fault of ours is no answer: nobody wants an error in the line being typed.
"""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Final, assert_never

from click.shell_completion import CompletionItem, get_completion_class

from workbench import extensions, fragments, kernelnames, recipe
from workbench.description import patch_number
from workbench.errors import UsageError
from workbench.options import COMPLETE_VARIABLE, SHELLS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from workbench.paths import Paths

_PROGRAM: Final = "kpw"
# click's scripts run the program by its name or by the word that was typed.
# Ours need not be on the PATH, and the word may begin with a tilde.
_CALLS: Final = {
    "bash": "=bash_complete $1)",
    "zsh": f"=zsh_complete {_PROGRAM})",
    "fish": f" {_PROGRAM});",
}
_ON_PATH: Final = f"    (( ! $+commands[{_PROGRAM}] )) && return 1\n"


def script(paths: Paths, shell: str) -> str:
    """Return what a shell must read to complete ``kpw``: it asks this checkout's launcher."""
    kind = get_completion_class(shell)
    call = _CALLS.get(shell)
    if kind is None or call is None:
        raise UsageError(f"no completion for {shell!r}", next_step=f"for {', '.join(SHELLS)}")
    import click

    text = kind(click.Command(_PROGRAM), {}, _PROGRAM, COMPLETE_VARIABLE).source()
    if text.count(call) != 1:
        raise AssertionError(f"click's script for {shell} has changed")
    launcher = shlex.quote(str(paths.repo / "tools" / "kpw"))
    ours = call.replace("$1", launcher).replace(f" {_PROGRAM})", f" {launcher})")
    return text.replace(call, ours).replace(_ON_PATH, "")


def answer(paths: Paths, group: click.Command, instruction: str) -> str:
    """Return what a shell wants to know, a line each; nothing when it cannot be told."""
    shell = instruction.partition("_")[0]
    kind = get_completion_class(shell)
    if kind is None or instruction != f"{shell}_complete":
        return ""

    def ask(kind: Kind, word: str) -> list[CompletionItem]:
        return names(paths, kind, word)

    with contextlib.suppress(Exception):
        found = kind(group, {"obj": ask}, _PROGRAM, COMPLETE_VARIABLE).complete()
        return found and f"{found}\n"
    return ""


def names(paths: Paths, kind: Kind, word: str) -> list[CompletionItem]:
    """Return the names of a kind that begin as ``word`` does."""
    match kind:
        case Kind.TAG:
            return _beginning(kernelnames.known(paths), word)
        case Kind.EXTENSION:
            return _extensions(paths, word)
        case Kind.PATCH:
            return _beginning(_patches(paths), word)
        case Kind.SINCE:
            return _beginning(_since(paths), word)
        case Kind.FLAVOUR:
            return _beginning(fragments.flavours(paths), word)
        case Kind.ARCH:
            return _beginning(recipe.known(paths), word)
        case _:
            assert_never(kind)


def _beginning(known: Iterable[str], word: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in known if name.startswith(word)]


def _patches(paths: Paths) -> list[str]:
    """Name each patch as 'kpw resolve' takes it, whatever kernels it is for."""
    return [
        f"{each.name}/{number}"
        for each in extensions.load_extensions(paths)
        for number in sorted(
            {
                patch_number(path)
                for patches in (each.patches, *(other.patches for other in each.variants))
                for path in patches
            }
        )
    ]


def _since(paths: Paths) -> list[str]:
    """Name the tags of all since- folders, whatever extension they are of."""
    loaded = extensions.load_extensions(paths)
    return [str(tag) for tag in sorted({one.since for each in loaded for one in each.variants})]


def _extensions(paths: Paths, word: str) -> list[CompletionItem]:
    """Complete the last of ``a,b``: by name, or by id where that is what was begun."""
    before, comma, last = word.rpartition(",")
    given = set(before.split(","))
    loaded = [each for each in extensions.load_extensions(paths) if each.name not in given]
    found = [(each.name, each.summary) for each in loaded if each.name.startswith(last)]
    if not found:
        found = [(each.id, each.summary) for each in loaded if each.id.startswith(last)]
    return [CompletionItem(before + comma + name, help=summary) for name, summary in found]
