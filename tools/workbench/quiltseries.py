# SPDX-License-Identifier: GPL-2.0-only
"""A quilt series to be imported: the file ``series``, and patches with free or DEP-3 heads.

A DEP-3 head (Description, Author, Origin, ...) becomes a mail's: the
description is subject and text, and what else it says becomes trailers, since
those survive ``git am``.
"""

from __future__ import annotations

import email.utils
import re
from typing import TYPE_CHECKING, Final

from workbench import plaindiff
from workbench.errors import UsageError
from workbench.exportfolder import QUILT_SERIES
from workbench.gitsettings import EPOCH
from workbench.mailhead import refused
from workbench.mailthread import Thread
from workbench.post import Post
from workbench.treepath import outside

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.plaindiff import Line

_FIELD = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*)")
_BASE = re.compile(r"^# base-commit: ([0-9a-f]{40,64})$", re.MULTILINE)
_Field = tuple[str, list["Line"]]
_AUTHOR: Final = ("from", "author")
_SUBJECT: Final = ("subject", "description")
_NOT_TRAILERS: Final = {
    *(*_AUTHOR, *_SUBJECT, "date", "last-update", "message-id"),
    *("mime-version", "content-type", "content-transfer-encoding"),
}


def read(folder: Path) -> Thread:
    """Read a series in the order of its file; UsageError names file and line."""
    listed = folder / QUILT_SERIES
    try:
        text = listed.read_text(encoding="utf-8")
        posts = [
            _post(file, file.read_bytes())
            for number, line in enumerate(text.splitlines(), 1)
            if (file := _file(folder, listed, number, line)) is not None
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(listed)) from error
    if not posts:
        raise UsageError("there is no patch in it", where=str(listed))
    match = _BASE.search(text)
    return Thread(tuple(posts), base_commit=match[1] if match else "")


def _file(folder: Path, listed: Path, number: int, line: str) -> Path | None:
    words = line.partition("#")[0].split()
    if not words:
        return None
    name, *options = words
    if options not in ([], ["-p1"]):
        raise refused(listed, number, f"{' '.join(options)}: only -p1 is understood", _P1)
    if reason := outside(name):
        raise refused(listed, number, f"{name!r} {reason}", _P1)
    return folder / name


_P1: Final = "refresh the patch with 'quilt refresh -p1'"


def _post(path: Path, data: bytes) -> Post:
    """Return a patch as a mail; one that is a mail already, with git's diff, is left alone."""
    lines: list[Line] = [(line, at) for at, line in enumerate(data.split(b"\n"), 1)]
    if lines and not lines[-1][0]:
        lines.pop()
    end = next((i for i, (text, _) in enumerate(lines) if plaindiff.STARTS.match(text)), None)
    if end is None:
        raise refused(path, max(len(lines), 1), "there is no diff in it")
    fields, rest = _fields(lines[:end])
    is_mail = {"from", "date", "subject"} <= {name for name, _ in fields}
    is_git = any(text.startswith(b"diff --git ") for text, _ in lines)
    if is_mail and is_git:
        return Post.whole(path, data)
    head = lines[:end] if is_mail else _mail_head(path, fields, rest)
    whole = [*head, (b"---", lines[end][1]), *plaindiff.as_git(path, lines[end:])]
    text = b"".join(line + b"\n" for line, _ in whole)
    return Post(path, text, (*(at for _, at in whole), lines[-1][1]))


def _fields(lines: list[Line]) -> tuple[list[_Field], list[Line]]:
    """Split a head into its fields and the text after them."""
    fields: list[_Field] = []
    at = 1 if lines and lines[0][0].startswith(b"From ") else 0
    for index in range(at, len(lines)):
        text, number = lines[index]
        if match := _FIELD.fullmatch(text):
            fields.append((match[1].decode().lower(), [(match[2].strip(), number)]))
        elif fields and text[:1] in (b" ", b"\t"):
            fields[-1][1].append((text[1:], number))
        else:
            return fields, lines[index:]
    return fields, []


def _mail_head(path: Path, fields: list[_Field], rest: list[Line]) -> list[Line]:
    """Make a mail's head out of a DEP-3 one; UsageError when author or subject are missing."""
    author = next((lines for name, lines in fields if name in _AUTHOR), None)
    subject = next((lines for name, lines in fields if name in _SUBJECT), None)
    date = next((lines for name, lines in fields if name == "date"), None)
    if author is None:
        raise refused(path, 1, "it names no author (From: or Author:)", _HEAD)
    if subject is None or not subject[0][0]:
        raise refused(path, 1, "it names no subject (Subject: or Description:)", _HEAD)
    (title, line), *described = subject
    stated = date[0] if date else (_NO_DATE, line)
    head = [
        (b"From: " + author[0][0], author[0][1]),
        (b"Date: " + stated[0], stated[1]),
        (b"Subject: " + title, line),
        (b"", line),
    ]
    text = [(b"" if each == b"." else each, at) for each, at in described]
    text += [each for each in rest if each[0].rstrip() != b"---"]
    trailers = [
        (name.title().encode() + b": " + b" ".join(each for each, _ in lines), lines[0][1])
        for name, lines in fields
        if name not in _NOT_TRAILERS
    ]
    gap = [(b"", line)] if trailers and text else []
    return [*head, *text, *gap, *trailers]


# What git writes for a commit of ours that has no date of its own.
_NO_DATE: Final = email.utils.formatdate(int(EPOCH.split()[0])).encode()
_HEAD: Final = "write 'From: Name <address>' and 'Subject: ...' at its top"
