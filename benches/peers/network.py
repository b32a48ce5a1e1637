"""A loopback of the benchmark's own: a network namespace, in which TCP can be set otherwise than the machine has it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pathlib
import socket
import struct

_CLONE_NEWNET, _SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x40000000, 0x8913, 0x8914, 1
_CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")


def enter(congestion: str) -> None:
    """Moves this process, and whatever it starts from now on, to a network with nothing but a loopback.

    For as long as it lives; needs root. Raises RuntimeError where it can't be done, or the kernel does not allow such congestion control there.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise RuntimeError(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        def loopback(request: int, flags: int) -> int:
            return struct.unpack("16sH14x", fcntl.ioctl(any_socket, request, struct.pack("16sH14x", b"lo", flags)))[1]

        loopback(_SIOCSIFFLAGS, loopback(_SIOCGIFFLAGS, 0) | _IFF_UP)
    try:
        _CONGESTION.write_text(congestion)
    except OSError as error:
        allowed = pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().strip()
        raise RuntimeError(f"no congestion control {congestion!r} here; allowed are: {allowed}") from error
