# SPDX-License-Identifier: GPL-2.0-only
"""Network namespaces held by a descriptor, and veth pairs between them.

A namespace lives as long as its object: nothing is named under /run, so
nothing is left behind. The calling thread enters and leaves; a socket opened
inside stays there. The only module that starts other programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFREQ_FLAGS = struct.Struct("16sh22x")
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 10

_libc = ctypes.CDLL(None, use_errno=True)


class SetUpError(Exception):
    """The surroundings of a test could not be made; says nothing about the extension."""


def _checked(result: int, what: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise SetUpError(f"{what}: {os.strerror(errno)}")


class Namespace:
    """One network namespace with its loopback up and duplicate address detection off.

    ``label`` is for messages only.
    """

    def __init__(self, label: str) -> None:
        """Make it; needs CAP_SYS_ADMIN."""
        self.label = label
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _checked(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            for scope in ("all", "default"):
                _write_sysctl(f"net/ipv6/conf/{scope}/accept_dad", 0)
            _bring_loopback_up()
        finally:
            _checked(_libc.setns(home, _CLONE_NEWNET), "setns to the namespace we came from")
            os.close(home)

    def close(self) -> None:
        """Let go of it; the kernel takes it down once its sockets are closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def path(self) -> str:
        """How iproute2 names it (``netns PATH``), from any process of ours."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Put the calling thread into it, and back."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _checked(_libc.setns(self._fd, _CLONE_NEWNET), f"setns to {self.label}")
            yield
        finally:
            _checked(_libc.setns(home, _CLONE_NEWNET), "setns to the namespace we came from")
            os.close(home)

    def run(
        self, argv: Sequence[str], *, text: str = "", environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a program inside, ``text`` on its stdin; return its stdout or raise SetUpError.

        ``environment`` comes on top of ours.
        """
        env = {**os.environ, **(environment or {})}
        with self.inside():
            done = subprocess.run(
                argv, input=text, capture_output=True, text=True, check=False, env=env
            )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().replace("\n", "; ")
            raise SetUpError(f"{' '.join(argv)} in {self.label}: {said or done.returncode}")
        return done.stdout

    @contextlib.contextmanager
    def daemon(
        self, argv: Sequence[str], *, output: Path, environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program that stays, what it says going to ``output``; end it and wait for it."""
        with self.inside(), output.open("wb") as said:
            running = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        try:
            yield running
        finally:
            running.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(_PATIENCE_SECONDS)
            finally:
                running.kill()
                running.wait()

    def ip(self, *commands: str) -> None:
        """Run iproute2 commands ("link set veth up") in one process."""
        self.run(["ip", "-batch", "-"], text="\n".join(commands) + "\n")

    def sysctl(self, path: str, value: int) -> None:
        """Write a sysctl given as its path under /proc/sys."""
        with self.inside():
            _write_sysctl(path, value)

    def socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Open a socket inside; it never waits longer than five seconds."""
        with self.inside():
            opened = socket.socket(family, kind, proto)
        opened.settimeout(5)
        return opened

    def index(self, device: str) -> int:
        """Return a device's interface index."""
        with self.inside():
            return socket.if_nametoindex(device)


def _write_sysctl(path: str, value: int) -> None:
    Path("/proc/sys", path).write_text(str(value), encoding="ascii")


def _bring_loopback_up() -> None:
    # Nearly every test makes a namespace, and starting "ip" takes 0.1 s under TCG.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(b"lo", _IFF_UP))


@dataclass(frozen=True)
class Pair:
    """Two namespaces and a veth between them, ``veth`` on both sides.

    ``left`` has 10.9.0.1/24 and fd09::1/64, ``right`` .2 and ::2.
    """

    left: Namespace
    right: Namespace

    LEFT4 = "10.9.0.1"
    RIGHT4 = "10.9.0.2"
    LEFT6 = "fd09::1"
    RIGHT6 = "fd09::2"
    DEVICE = "veth"

    def addresses(self, family: int) -> tuple[str, str]:
        """Return the left and the right address of a family."""
        if family == socket.AF_INET:
            return self.LEFT4, self.RIGHT4
        return self.LEFT6, self.RIGHT6


@contextlib.contextmanager
def namespace(label: str) -> Iterator[Namespace]:
    """Make a namespace with its loopback up, and let go of it."""
    made = Namespace(label)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def veth_pair(*, left_has_addresses: bool = True) -> Iterator[Pair]:
    """Make two namespaces joined by a veth that is up and carries.

    Without ``left_has_addresses`` the left side has its link-local one only.
    """
    left_addresses = (
        f"addr add {Pair.LEFT4}/24 dev {Pair.DEVICE}",
        f"addr add {Pair.LEFT6}/64 dev {Pair.DEVICE} nodad",
    )
    left, right = Namespace("left"), Namespace("right")
    try:
        left.ip(
            f"link add {Pair.DEVICE} type veth peer name {Pair.DEVICE} netns {right.path}",
            *(left_addresses if left_has_addresses else ()),
            f"link set {Pair.DEVICE} up",
        )
        right.ip(
            f"addr add {Pair.RIGHT4}/24 dev {Pair.DEVICE}",
            f"addr add {Pair.RIGHT6}/64 dev {Pair.DEVICE} nodad",
            f"link set {Pair.DEVICE} up",
        )
        yield Pair(left, right)
    finally:
        left.close()
        right.close()


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Poll until a condition holds; False when ``seconds`` have passed without it."""
    until = time.monotonic() + seconds
    while True:
        # Looked at before the condition: a guest that was stalled in between
        # still gets its last look.
        late = time.monotonic() >= until
        if condition():
            return True
        if late:
            return False
        time.sleep(_POLL_SECONDS)


def goes_away(dying: Namespace, *, seconds: float = 20) -> bool:
    """Let go of a namespace and tell whether the kernel then takes it down.

    The end of a veth that stays outside is gone when the one inside is.
    """
    with namespace("witness") as witness:
        witness.ip(f"link add witness type veth peer name witness netns {dying.path}")
        dying.close()

        def names() -> list[str]:
            with witness.inside():
                return [name for _, name in socket.if_nameindex()]

        return wait_until(lambda: "witness" not in names(), seconds=seconds)
