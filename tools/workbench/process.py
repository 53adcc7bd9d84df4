# SPDX-License-Identifier: GPL-2.0-only
"""The door to other programs: the only module that imports subprocess.

Every child runs in a session of its own and is killed as a group when its
context ends; ``setpriv --pdeathsig`` (util-linux) makes the kernel kill it
when the workbench itself is killed with SIGKILL. A child that forks
(``contained=True``) also gets a pid namespace, so that its grandchildren die
with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from workbench.errors import DeadlineError, InfraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Popen = subprocess.Popen
STDOUT = subprocess.STDOUT
TimeoutExpired = subprocess.TimeoutExpired
DEVNULL = subprocess.DEVNULL
PIPE = subprocess.PIPE


@dataclass(frozen=True)
class Completed:
    """A finished program: ``stdout`` and ``stderr`` are empty where they went to a file."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def last_line(self) -> str:
        """Return the last line it wrote to stderr (or stdout), for a message."""
        lines = [line for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"no output, exit code {self.returncode}"


def which(program: str) -> str:
    """Return the path of a program, or raise InfraError that says how to get it."""
    found = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise InfraError(
            f"{program} is not installed", next_step="run 'tools/kpw doctor' to see how to mend it"
        )
    return found


@contextlib.contextmanager
def spawned(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int | None = subprocess.DEVNULL,
    stdout: IO[bytes] | int | None = subprocess.PIPE,
    stderr: IO[bytes] | int | None = subprocess.PIPE,
    contained: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background; on leaving, its whole group is gone.

    ``env`` is the whole environment (None: ours). ``contained`` puts it in a
    pid namespace of its own (needs root or user namespaces).
    """
    words = [str(word) for word in argv]
    program = [which(words[0]), *words[1:]]
    prefix = [which("setpriv"), "--pdeathsig", "KILL", "--"]
    if contained:
        unshare = [which("unshare"), "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        if os.geteuid() != 0:
            unshare.insert(1, "--map-root-user")
        prefix += [*unshare, "--"]
    try:
        child = subprocess.Popen(
            [*prefix, *program],
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise InfraError(
            f"cannot start {words[0]}: {error}", next_step="run 'tools/kpw doctor'"
        ) from error
    try:
        yield child
    finally:
        kill_group(child)


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a child's process group and reap it; no error when it is gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    log: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
    contained: bool = False,
) -> Completed:
    """Run a program to its end; seconds for ``timeout``, past which DeadlineError is raised.

    With ``log`` both streams go there (appended). ``check`` raises InfraError
    on a non-zero exit, quoting the last line; a finding is had by
    ``check=False`` and reading the return code.
    """
    words = tuple(str(word) for word in argv)
    with contextlib.ExitStack() as stack:
        out_to: IO[bytes] | int = subprocess.PIPE
        err_to = subprocess.PIPE
        if log is not None:
            out_to, err_to = stack.enter_context(log.open("ab")), subprocess.STDOUT
        child = stack.enter_context(
            spawned(
                words,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=out_to,
                stderr=err_to,
                contained=contained,
            )
        )
        done = _ended(child, words, stdin, timeout)
    if check and done.returncode != 0:
        where = f"{words[0]} (exit code {done.returncode})"
        look = f"see {log}" if log is not None else "'tools/kpw doctor' tells what this host lacks"
        raise InfraError(done.last_line(), where=where, next_step=look)
    return done


def _ended(
    child: subprocess.Popen[bytes],
    words: tuple[str, ...],
    stdin: bytes | None,
    timeout: float | None,
) -> Completed:
    """Feed a child and wait for its end; DeadlineError when that does not come in time."""
    try:
        out, err = child.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(
            f"no end after {timeout:.0f} s",
            where=words[0],
            next_step="run it again, or see 'tools/kpw doctor'",
        ) from error
    return Completed(
        words,
        child.returncode,
        (out or b"").decode(errors="replace"),
        (err or b"").decode(errors="replace"),
    )
