# SPDX-License-Identifier: GPL-2.0-only
"""Taking a snapshot of a QEMU that does not do what it is asked: a server stands for it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from workbench import snapshot
from workbench.snapshot import NotTakenError, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
Answer = dict[str, Any] | None


class ToyQemu:
    """Answers QMP as ``answer`` says, None breaks the connection; keeps what it was asked."""

    def __init__(self, folder: Path, answer: Callable[[str], Answer]) -> None:
        """Listen where :class:`Snapshot` expects QEMU."""
        self.asked: list[str] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "qmp"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(ConnectionError):
            self._say(connection, GREETING)
            for word in self._heard(connection):
                self.asked.append(word["execute"])
                answer = self._answer(word["execute"])
                if answer is None:
                    return
                self._say(connection, {**answer, **({"id": word["id"]} if "id" in word else {})})

    def _heard(self, connection: socket.socket) -> Iterator[dict[str, Any]]:
        """Yield messages as they come: nothing but their own braces ends one."""
        text = ""
        while chunk := connection.recv(4096):
            text = (text + chunk.decode()).lstrip()
            with contextlib.suppress(ValueError):
                while text:
                    message, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:].lstrip()
                    yield message

    def _say(self, connection: socket.socket, message: dict[str, Any]) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Callable[[str], Answer]], ToyQemu]]:
    made: list[ToyQemu] = []

    def begin(answer: Callable[[str], Answer]) -> ToyQemu:
        made.append(ToyQemu(tmp_path, answer))
        return made[-1]

    yield begin
    for each in made:
        each.end()


def migration(status: str) -> Callable[[str], Answer]:
    """Return the answers of a QEMU whose migration stands like that."""

    def answer(word: str) -> Answer:
        return {"return": {"status": status} if word == "query-migrate" else {}}

    return answer


@pytest.mark.parametrize(("status", "kept"), [("completed", True), ("failed", False)])
def test_a_guest_goes_on_whatever_became_of_its_state(
    tmp_path: Path,
    start: Callable[[Callable[[str], Answer]], ToyQemu],
    status: str,
    kept: bool,  # noqa: FBT001 - pytest's
) -> None:
    qemu = start(migration(status))
    shot = Snapshot(tmp_path / "snapshots" / "x")
    shot.take(tmp_path)
    assert shot.exists() is kept
    assert qemu.asked[-1] == "cont"


def test_a_qemu_that_never_comes_to_an_end_is_given_up(
    tmp_path: Path,
    start: Callable[[Callable[[str], Answer]], ToyQemu],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "_PATIENCE", 0.3)
    qemu = start(migration("active"))
    with pytest.raises(NotTakenError, match="TimeoutError") as caught:
        Snapshot(tmp_path / "snapshots" / "x").take(tmp_path)
    assert "--cold" in caught.value.next_step
    assert "query-migrate" in qemu.asked
    assert list((tmp_path / "snapshots").iterdir()) == []


@pytest.mark.parametrize("last", ["qmp_capabilities", "getfd", "migrate"])
def test_a_qemu_that_goes_away_is_given_up(
    tmp_path: Path, start: Callable[[Callable[[str], Answer]], ToyQemu], last: str
) -> None:
    start(lambda word: None if word == last else {"return": {}})
    with pytest.raises(NotTakenError):
        Snapshot(tmp_path / "snapshots" / "x").take(tmp_path)


def test_no_place_for_a_snapshot_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "snapshots").touch()
    with pytest.raises(NotTakenError):
        Snapshot(tmp_path / "snapshots" / "x").take(tmp_path)
