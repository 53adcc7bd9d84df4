# SPDX-License-Identifier: GPL-2.0-only
"""The manual page, in roff: what --help says of every verb, exit codes, files.

Nothing is told here that is told elsewhere: verbs and options are click's,
exit codes those of :mod:`workbench.errors`, files those of :mod:`workbench.paths`.
"""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVIRONMENT: Final = {
    "KPW_CACHE": "What can be made again lies there, instead of ~/.cache/kpw.",
    "KPW_STATE": "What past runs left lies there, instead of ~/.local/state/kpw.",
    "KPW_KERNEL_KEYRING": "The keyring that checks the signed sums of the kernel's download site.",
    "NO_COLOR": "If it is set, nothing is coloured.",
}
# click's word for a paragraph that keeps its lines.
_UNFILLED: Final = "\b"
_UNSAFE: Final = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}


def render(group: click.Group) -> str:
    """Return the page of a group of verbs; the same bytes for the same verbs."""
    context = click.Context(group, info_name=group.name, **group.context_settings)
    parts = (
        _head(group),
        _commands(group, context),
        _exit_codes(),
        _environment(),
        _files(),
    )
    return "".join(f"{line}\n" for part in parts for line in part)


def escaped(text: str) -> str:
    """Return text that roff prints as it stands."""
    safe = "".join(_UNSAFE.get(char) or _character(char) for char in text)
    # A line that begins so would be a request.
    return re.sub(r"^(?=\.)", r"\\&", safe, flags=re.MULTILINE)


def _character(char: str) -> str:
    return char if char.isascii() else rf"\[u{ord(char):04X}]"


def _head(group: click.Group) -> Iterator[str]:
    name = group.name or ""
    summary = (group.help or "").rstrip(".")
    yield r".\" Made by 'kpw man' from what --help says: change it there."
    yield f'.TH {name.upper()} 1 "" "kernel patch workbench" "User Commands"'
    yield ".SH NAME"
    yield f"{name} \\- {escaped(summary[:1].lower() + summary[1:])}"
    yield ".SH SYNOPSIS"
    yield f".B {name}"
    yield r".I COMMAND"
    yield r"[\fIOPTION\fR]... [\fIARGUMENT\fR]..."
    yield ".SH DESCRIPTION"
    yield from _text(group.help or "")
    yield ".PP"
    yield f"\\fB{name}\\fR \\fICOMMAND\\fR \\fB{escaped('--help')}\\fR tells of one command."


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context)
        yield f'.SS "{escaped(f"{group.name} {name}")}"'
        yield ".nh"
        pieces = escaped(" ".join(command.collect_usage_pieces(below)))
        yield f"\\fB{escaped(f'{group.name} {name}')}\\fR {pieces}"
        yield ".hy"
        yield ".PP"
        yield from _text(command.help or "")
        yield from _options(command, below)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            yield from _item(*record)


def _exit_codes() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    yield "Of several findings the largest wins."
    for code in ExitCode:
        yield from _item(str(int(code)), code.meaning)


def _environment() -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    for name, text in _ENVIRONMENT.items():
        yield from _item(name, text)


def _files() -> Iterator[str]:
    yield ".SH FILES"
    yield "In the checkout, in the cache and in the state directory:"
    paths = Paths(Path(), Path("$KPW_CACHE"), Path("$KPW_STATE"))
    for name, member in vars(Paths).items():
        if isinstance(member, cached_property):
            place = getattr(paths, name)
            said = (member.__doc__ or "").replace("``", "").partition("\n")[0]
            yield from _item(str(place), said)


def _item(head: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield f"\\fB{escaped(head)}\\fR"
    yield escaped(text) or "\\&"


def _text(text: str) -> Iterator[str]:
    """Yield a help text's paragraphs: filled, but for those click would not fill either."""
    paragraphs = inspect.cleandoc(text).partition("\f")[0].strip("\n").split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        lines = paragraph.split("\n")
        if lines[0].strip(" ") == _UNFILLED:
            yield ".nf"
            yield from map(escaped, lines[1:])
            yield ".fi"
        else:
            yield from (escaped(line.strip(" ")) for line in lines)
