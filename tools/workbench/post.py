# SPDX-License-Identifier: GPL-2.0-only
"""One mail that is to be imported, and where each of its lines stood in the user's file.

Mails come out of an mbox, may be encoded for transport, and quilt's patches
are put into git's form; a fault is still told at the line the user has.
"""

from __future__ import annotations

import email.errors
import email.header
import email.parser
import email.utils
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError
from workbench.mailhead import with_trailers
from workbench.patchfile import PatchFile, parse_patch

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

_BRACKET = re.compile(r"\[([^\]]*)\]")
_PLACE = re.compile(r"(?:^|\s)(\d+)/(\d+)$")
_VERSION = re.compile(r"(?:^|\s|PATCH)v(\d+)(?:\s|$)", re.IGNORECASE)
_REPLY = re.compile(r"\s*(?:re|aw|antw|fwd?|sv)\s*:", re.IGNORECASE)
_ID = re.compile(r"<[^<>\s]+>")
#: How a diff begins, whoever wrote it.
DIFF = re.compile(rb"^(?:diff --git a/|--- a/|Index: )", re.MULTILINE)
_BASE = re.compile(rb"^base-commit: ([0-9a-f]{40,64})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Tag:
    """What stands in a subject's brackets: ``[PATCH v2 3/7]`` is version 2, number 3 of 7.

    0 for what is not said.
    """

    version: int = 1
    number: int | None = None
    count: int = 0


@dataclass(frozen=True)
class Post:
    """A mail: ``data`` in the form :func:`parse_patch` takes.

    ``origin`` has, for each line of ``data``, its 1-based line in ``path``.
    ``given`` are trailers that answers to it gave.
    """

    path: Path
    data: bytes
    origin: tuple[int, ...]
    given: tuple[str, ...] = ()

    @classmethod
    def whole(cls, path: Path, data: bytes, start: int = 0) -> Post:
        """Take lines as they are; ``start`` is the 0-based line of the first one."""
        count = data.count(b"\n") + 1
        return cls(path, data, tuple(range(start + 1, start + count + 1)))

    @cached_property
    def _head(self) -> Message:
        return email.parser.BytesHeaderParser().parsebytes(self._without_separator)

    @property
    def _without_separator(self) -> bytes:
        return self.data.partition(b"\n")[2] if self.data.startswith(b"From ") else self.data

    @cached_property
    def subject(self) -> str:
        """The subject with its brackets; empty when there is none that can be read."""
        raw = self._field("subject")
        try:
            parts = email.header.decode_header(" ".join(raw.split()))
            text = "".join(
                part if isinstance(part, str) else part.decode(charset or "utf-8", "replace")
                for part, charset in parts
            )
        except (LookupError, email.errors.HeaderParseError):
            return raw
        return " ".join(text.split())

    def _field(self, wanted: str) -> str:
        """Return a field as it is spelt, in one line; empty when there is none."""
        # Not get(): that takes bytes beyond ASCII for lost.
        items = self._head.raw_items()
        found = next((str(value) for name, value in items if name.lower() == wanted), "")
        data = found.encode(errors="surrogateescape")
        return " ".join(data.decode(errors="replace").split())

    @property
    def message_id(self) -> str:
        """Its name in a thread; empty when it has none."""
        match = _ID.search(self._field("message-id"))
        return match[0] if match else ""

    @property
    def answers(self) -> tuple[str, ...]:
        """The mails it stands below in a thread, the nearest first."""
        above = reversed(_ID.findall(self._field("references")))
        return tuple(dict.fromkeys((*_ID.findall(self._field("in-reply-to")), *above)))

    @property
    def sender(self) -> str:
        """The address it is from."""
        return email.utils.parseaddr(self._field("from"))[1]

    @property
    def text(self) -> str:
        """What is below its header."""
        charset = self._head.get_content_charset("utf-8")
        body = self._without_separator.partition(b"\n\n")[2]
        try:
            return body.decode(charset, errors="replace")
        except LookupError:
            return body.decode(errors="replace")

    @property
    def is_reply(self) -> bool:
        """Tell whether it answers a mail."""
        return _REPLY.match(self.subject) is not None

    @property
    def has_diff(self) -> bool:
        """Tell whether there is anything like a diff in it."""
        return DIFF.search(self.data) is not None

    @property
    def _plain_subject(self) -> str:
        rest = self.subject
        while match := _REPLY.match(rest):
            rest = rest[match.end() :].lstrip()
        return rest

    @property
    def tag(self) -> Tag:
        """What its subject's brackets say."""
        version, number, count = 1, None, 0
        rest = self._plain_subject
        while match := _BRACKET.match(rest):
            words = match[1].strip()
            if place := _PLACE.search(words):
                number, count = int(place[1]), int(place[2])
            if said := _VERSION.search(words):
                version = int(said[1])
            rest = rest[match.end() :].lstrip()
        return Tag(version, number, count)

    @property
    def title(self) -> str:
        """The subject without its brackets, and without what makes it a reply's."""
        rest = self._plain_subject
        while match := _BRACKET.match(rest):
            rest = rest[match.end() :].lstrip()
        return rest

    @property
    def base_commit(self) -> str:
        """The commit it says it was made on; empty when it says nothing."""
        match = _BASE.search(self.data)
        return match[1].decode() if match else ""

    @property
    def where(self) -> str:
        """Its place, for a message."""
        return f"{self.path}:{self.origin[0]}"

    def refused(self, what: str, next_step: str = "") -> UsageError:
        """Say what is wrong with it as a whole."""
        return UsageError(what, where=self.where, next_step=next_step or _MEND)

    def patch(self) -> PatchFile:
        """Read it strictly; UsageError names the line in the user's file."""
        try:
            found = parse_patch(self.path, self.data)
            return replace(found, mail=with_trailers(found.mail, self.given))
        except UsageError as error:
            name, _, line = error.where.rpartition(":")
            if name != str(self.path) or not line.isdecimal():
                raise
            at = self.origin[min(int(line), len(self.origin)) - 1]
            where = f"{self.path}:{at}"
            raise UsageError(error.what, where=where, next_step=error.next_step) from error


_MEND: Final = "mend it, or take it out of the file"
