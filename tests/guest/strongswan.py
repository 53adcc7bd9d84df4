# SPDX-License-Identifier: GPL-2.0-only
"""strongSwan as it is: a charon in each namespace of several, told what to do by swanctl.

They share the guest's file system: charon-systemd writes no pid file, and
everything else but the ha plugin's FIFO has its name from a strongswan.conf of
its own. NOTIFY_SOCKET says when it is ready, so nothing sleeps.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xfrm_attributes as xa
from namespaces import SetUpError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

    import xfrm_structures as xs
    from namespaces import Namespace, Pair
    from xfrm_netlink import XfrmSocket

#: Where ESP in UDP and, with NAT or "encap = yes", IKE is spoken.
NAT_T_PORT = 4500

_READY_SECONDS = 40
_LOOK_SECONDS = 0.2
_LOG_LINES = 6
_SYS_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)

# The fewest plugins that speak IKEv2 with a shared key: each more is looked for,
# loaded and tested while a slow CPU waits.
_STRONGSWAN_CONF = """
charon {{
  load = random nonce aes sha1 sha2 hmac kdf gcm curve25519 kernel-netlink socket-default vici{more}
  threads = {threads}
  # A second; with 0 the old inbound SAs stay until they expire.
  delete_rekeyed_delay = 1
  filelog {{
    log {{
      path = {folder}/charon.log
      default = 1
      flush_line = yes
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{folder}/vici
    }}
{plugins}
  }}
{lines}
}}
swanctl {{
  load = random
}}
"""

_PLUGIN = """
    {name} {{
      {lines}
    }}
"""

_CONNECTION = """
  {name} {{
    version = 2
    mobike = no
    proposals = aes128gcm16-prfsha256-curve25519
    local_addrs = {local}
    remote_addrs = {remote}
    {lines}
    local {{
      auth = psk
      {local_id}
    }}
    remote {{
      auth = psk
      {remote_id}
    }}
    children {{
{children}
    }}
  }}
"""

_CHILD = """
      {name} {{
        esp_proposals = aes128gcm16
        {lines}
      }}
"""

_SHARED_KEY = """
secrets {
  ike {
    secret = "shared by both ends"
  }
}
"""


@dataclass(frozen=True)
class Connection:
    """One connection of one end.

    ``lines`` are further lines of swanctl.conf, as are those of each of its
    ``children``, such as ``mode = transport``. The identities are the
    addresses where none is given.
    """

    name: str
    local: str
    remote: str
    children: Mapping[str, tuple[str, ...]]
    lines: tuple[str, ...] = ()
    local_id: str = ""
    remote_id: str = ""

    def text(self) -> str:
        """Return it as swanctl.conf has it; the parser wants one key a line."""
        children = (
            _CHILD.format(name=name, lines="\n        ".join(lines))
            for name, lines in self.children.items()
        )
        return _CONNECTION.format(
            name=self.name,
            local=self.local,
            remote=self.remote,
            lines="\n    ".join(self.lines),
            children="".join(children),
            local_id=self.local_id and f"id = {self.local_id}",
            remote_id=self.remote_id and f"id = {self.remote_id}",
        )


@dataclass(frozen=True)
class Setting:
    """What one charon's strongswan.conf has besides what all have.

    ``lines`` are of the charon section, ``plugins`` are loaded as well, each
    with its own lines. With ``own_run`` /var/run is its folder: the ha plugin
    makes its FIFO there.
    """

    lines: tuple[str, ...] = ()
    plugins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    threads: int = 8
    own_run: bool = False

    def text(self, folder: Path) -> str:
        """Return strongswan.conf."""
        plugins = (
            _PLUGIN.format(name=name, lines="\n      ".join(lines))
            for name, lines in self.plugins.items()
        )
        return _STRONGSWAN_CONF.format(
            folder=folder,
            more="".join(f" {name}" for name in self.plugins),
            threads=self.threads,
            plugins="".join(plugins),
            lines="\n".join(f"  {line}" for line in self.lines),
        )

    def command(self, folder: Path) -> list[str]:
        """Return what starts it."""
        if not self.own_run:
            return ["charon-systemd"]
        script = 'mount --bind "$0" /var/run && exec charon-systemd'
        return ["unshare", "--mount", "sh", "-c", script, str(folder)]


@dataclass(frozen=True)
class Configuration:
    """What one charon is given to load; ``pools`` are names and ranges of virtual addresses."""

    connections: tuple[Connection, ...]
    pools: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """Return swanctl.conf."""
        connections = "".join(each.text() for each in self.connections)
        pools = "".join(f"  {name} {{\n    addrs = {addrs}\n  }}\n" for name, addrs in self.pools)
        return f"connections {{{connections}}}\npools {{\n{pools}}}\n{_SHARED_KEY}"


@dataclass(frozen=True)
class Wanted:
    """A charon that is to run: where, how it is set and what it is given to load."""

    namespace: Namespace
    configuration: Configuration
    setting: Setting = field(default_factory=Setting)


@dataclass(frozen=True)
class Charon:
    """A running charon and the folder it was given."""

    namespace: Namespace
    folder: Path
    process: subprocess.Popen[bytes]

    def swanctl(self, *words: str) -> str:
        """Run swanctl on it; SetUpError also says how charon's log ends."""
        argv = ["swanctl", *words, "--uri", f"unix://{self.folder}/vici"]
        try:
            return self.namespace.run(argv, environment=_environment(self.folder))
        except SetUpError as error:
            raise SetUpError(f"{error}; {self.log_end()}") from error

    def load(self, configuration: Configuration) -> None:
        """Load connections, pools and secrets in place of what it had."""
        (self.folder / "swanctl.conf").write_text(configuration.text(), encoding="ascii")
        self.swanctl("--load-all", "--noprompt")

    def initiate(self, name: str) -> None:
        """Bring a child up, and its connection first; returns when its SAs are in the kernel."""
        self.swanctl("--initiate", "--child", name, "--timeout", "30")

    def rekey(self, name: str) -> None:
        """Ask for new SAs of a child; they come a little later."""
        self.swanctl("--rekey", "--child", name)

    def terminate(self, name: str) -> None:
        """Take a connection down, and wait for the other end's word of it."""
        self.swanctl("--terminate", "--ike", name, "--timeout", "30")

    def log(self) -> str:
        """Return all it has logged."""
        return (self.folder / "charon.log").read_text(errors="replace")

    def log_end(self) -> str:
        """Return the last lines of what it and its peer said, as one line."""
        return "; ".join(_log_end(folder) for folder in sorted(self.folder.parent.iterdir()))

    def udp_socket(self, family: int, port: int) -> socket.socket:
        """Return charon's own socket of a family and port, to look at its options or set one.

        By pidfd_getfd(2): closing it leaves charon's open.
        """
        pidfd = os.pidfd_open(self.process.pid)
        try:
            for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
                found = _socket_of(pidfd, int(entry.name))
                if found is None:
                    continue
                # The type first: only UDP's name is sure to have a port.
                if (found.family, found.type) == (family, socket.SOCK_DGRAM) and (
                    found.getsockname()[1] == port
                ):
                    return found
                found.close()
        finally:
            os.close(pidfd)
        raise SetUpError(
            f"charon of {self.namespace.label} has no socket of family {family} on port {port}"
        )


def _log_end(folder: Path) -> str:
    said = []
    for name in ("output", "charon.log"):
        with contextlib.suppress(FileNotFoundError):
            said += (folder / name).read_text(errors="replace").splitlines()
    end = " | ".join(line.strip() for line in said[-_LOG_LINES:])
    return f"charon of {folder.name} said last: {end or 'nothing'}"


def _socket_of(pidfd: int, number: int) -> socket.socket | None:
    """Return a descriptor of another process as a socket; None where it is none, or gone."""
    taken = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if taken < 0:
        return None
    try:
        return socket.socket(fileno=taken)
    except OSError:
        os.close(taken)
        return None


def _environment(folder: Path) -> dict[str, str]:
    return {
        "STRONGSWAN_CONF": str(folder / "strongswan.conf"),
        "SWANCTL_DIR": str(folder),
        "NOTIFY_SOCKET": str(folder / "notify"),
    }


@contextlib.contextmanager
def _starting(wanted: Wanted, folder: Path) -> Iterator[tuple[Charon, socket.socket]]:
    """Start a charon and give it with the socket on which it will say that it is ready."""
    namespace, setting = wanted.namespace, wanted.setting
    with contextlib.ExitStack() as undo:
        folder.mkdir()
        conf = setting.text(folder)
        (folder / "strongswan.conf").write_text(conf, encoding="ascii")
        notify = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(folder / "notify"))
        notify.settimeout(_LOOK_SECONDS)
        process = undo.enter_context(
            namespace.daemon(
                setting.command(folder),
                output=folder / "output",
                environment=_environment(folder),
            )
        )
        yield Charon(namespace, folder, process), notify


def _wait_until_ready(charon: Charon, notify: socket.socket) -> None:
    until = time.monotonic() + _READY_SECONDS
    said: list[str] = []
    while "READY=1" not in said:
        # Looked at first: what it said before it ended is still there to be read.
        code = charon.process.poll()
        late = time.monotonic() >= until
        try:
            said = notify.recv(4096).decode().splitlines()
        except TimeoutError:
            if code is not None:
                raise SetUpError(f"charon ended with {code}; {charon.log_end()}") from None
            if late:
                raise SetUpError(
                    f"charon not ready after {_READY_SECONDS} s; {charon.log_end()}"
                ) from None


@contextlib.contextmanager
def several(*wanted: Wanted) -> Iterator[tuple[Charon, ...]]:
    """Run charons, each with its configuration loaded, and end them all."""
    with contextlib.ExitStack() as undo:
        made = tempfile.TemporaryDirectory(prefix="charons-")
        parent = Path(undo.enter_context(made))
        # All start before any is waited for.
        starting = [
            undo.enter_context(_starting(each, parent / each.namespace.label)) for each in wanted
        ]
        for (charon, notify), each in zip(starting, wanted, strict=True):
            _wait_until_ready(charon, notify)
            charon.load(each.configuration)
        yield tuple(charon for charon, _ in starting)


@contextlib.contextmanager
def charons(
    pair: Pair, left: Configuration, right: Configuration
) -> Iterator[tuple[Charon, Charon]]:
    """Run a charon on either side of a pair, each with its configuration loaded; end both."""
    with several(Wanted(pair.left, left), Wanted(pair.right, right)) as (one, other):
        yield one, other


def with_extra_flags(sa: xs.Sa, flags: int) -> xs.Sa:
    """Return an SA of charon's, as dumped, with these XFRMA_SA_EXTRA_FLAGS.

    charon has no word for them.
    """
    kept = tuple(
        (name, value)
        for name, value in sa.attributes
        # A dump tells more than we have names for, the time of last use for one.
        if name.startswith("XFRMA_") and name != "XFRMA_SA_EXTRA_FLAGS"
    )
    return replace(sa, attributes=(*kept, xa.extra_flags(flags)))


def put_in_place(xfrm: XfrmSocket, sa: xs.Sa) -> None:
    """Put an SA in the place of the one there is, for what UPDSA does not change.

    charon goes on with it: SPI, keys and sequence numbers are the same.
    """
    xfrm.delete(sa)
    xfrm.add(sa)
