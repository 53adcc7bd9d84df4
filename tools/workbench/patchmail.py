# SPDX-License-Identifier: GPL-2.0-only
"""Write a patch as a file of patches/: the mail ``git format-patch --full-index`` would write.

What was read is what is written: message, author and hunks are those of the
source, only the frame around them is ours.
"""

from __future__ import annotations

import email.header
import email.utils
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from workbench.errors import InfraError
from workbench.patchfile import PatchFile, parse_patch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.filechange import FileChange
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.mailhead import Mail

_NAME_LENGTH: Final = 52
_HEADER_WIDTH: Final = 76
_ZERO: Final = "0" * 40


def file_name(number: int, subject: str) -> str:
    """Return ``0001-subject-in-short.patch``, as git makes it of a subject."""
    words = re.sub(r"[^A-Za-z0-9._]+", "-", subject)
    words = re.sub(r"\.{2,}", ".", words)
    return f"{number:04}-{words.strip('-.')[:_NAME_LENGTH].rstrip('-.')}.patch"


def head(mail: Mail) -> bytes:
    """Return what a patch file begins with, up to the line ``---``."""
    text = mail.message.partition("\n")[2]
    encoded = (
        ""
        if text.isascii()
        else "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n"
        "Content-Transfer-Encoding: 8bit\n"
    )
    body = text.strip("\n")
    last = f"{body}\n" if body else ""
    return (
        f"From {_ZERO} Mon Sep 17 00:00:00 2001\n"
        f"From: {email.utils.formataddr((mail.name, mail.email))}\n"
        f"Date: {_date(mail.date)}\n"
        f"Subject: {_subject(mail.subject)}\n{encoded}\n{last}"
    ).encode()


def render(store: Store, patch: PatchFile) -> bytes:
    """Return the file's bytes; InfraError when they would read back as something else."""
    mail = patch.mail
    stat = store.git("apply", "--stat", "--summary", "-", input=patch.diff)
    frame = head(mail) + f"---\n{stat}\n\n".encode()
    data = frame + patch.diff + b"-- \nkpw\n\n"
    again = parse_patch(patch.path, data)
    if (again.mail, again.diff) != (mail, patch.diff):
        raise InfraError("cannot be written as a mail", where=str(patch.path))
    return data


def patch_id(store: Store, patch: PatchFile) -> str:
    """Return git's stable patch id: the same wherever the hunks stand."""
    return store.git("patch-id", "--stable", input=patch.diff).partition(" ")[0]


def with_full_ids(
    patch: PatchFile, before: Mapping[str, Entry | None], after: Mapping[str, Entry | None]
) -> PatchFile:
    """Return it with whole blob ids where the source had short ones, or none.

    ``before`` and ``after`` are its files as they were when it was applied
    where it was made. What the source says otherwise is left as it is.
    """
    changes = tuple(_widened(change, before, after) for change in patch.changes)
    return replace(patch, changes=changes)


def _widened(
    change: FileChange, before: Mapping[str, Entry | None], after: Mapping[str, Entry | None]
) -> FileChange:
    if not change.hunks:
        return change
    old, new = (
        entries.get(name) if name else None
        for entries, name in ((before, change.old), (after, change.new))
    )
    old_oid, new_oid = (entry.oid if entry else _ZERO for entry in (old, new))
    if not (old_oid.startswith(change.old_oid) and new_oid.startswith(change.new_oid)):
        return change
    mode = f" {old.mode}" if old and new and old.mode == new.mode else ""
    line = f"index {old_oid}..{new_oid}{mode}\n".encode()
    lines = change.text.splitlines(keepends=True)
    at = next(n for n, each in enumerate(lines) if each.startswith((b"index ", b"--- ")))
    lines[at : at + lines[at].startswith(b"index ")] = [line]
    return replace(change, old_oid=old_oid, new_oid=new_oid, text=b"".join(lines))


def _date(date: str) -> str:
    """Turn git's seconds and zone into a mail's date."""
    seconds, zone = date.split(" ")
    sign = -1 if zone.startswith("-") else 1
    offset = sign * (int(zone[1:3]) * 60 + int(zone[3:5])) * 60
    # The wall clock of that zone, under the zone's own name.
    clock = email.utils.formatdate(int(seconds) + offset).rpartition(" ")[0]
    return f"{clock} {zone}"


def _subject(subject: str) -> str:
    text = f"[PATCH] {subject}"
    if text.isascii():
        return text
    return email.header.Header(text, "utf-8", _HEADER_WIDTH, "Subject").encode()
