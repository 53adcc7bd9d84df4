# SPDX-License-Identifier: GPL-2.0-only
"""Load and unload the modules that came with the kernel, and stand in for modprobe.

As a program it loads the modules it is given, in that order:

    python3 kernel_modules.py NAME...
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FOLDER = Path("/payload/modules")

_MODPROBE = Path("/proc/sys/kernel/modprobe")
# glibc has both calls in no header, but has them.
_libc = ctypes.CDLL(None, use_errno=True)


def load(name: str) -> None:
    """Load a module, those it needs being there; OSError as init_module(2) gives."""
    image = (FOLDER / f"{name}.ko").read_bytes()
    _checked(_libc.init_module(image, ctypes.c_ulong(len(image)), b""), name)


def unload(name: str) -> None:
    """Unload a module, or OSError at once: EWOULDBLOCK when it is in use."""
    _checked(_libc.delete_module(name.encode(), os.O_NONBLOCK), name)


def try_to_unload(name: str) -> bool:
    """Unload a module unless it is in use; one that is not loaded is as good."""
    try:
        unload(name)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EBUSY}:
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


def loaded() -> set[str]:
    """Return the names of the modules that are loaded."""
    lines = Path("/proc/modules").read_text(encoding="ascii").splitlines()
    return {line.partition(" ")[0] for line in lines}


@contextlib.contextmanager
def modprobe(program: str) -> Iterator[None]:
    """Let the kernel run a program, given by its path, when it wants a module; "" for none."""
    before = _MODPROBE.read_text(encoding="ascii").strip()
    _MODPROBE.write_text(f"{program}\n", encoding="ascii")
    try:
        yield
    finally:
        _MODPROBE.write_text(f"{before}\n", encoding="ascii")


class Modprobe:
    """A program for :func:`modprobe` that knows a few aliases and notes what it was asked for."""

    def __init__(self, folder: Path, known: Mapping[str, Sequence[str]]) -> None:
        """Write it into ``folder``; ``known`` has the modules to load, in order, by alias."""
        self.path = str(folder / "modprobe")
        self._notes = folder / "asked"
        self._notes.touch()
        words = (sys.executable, "-B", __file__)
        cases = "".join(
            f"{shlex.quote(alias)}) exec {shlex.join((*words, *names))} ;;\n"
            for alias, names in known.items()
        )
        # The kernel gives "-q -- ALIAS".
        script = f'#!/bin/sh\necho "$3" >>{shlex.quote(str(self._notes))}\n'
        script += f'case "$3" in\n{cases}esac\nexit 1\n'
        file = Path(self.path)
        file.write_text(script, encoding="ascii")
        file.chmod(0o755)

    def asked(self) -> list[str]:
        """Return the aliases it was asked for, in order."""
        return self._notes.read_text(encoding="ascii").split()


def _checked(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        load(wanted)
