"""What the kernel tells about processes and cores: CPU time, memory, who is whose child."""

from __future__ import annotations

import os
import pathlib
import resource
import time

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> set[int]:
    """`root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        # The command stands in parentheses and may hold anything; state and parent follow the last one.
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, ended ones included.

    The process's CPU clock counts in nanoseconds; `/proc/PID/stat` shows the same sum in ticks of 10 ms.
    """
    process_clock = (~pid) << 3 | 2  # clock_getcpuclockid(3): CPUCLOCK_SCHED of a whole process
    try:
        return time.clock_gettime(process_clock)
    except OSError:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def cpu_of(pids: set[int]) -> float:
    """That of some processes."""
    return sum(cpu_seconds(pid) for pid in pids)


def softirq_thread(core: int) -> int | None:
    """The kernel's thread for deferred network work of a core; `None` where it can't be seen."""
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == f"ksoftirqd/{core}":
                return int(entry.name)
        except OSError:
            continue
    return None


def core_seconds(core: int) -> tuple[float, float]:
    """(busy, stolen): time that a core was not idle, for whomever, and the part that a hypervisor gave to others."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            return (user + nice + system + irq + softirq + steal) / CLOCK_TICKS, steal / CLOCK_TICKS
    raise RuntimeError(f"this machine has no core {core}")


def allow_files(needed: int) -> int:
    """Raises the limit on open files, of this process and those that it starts, as far as it may be; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), max(hard, needed)))
    except (ValueError, PermissionError):  # only root may raise the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def memory_kib(pids: set[int]) -> tuple[int, int]:
    """(anonymous and shared, all resident) memory of some processes, in KiB; shared pages count in each of them."""
    own = resident = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssShmem"):
                own += int(value.split()[0])
            elif name == "VmRSS":
                resident += int(value.split()[0])
    return own, resident


def description() -> str:
    """The machine in a line: processor, cores, memory, kernel, and TCP's congestion control, which weighs on large bodies."""
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = os.uname()
    congestion = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {system.release}, TCP {congestion}"
