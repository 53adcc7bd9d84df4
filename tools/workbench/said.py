# SPDX-License-Identifier: GPL-2.0-only
"""What a verb says at its end, to a person or to a program, and its exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from workbench.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Said:
    """``lines`` are for a person, ``data`` for a program: the names of the JSON at its top."""

    lines: Sequence[str]
    data: dict[str, Any]
    code: ExitCode = ExitCode.GOOD

    def tell(self, version: int, *, as_json: bool) -> ExitCode:
        """Print the lines, or the data under ``version`` of the verb's JSON; return the code."""
        if as_json:
            told = {"kpw": version, "exit_code": int(self.code)} | self.data
            click.echo(json.dumps(told, indent=1))
        else:
            click.echo("\n".join(self.lines))
        return self.code
