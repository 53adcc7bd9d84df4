# SPDX-License-Identifier: GPL-2.0-only
"""Who is to be written to: the kernel's own get_maintainer.pl, of the very tree a patch is for.

The script reads MAINTAINERS and the patches, nothing else of the tree; so it
gets these alone, in the sandbox.
"""

from __future__ import annotations

import email.utils
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import process, sandbox
from workbench.errors import InfraError

if TYPE_CHECKING:
    from workbench.gitstore import Store

_SCRIPT: Final = "scripts/get_maintainer.pl"
_FILES: Final = (_SCRIPT, "MAINTAINERS", ".mailmap", ".get_maintainer.ignore")
# No git: the store has no history, and who changed a file once is not who is asked.
_WORDS: Final = ("--no-tree", "--nogit", "--nogit-fallback", "--norolestats", "--nomultiline")
_SEPARATOR: Final = "--separator=\n"
_ONE_ORDER: Final = {"PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"}
#: Seconds. A whole series takes about one; a machine that builds kernels meanwhile has no time.
DEADLINE: Final = 600.0


@dataclass(frozen=True)
class Addressees:
    """Addresses as a mail's header spells them: maintainers and reviewers, then lists."""

    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()


def ask(store: Store, tree: str, mails: bytes) -> Addressees | None:
    """Return who is to get these patches; None when the tree has no such script.

    ``mails`` are patches one after the other. InfraError when the script fails,
    DeadlineError when it comes to no end.
    """
    with tempfile.TemporaryDirectory(prefix="kpw-addressees-") as name:
        folder = Path(name)
        if not _laid_out(store, tree, folder):
            return None
        to = _said(folder, mails, "--nol")
        cc = _said(folder, mails, "--nom", "--nor")
    return Addressees(to, tuple(each for each in cc if each not in to))


def _laid_out(store: Store, tree: str, folder: Path) -> bool:
    for path in _FILES:
        data = store.read_file(tree, path)
        if data is None:
            if path in {_SCRIPT, "MAINTAINERS"}:
                return False
            continue
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return True


def _said(folder: Path, mails: bytes, *whom: str) -> tuple[str, ...]:
    sandbox.require()
    argv = ("perl", _SCRIPT, *_WORDS, _SEPARATOR, *whom)
    inside = sandbox.argv(argv, cwd=folder, writable=(), readable=(folder,))
    # Its own settings may lie in HOME; they are no part of the tree. It lists what Perl's
    # hashes hold, and without a seed in another order every time.
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **_ONE_ORDER}
    done = process.run(inside, env=env, stdin=mails, timeout=DEADLINE, check=False)
    if done.returncode != 0:
        raise InfraError(done.last_line(), where=_SCRIPT, next_step="or say --no-addresses")
    lines = (line.strip() for line in done.stdout.splitlines())
    return tuple(dict.fromkeys(_spelled(line) for line in lines if line))


def _spelled(line: str) -> str:
    """Return an address as a header may hold it: quoted, and in ASCII."""
    name, address = email.utils.parseaddr(line)
    if "@" not in address or any(char.isspace() or not char.isascii() for char in address):
        raise InfraError(f"{line!r} is no address", where=_SCRIPT)
    return email.utils.formataddr((name, address))
