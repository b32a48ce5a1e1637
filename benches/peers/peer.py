"""What is common to all servers: folder, ports, start, readiness, end."""

from __future__ import annotations

import pathlib
import subprocess
import tempfile
from abc import ABC, abstractmethod

import tools
from cells import TIERS, Cell
from rig import Process, Rig, accepts, free_port


class Peer(ABC):
    """One server, started once for each tier of a run, with a plain and a TLS port of its own.

    A subclass says what it needs and writes its configuration into `self.folder`; ports, start, readiness and end
    are done here.
    """

    name: str
    settings: str  # in a few words, for who reads the figures
    packages: dict[str, str] = {}  # program -> Debian package
    protocols: frozenset[str] = frozenset({"plain", "tls", "h2"})
    tiers: frozenset[str] = frozenset(TIERS)
    caches: bool = True  # whether there is an origin behind it that a hit must not reach

    def __init__(self, rig: Rig, tier: str = "memory"):
        self.rig = rig
        self.tier = tier
        root = rig.folder if tier == "memory" else rig.disk_folder
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=root))
        self.folder.chmod(0o755)
        self.plain_port, self.tls_port = free_port(), free_port()
        self._process: Process | None = None

    @classmethod
    def does(cls, cell: Cell) -> bool:
        """Whether the server takes part in a cell."""
        return cell.protocol in cls.protocols and cell.tier in cls.tiers

    def objects_in_memory(self) -> int | None:
        """How many objects its own memory holds before its disk; `None`: it does not say."""
        return None

    @abstractmethod
    def command(self) -> list[str]:
        """Writes what the server reads at its start, and returns the command that runs it in the foreground."""

    @abstractmethod
    def version(self) -> str:
        """Name and version in a few words, for the report."""

    def cores(self) -> str:
        """Those it may run on, as taskset names them."""
        return str(self.rig.server_core)

    def is_ready(self) -> bool:
        ports = [self.plain_port, self.tls_port] if "tls" in self.protocols else [self.plain_port]
        return all(accepts(port) for port in ports)

    def start(self) -> None:
        self._process = Process(self.name, self.command(), self.cores(), self.folder)
        self._process.wait_until(self.is_ready)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def pids(self) -> set[int]:
        assert self._process is not None, "only a started server has processes"
        return self._process.pids()

    def output(self) -> str:
        """What the server has written so far."""
        return self._process.log.read_text(errors="replace") if self._process is not None else ""

    def port(self, protocol: str) -> int:
        return self.plain_port if protocol == "plain" else self.tls_port

    def url(self, protocol: str, path: str) -> str:
        scheme = "http" if protocol == "plain" else "https"
        return f"{scheme}://127.0.0.1:{self.port(protocol)}{path}"


def program(name: str) -> str:
    """Where a program is."""
    path = tools.find(name)
    if path is None:
        raise tools.Missing(f"{name} is not installed")
    return str(pathlib.Path(path))


def first_line(command: list[str]) -> str:
    """The first line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().partition("\n")[0]
