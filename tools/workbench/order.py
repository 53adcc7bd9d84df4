# SPDX-License-Identifier: GPL-2.0-only
"""What the user asked for, as the verbs that run trials share it; light to import."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from workbench.errors import UsageError


class Red(StrEnum):
    """How the red is had: not at all, from memory if it is there, or anew."""

    NONE = "none"
    REMEMBERED = "remembered"
    ANEW = "anew"


_WORD: Final = re.compile(r"[\w:+\-.\[\]\\/]+")
_OPERATORS: Final = {"and", "or", "not"}
_NODES: Final = (ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Name, ast.Load)


def _is_expression(text: str) -> bool:
    """Tell whether it is one of pytest's: Python's, of words, three operators and parentheses."""
    if _WORD.sub("", text).strip("() \t"):
        return False
    plain = _WORD.sub(lambda word: word[0] if word[0] in _OPERATORS else "x", text)
    try:
        found = ast.parse(plain, mode="eval")
    except SyntaxError:
        return False
    return all(isinstance(node, _NODES) for node in ast.walk(found))


@dataclass(frozen=True)
class Order:
    """Kernels and extensions to try; ``tags`` empty means the default one.

    ``only`` and ``without`` are names or ids of extensions, ``repo`` the
    user's own git repository, ``expression`` pytest's ``-k``. With
    ``snapshot`` a guest that has booted before is restored.
    """

    tags: tuple[str, ...] = ()
    all_tags: bool = False
    repo: Path | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    flavour: str = "plain"
    arch: str = "x86_64"
    red: Red = Red.REMEMBERED
    expression: str = ""
    snapshot: bool = False

    def __post_init__(self) -> None:
        """Refuse an expression that pytest would refuse in the guest, after the build."""
        if self.expression.strip() and not _is_expression(self.expression.strip()):
            raise UsageError(
                f"-k {self.expression!r} is no expression",
                next_step="it takes words, 'and', 'or', 'not' and parentheses",
            )


@dataclass(frozen=True)
class Outputs:
    """Where reports go besides the terminal: (format, file name) pairs, ``-`` for stdout."""

    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **named: str | None) -> Outputs:
        """Take the options as click gives them; UsageError at once for what cannot be written."""
        files = tuple((kind, name) for kind, name in named.items() if name)
        for kind, name in files:
            refuse_unwritable(f"--{kind}", name)
        if sum(name == "-" for _, name in files) > 1:
            raise UsageError(
                "only one report can go to stdout", next_step="name files for the others"
            )
        return cls(files)

    @property
    def take_stdout(self) -> bool:
        """Tell that stdout belongs to a report; what people read then goes to stderr."""
        return any(name == "-" for _, name in self.files)


def refuse_unwritable(option: str, name: str) -> None:
    """Raise UsageError for a file that cannot be written; ``-`` is stdout."""
    folder = Path(name).absolute().parent
    if name != "-" and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UsageError(
            f"{folder} is not a directory to write to",
            where=f"{option} {name}",
            next_step="make it, or name a file elsewhere",
        )
    if Path(name).is_dir():
        raise UsageError(
            "that is a directory", where=f"{option} {name}", next_step="name a file in it"
        )
