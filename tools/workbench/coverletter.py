# SPDX-License-Identifier: GPL-2.0-only
"""The cover letter: patches/cover-letter.j2 filled in. The only module that knows Jinja2."""

from __future__ import annotations

import email
import email.header
import email.policy
import email.utils
import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import EmailMessage
    from pathlib import Path

    from workbench.model import Kernel
    from workbench.tested import TestedKernel

TEMPLATE: Final = "cover-letter.j2"
_HEADER_WIDTH: Final = 76
_TEXT_WIDTH: Final = 72
# By what a list's item begins with.
_INDENTS: Final = {"- ": "  ", "  ": "    "}
_PREFIX: Final = re.compile(r"\[([^\]]*)\]\s*")
_WHOM: Final = ("To", "Cc")


@dataclass(frozen=True)
class LetterPatch:
    """A patch of the set: ``number`` counts from 1, ``restored`` tells it is upstream's text.

    ``unconfirmed`` tells that a conflict in it was resolved from memory, and
    that no selftest has seen the result work.
    """

    number: int
    subject: str
    restored: bool
    unconfirmed: bool = False


@dataclass(frozen=True)
class LetterExtension:
    """An extension that was asked for, and its patches in the set; ``left_out`` need none here.

    ``why`` is what it is for, in the lines its author broke it into.
    """

    id: str
    name: str
    summary: str
    requires: tuple[str, ...]
    patches: tuple[LetterPatch, ...]
    left_out: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Letter:
    """All that the template is given; texts have no line end of their own.

    ``shortlog`` and ``diffstat`` are git's, ``changes`` a range-diff to the
    version called ``earlier``; both empty when there is none. ``local_base``
    tells that no other clone has the kernel's commit.
    """

    kernel: Kernel
    version: int
    extensions: tuple[LetterExtension, ...]
    shortlog: str
    diffstat: str
    tested: tuple[TestedKernel, ...] = ()
    earlier: str = ""
    changes: str = ""
    title: str = ""
    local_base: bool = False


@dataclass(frozen=True)
class Cover:
    """The letter as a mail: ``commit`` is the series' last, ``prefix`` as in ``PATCH v2 0/7``.

    ``sender`` and ``date`` are as a mail's header has them, an empty sender
    leaves it out. ``to`` and ``cc`` are addresses as people spell them.
    """

    commit: str
    prefix: str
    date: str
    sender: str
    subject: str
    body: str
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()

    def mail(self) -> bytes:
        """Return it as a file beside format-patch's."""
        lines = [f"From {self.commit} Mon Sep 17 00:00:00 2001"]
        if self.sender:
            lines.append(f"From: {self.sender}")
        lines.append(f"Date: {self.date}")
        lines.append(f"Subject: {_folded(f'[{self.prefix}] {self.subject}')}")
        lines += _listed("To", self.to)
        lines += _listed("Cc", self.cc)
        if not self.body.isascii():
            lines.append("MIME-Version: 1.0")
            lines.append("Content-Type: text/plain; charset=UTF-8")
            lines.append("Content-Transfer-Encoding: 8bit")
        return ("\n".join(lines) + "\n\n" + self.body.strip("\n") + "\n").encode()

    def text(self) -> str:
        """Return what a person words: the subject, the addresses, a line each, and the body."""
        addresses = [f"To: {each}" for each in self.to] + [f"Cc: {each}" for each in self.cc]
        return "\n".join((self.subject, *addresses, "", self.body.strip("\n"), ""))

    def with_text(self, text: str) -> Cover:
        """Return it with what :meth:`text` gives, changed."""
        head, _, body = text.partition("\n\n")
        subject, *addresses = head.splitlines()
        pairs = [line.partition(": ") for line in addresses]
        to, cc = (tuple(each for name, _, each in pairs if name == wanted) for wanted in _WHOM)
        return replace(self, subject=subject, to=to, cc=cc, body=body)

    def for_b4(self, *added: str) -> bytes:
        """Return it as ``b4 prep --edit-cover`` takes it, without texts that b4 adds itself.

        Those are ``added``, the base and the signature; addresses are trailers.
        """
        body = self.body.rpartition("\nbase-commit: ")[0] or self.body
        for text in added:
            body = body.replace(f"\n{text}\n", "\n") if text else body
        lines = [f"To: {each}" for each in self.to] + [f"Cc: {each}" for each in self.cc]
        whom = "\n\n" + "\n".join(lines) if lines else ""
        paragraphs = re.sub(r"\n{3,}", "\n\n", body).strip("\n")
        return f"{self.subject}\n\n{paragraphs}{whom}\n".encode()


def spelt_out(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return addresses of a mail's header as people spell them."""
    factory = email.policy.default.header_factory
    return tuple(str(each) for field in addresses for each in factory("To", field).addresses)


def parsed(mail: bytes) -> Cover:
    """Read a letter that was written here, and perhaps worded since."""
    first, _, rest = mail.partition(b"\n")
    message = email.message_from_bytes(rest, policy=email.policy.default)
    subject = " ".join(str(message.get("Subject", "")).split())
    match = _PREFIX.match(subject)
    to, cc = (spelt_out(str(field) for field in message.get_all(name, ())) for name in _WHOM)
    return Cover(
        commit=first.decode(errors="replace").split(" ")[1],
        prefix=match[1] if match else "",
        date=str(message.get("Date", "")),
        sender=_raw(message, "From"),
        subject=subject[match.end() :] if match else subject,
        body=rest.partition(b"\n\n")[2].decode(errors="replace"),
        to=to,
        cc=cc,
    )


def render(template: Path, letter: Letter) -> tuple[str, str]:
    """Return subject and body; UsageError when the template is bad.

    The template's first line is the subject.
    """
    subject, _, body = _rendered(template, letter).partition("\n")
    return subject.strip(), body.strip("\n")


def _raw(message: EmailMessage, name: str) -> str:
    """Return a field as it is spelt, in one line."""
    found = next((value for key, value in message.raw_items() if key == name), "")
    return " ".join(str(found).split())


def _rendered(template: Path, letter: Letter) -> str:
    import jinja2

    values: dict[str, Any] = {name: getattr(letter, name) for name in letter.__dataclass_fields__}
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # a mail's text, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wrapped"] = _wrapped
    try:
        text = environment.from_string(template.read_text(encoding="utf-8")).render(values)
    except jinja2.TemplateSyntaxError as error:
        where = f"{template}:{error.lineno}"
        raise UsageError(error.message or "not a template", where=where) from error
    except jinja2.TemplateError as error:
        raise UsageError(str(error), where=str(template), next_step="mend it there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(template)) from error
    if not text.strip():
        raise UsageError("says nothing", where=str(template))
    return text.lstrip("\n")


def _wrapped(text: str) -> str:
    """Break a paragraph or a list's item into lines; long words and dashes stay whole."""
    return textwrap.fill(
        text,
        _TEXT_WIDTH,
        subsequent_indent=_INDENTS.get(text[:2], ""),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _folded(subject: str) -> str:
    if subject.isascii():
        return subject
    return email.header.Header(subject, "utf-8", _HEADER_WIDTH, "Subject").encode()


def _listed(name: str, addresses: tuple[str, ...]) -> list[str]:
    if not addresses:
        return []
    pairs = (email.utils.parseaddr(each) for each in addresses)
    return [f"{name}: " + ",\n\t".join(email.utils.formataddr(each) for each in pairs)]


def address(name: str, mailbox: str) -> str:
    """Return an address as a header spells it."""
    return email.utils.formataddr((name, mailbox))
