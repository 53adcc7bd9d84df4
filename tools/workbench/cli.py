# SPDX-License-Identifier: GPL-2.0-only
"""The command line: verbs found by listing a folder, and how every way out is told.

Only the verb that is asked for is imported: ``kpw test`` does not pay for
what ``kpw fetch`` needs.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import select
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench import ending, interrupt
from workbench.ending import Ending
from workbench.errors import ExitCode
from workbench.options import COMPLETE_VARIABLE
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = Path(__file__).parent / "commands"


class Verbs(click.Group):
    """A group whose commands are the files of a folder, one verb each."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs, by name."""
        return verbs()

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import the verb's module and return its ``command``."""
        if cmd_name not in verbs():
            return None
        module = importlib.import_module(f"workbench.commands.{cmd_name.replace('-', '_')}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__file__} has no click command named 'command'")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; the nearest name is suggested for a mistyped one."""
        word = args[0]
        if word.startswith("-") or word in verbs():
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(word, verbs(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "'kpw --help' lists the commands"
        raise click.UsageError(f"no command {word!r}; {hint}", ctx)


def verbs() -> list[str]:
    """Return the names of all verbs: the files of the commands folder."""
    found = (path.stem for path in _COMMANDS.glob("*.py"))
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


group = Verbs(
    name="kpw",
    help="The kernel patch workbench: from a kernel tag and a patch series to a verdict.",
    # \b keeps the lines as they are.
    epilog="\b\nExit codes:\n" + "\n".join(f"  {code:<4} {code.meaning}" for code in ExitCode),
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing is raised.

    Whatever goes wrong becomes one line on stderr. A signal unwinds the
    stack first, so that every child and every temporary file is gone.
    """
    try:
        with interrupt.as_exceptions():
            if COMPLETE_VARIABLE in os.environ:
                sys.stdout.write(_completed(os.environ[COMPLETE_VARIABLE]))
                return ExitCode.GOOD
            code = _invoke(list(argv) or ["--help"])
            sys.stdout.flush()
            return code
    except (Exception, KeyboardInterrupt, interrupt.Terminated) as error:  # noqa: BLE001 - the last door
        return _told(error)


def _told(error: BaseException) -> ExitCode:
    """Say in one line what ended the command, and return its exit code."""
    match error:
        case click.Abort():
            found = ending.of(KeyboardInterrupt())
        case click.ClickException():
            found = Ending(_usage_line(error), ExitCode.USAGE)
        case BrokenPipeError() if _reader_is_gone():
            # The reader went away ('kpw … | head'): nobody is left to be told,
            # and the interpreter must not complain when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.INFRA
        case _:
            found = ending.of(error)
    line = found.line if found.foreseen else f"{found.line}; {_kept(error)}"
    with contextlib.suppress(OSError):
        # A file's name need not be text.
        line = line.encode(errors="backslashreplace").decode()
        sys.stderr.write(f"kpw: {line}\n")
        sys.stderr.flush()
    return found.exit_code


def _invoke(argv: list[str]) -> int:
    """Run click without its own exits.

    A command returns an ExitCode, or the guest's own status for
    ``kpw boot TAG -- CMD``; one that returns nothing is good.
    """
    try:
        # None leaves it to click, which asks whether stdout is a terminal.
        colour = False if os.environ.get("NO_COLOR") else None
        with group.make_context("kpw", argv, color=colour) as context:
            result = group.invoke(context)
    except click.exceptions.Exit as leave:
        return ExitCode.GOOD if leave.exit_code == 0 else ExitCode.USAGE
    return result if isinstance(result, int) else ExitCode.GOOD


def _completed(instruction: str) -> str:
    """Answer a shell that completes a command line."""
    from workbench import completion

    return completion.answer(Paths.default(), group, instruction)


def _usage_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_of = context.command_path if context is not None else "kpw"
    return text if "--help" in text else f"{text.rstrip('.')} (see '{help_of} --help')"


def _reader_is_gone() -> bool:
    """Tell whether nobody reads our stdout: a pipe may also have broken to a child of ours."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _kept(error: BaseException) -> str:
    """Save a traceback wherever that is possible, and say in one phrase where it is."""
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace")
    # ValueError: of a name with a NUL in it.
    with contextlib.suppress(OSError, ValueError):
        own = Paths.default().state / "crashes"
        own.mkdir(parents=True, exist_ok=True)
        file = own / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        file.write_bytes(text)
        return f"the traceback is in {file}"
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(prefix="kpw-crash-", suffix=".txt")
        with os.fdopen(number, "wb") as stream:
            stream.write(text)
        return f"the traceback is in {name}"
    return "no place takes the traceback: neither KPW_STATE nor the temporary directory"
