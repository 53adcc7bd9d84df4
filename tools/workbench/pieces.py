# SPDX-License-Identifier: GPL-2.0-only
"""The commits of a branch as patches: what a file would say of each."""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import patchmail, patchtext
from workbench.errors import UsageError
from workbench.gitstore import Store
from workbench.mailhead import Mail, read_mail, tidied
from workbench.patchfile import parse_patch
from workbench.resolutions import patch_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT: Final = 12
#: Of git log: commit, tree, first parent's tree is asked for apart.
_FIELDS: Final = ("%H", "%an", "%ae", "%ad", "%s", "%b")
_DIFF: Final = b"diff --git "


@dataclass(frozen=True)
class Piece:
    """One commit as a patch.

    ``body`` is what stands below ``---``: statistics and the diff; empty when
    the commit changes nothing. ``patch_id`` is git's stable one.
    """

    commit: str
    mail: Mail
    body: bytes
    patch_id: str

    @property
    def author(self) -> tuple[str, str, str]:
        """Who wrote it, and when: what amending and rebasing leave as they are."""
        return self.mail.name, self.mail.email, self.mail.date

    @property
    def diff(self) -> bytes:
        """The body without its statistics."""
        _, mark, rest = self.body.partition(_DIFF)
        return mark + rest

    @property
    def name(self) -> str:
        """How a message calls it."""
        return called(self.commit, self.mail.subject)


def called(commit: str, subject: str) -> str:
    """Return a commit's short id and subject, as git log would show it."""
    return f"{commit[:_SHORT]} ({subject})"


@contextlib.contextmanager
def shielded(git_dir: Path) -> Iterator[Store]:
    """Give a repository with the objects of another one, and none of its settings."""
    with tempfile.TemporaryDirectory(prefix="kpw-edit-") as name:
        quiet = Store(Path(name) / "git")
        quiet.git("init", "--quiet", "--bare", "--template=", quiet.path)
        info = quiet.path / "objects" / "info"
        info.mkdir(exist_ok=True)
        (info / "alternates").write_text(f"{git_dir}/objects\n")
        yield quiet


def read(store: Store, below: str, tip: str) -> tuple[Piece, ...]:
    """Return the commits of ``below..tip``, the oldest first.

    UsageError for one that no patch file can hold.
    """
    with tempfile.TemporaryDirectory(prefix="kpw-edit-") as name:
        return tuple(
            _piece(store, Path(name), fields) for fields in _logged(store, f"{below}..{tip}")
        )


def _logged(store: Store, span: str) -> Iterator[list[str]]:
    words = ("log", "--reverse", "--topo-order", "-z", "--encoding=UTF-8", "--date=raw")
    _, out, _ = store.git_bytes(*words, f"--format={'%x00'.join(_FIELDS)}", span)
    fields = [each.decode(errors="surrogateescape") for each in out.split(b"\0")[:-1]]
    for at in range(0, len(fields), len(_FIELDS)):
        yield fields[at : at + len(_FIELDS)]


def _piece(store: Store, folder: Path, fields: list[str]) -> Piece:
    commit, *words = fields
    mail = _mail(commit, *words)
    body = patchtext.body(store, folder, f"{commit}~^{{tree}}", f"{commit}^{{tree}}")
    piece = Piece(commit, mail, body, "")
    if body:
        try:
            parse_patch(Path(piece.name), patchtext.fresh(mail, body, ""))
        except UsageError as error:
            raise UsageError(
                error.what, where=piece.name, next_step="'git rebase -i' there, and edit it"
            ) from error
    return Piece(commit, mail, body, patch_id(store, piece.diff))


def _mail(commit: str, *words: str) -> Mail:
    """Read a commit's author and message as they come back out of a patch file."""
    name, address, date, subject, rest = words
    where = Path(called(commit, subject))
    message = tidied([subject, "", *rest.split("\n")])
    meant = Mail(name, address, date, subject, message, ())
    try:
        head = patchmail.head(meant) + b"---\n"
        mail, _ = read_mail(where, io.BytesIO(head).readlines())
    except UnicodeEncodeError as error:
        raise _unfit(where, "its message is not UTF-8") from error
    except UsageError as error:
        raise _unfit(where, error.what) from error
    for what, ours, wanted in (
        ("author", (mail.name, mail.email, mail.date), (name, address, date)),
        ("subject", mail.subject, subject),
        ("message", mail.message, message),
    ):
        if ours != wanted:
            raise _unfit(where, f"a mail cannot hold its {what}: it would come back otherwise")
    return mail


def _unfit(where: Path, what: str) -> UsageError:
    return UsageError(what, where=str(where), next_step="say it otherwise: 'git rebase -i', reword")
