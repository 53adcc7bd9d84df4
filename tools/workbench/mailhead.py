# SPDX-License-Identifier: GPL-2.0-only
"""Read the part of a patch mail that becomes a commit: author, date, message.

What comes out is what ``git am`` would make of the same mail (a test compares
the two). Only what ``git format-patch`` writes is taken: one part, not
encoded for transport.
"""

from __future__ import annotations

import email.errors
import email.header
import email.utils
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FIELD = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*)")
_MBOX = re.compile(rb"From \S+ ")
_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]*): *(\S.*)")
_BRACKETS = re.compile(r"(?:\s|:|\[[^\]]*\]|[Rr][Ee]:)*")
_PATCH_STARTS = re.compile(rb"diff -|Index: |---(?:\s*$| \S)")
_PLAIN_ENCODINGS = {"", "7bit", "8bit", "binary"}
_AGAIN = "write it anew with 'git format-patch --full-index'"


@dataclass(frozen=True)
class Mail:
    """The commit a patch asks for.

    ``date`` is seconds since 1970 and a zone, as git writes it
    (``1700000000 +0100``). ``message`` is the whole commit message, ended by
    a newline; ``trailers`` are the ``Key: value`` lines of its last paragraph.
    """

    name: str
    email: str
    date: str
    subject: str
    message: str
    trailers: tuple[tuple[str, str], ...]

    def trailer(self, key: str) -> tuple[str, ...]:
        """Return the values of a trailer (Applied-Upstream, Origin, ...), case ignored."""
        return tuple(value for name, value in self.trailers if name.lower() == key.lower())


def read_mail(path: Path, lines: list[bytes]) -> tuple[Mail, int]:
    """Read the head of a patch file; also return the index of the first line after it.

    ``lines`` keep their newlines. UsageError names file and line.
    """
    fields, start = _fields(path, lines)
    charset = _charset(path, fields)
    body_fields, start = _body_fields(path, lines, start, charset)
    end = next((i for i in range(start, len(lines)) if _PATCH_STARTS.match(lines[i])), len(lines))
    fields |= body_fields
    subject = _subject(path, fields)
    author = _author(path, fields)
    body = _decoded(path, lines[start:end], start, charset)
    message = tidied([subject, "", *body])
    mail = Mail(*author, _date(path, fields), subject, message, _trailers(message))
    return mail, end


def with_trailers(mail: Mail, lines: Sequence[str]) -> Mail:
    """Return a mail with more trailers at the end of its message; those it has are left out."""
    has = {line.lower() for line in mail.message.splitlines()}
    new = [line for line in lines if line.lower() not in has]
    if not new:
        return mail
    gap = "" if mail.trailers else "\n"
    message = mail.message + gap + "\n".join(new) + "\n"
    return replace(mail, message=message, trailers=_trailers(message))


def refused(path: Path, line: int, what: str, next_step: str = _AGAIN) -> UsageError:
    """Say what is wrong with a patch file, at a 1-based line.

    What is quoted from it must not speak to the terminal.
    """
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in what)
    return UsageError(shown, where=f"{path}:{line}", next_step=next_step)


_Fields = dict[str, tuple[int, str]]


def _fields(path: Path, lines: list[bytes]) -> tuple[_Fields, int]:
    """Read the header: each field with its line; and where the body starts."""
    fields: _Fields = {}
    last = ""
    at = 1 if lines and _MBOX.match(lines[0]) else 0
    for number in range(at, len(lines)):
        line = lines[number]
        if line.endswith(b"\r\n"):
            raise refused(path, number + 1, "lines end in CR LF", "convert the file with dos2unix")
        text = line.rstrip()
        if not text:
            if not fields:
                break
            return fields, number + 1
        if line[:1] in b" \t" and last:
            start, value = fields[last]
            fields[last] = start, f"{value} {_utf8(path, number, text.lstrip())}"
        elif match := _FIELD.fullmatch(text):
            last = match[1].decode("ascii").lower()
            fields[last] = number + 1, _utf8(path, number, match[2])
        else:
            break
    raise refused(path, min(at + 1, max(len(lines), 1)), "no mail header (From, Date, Subject)")


def _utf8(path: Path, number: int, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise refused(path, number + 1, "the header is not UTF-8") from error


def _charset(path: Path, fields: _Fields) -> str:
    line, encoding = fields.get("content-transfer-encoding", (1, ""))
    if encoding.lower() not in _PLAIN_ENCODINGS:
        raise refused(path, line, f"encoded for transport ({encoding})")
    line, kind = fields.get("content-type", (1, "text/plain"))
    if not kind.lower().startswith("text/plain"):
        raise refused(path, line, f"not a plain text mail ({kind.split(';')[0]})")
    match = re.search(r"charset=\"?([\w.:-]+)", kind, re.IGNORECASE)
    return match[1] if match else "utf-8"


def _body_fields(path: Path, lines: list[bytes], start: int, charset: str) -> tuple[_Fields, int]:
    """Read From:, Date: and Subject: at the top of the body, which outrank the header's."""
    while start < len(lines) and not lines[start].strip():
        start += 1
    fields: _Fields = {}
    for number in range(start, len(lines)):
        match = _FIELD.fullmatch(lines[number].rstrip())
        if match is None or match[1].lower() not in {b"from", b"date", b"subject"}:
            return (fields, number) if fields else ({}, start)
        (value,) = _decoded(path, [match[2]], number, charset)
        fields[match[1].decode().lower()] = number + 1, value
    return {}, start


def _field(path: Path, fields: _Fields, name: str) -> tuple[int, str]:
    line, value = fields.get(name.lower(), (1, ""))
    return line, _words(path, line, name, value)


def _words(path: Path, line: int, name: str, value: str) -> str:
    """Decode the words of a field."""
    try:
        chunks = email.header.decode_header(value)
        text = "".join(
            chunk if isinstance(chunk, str) else chunk.decode(charset or "raw-unicode-escape")
            for chunk, charset in chunks
        )
    except (ValueError, LookupError, email.errors.HeaderParseError) as error:
        raise refused(path, line, f"{name}: cannot be decoded") from error
    text = " ".join(text.split())
    if not text or any(not char.isprintable() for char in text):
        raise refused(path, line, f"{name}: is missing or not readable text")
    return text


def _subject(path: Path, fields: _Fields) -> str:
    line, text = _field(path, fields, "Subject")
    subject = text[_BRACKETS.match(text).end() :]  # type: ignore[union-attr]  # matches nothing, too
    if not subject:
        raise refused(path, line, "Subject: says nothing")
    return subject


def _author(path: Path, fields: _Fields) -> tuple[str, str]:
    line, text = _field(path, fields, "From")
    # An encoded name may hold a comma, which would end the address: decode it last.
    name, address = email.utils.parseaddr(fields["from"][1])
    if "@" not in address:
        name, address = email.utils.parseaddr(text)
    name = _words(path, line, "From", name) if name else address
    if "@" not in address or set("<>\n") & set(name + address):
        raise refused(path, line, f"From: {text!r} is not 'Name <address>'")
    return name, address


def _date(path: Path, fields: _Fields) -> str:
    line, text = _field(path, fields, "Date")
    parsed = None
    try:
        parsed = email.utils.parsedate_tz(text)
        seconds = int(email.utils.mktime_tz(parsed)) if parsed else -1
    except (ValueError, TypeError, IndexError, OverflowError):
        seconds = -1
    if parsed is None or not 0 <= seconds < 1 << 40:
        raise refused(path, line, f"Date: {text!r} is not a mail's date")
    offset = (parsed[9] or 0) // 60
    sign = "-" if offset < 0 else "+"
    return f"{seconds} {sign}{abs(offset) // 60:02}{abs(offset) % 60:02}"


def _decoded(path: Path, lines: list[bytes], start: int, charset: str) -> list[str]:
    decoded = []
    for number, line in enumerate(lines, start):
        try:
            decoded.append(line.decode(charset))
        except (UnicodeError, LookupError) as error:
            raise refused(path, number + 1, f"the message is not {charset}") from error
        if "\0" in decoded[-1]:
            raise refused(path, number + 1, "a NUL byte in the message")
    return decoded


def tidied(lines: list[str]) -> str:
    """Strip as ``git stripspace`` does: ends of lines, blank lines at both ends and in a row."""
    kept: list[str] = []
    for line in (each.rstrip(" \t\n\r\v\f") for each in lines):
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n"


def _trailers(message: str) -> tuple[tuple[str, str], ...]:
    """Read the last paragraph, if there is one after the subject."""
    _, _, last = message.rstrip("\n").rpartition("\n\n")
    if not message.startswith(last):
        matches = (_TRAILER.fullmatch(line) for line in last.splitlines())
        return tuple((match[1], match[2]) for match in matches if match)
    return ()
