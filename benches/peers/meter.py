"""What the kernel has counted for a server while it was loaded."""

from __future__ import annotations

import time

import machine


class Meter:
    """The CPU time of some processes and of their core, between `start` and `stop`."""

    def __init__(self, pids: set[int], core: int):
        self._pids, self._core = pids, core
        softirq_thread = machine.softirq_thread(core)
        self._kernel = set() if softirq_thread is None else {softirq_thread}

    def start(self) -> None:
        self._core_before, self._began = machine.core_seconds(self._core), time.monotonic()
        self._own_before, self._kernel_before = machine.cpu_of(self._pids), machine.cpu_of(self._kernel)

    def stop(self) -> None:
        # What the kernel put off from the server's system calls to its own thread is the server's cost too.
        self.deferred = machine.cpu_of(self._kernel) - self._kernel_before
        self.cpu = machine.cpu_of(self._pids) - self._own_before + self.deferred
        self.elapsed = time.monotonic() - self._began
        core_after = machine.core_seconds(self._core)
        busy, stolen = (after - before for after, before in zip(core_after, self._core_before))
        self.others = max(stolen, busy - self.cpu, 0.0)
