"""What idle connections cost: a fresh server's memory, before and after thousands of them have had one hit each."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import machine
import probe
from cells import Cell
from peer import Peer
from rig import Rig
from samples import Sample

# What the first connections of a kind set up for all belongs to none of them.
FIRST = 50
SETTLE_SECONDS = 2
TIMEOUT_SECONDS = 20
SPARE_FILES = 200

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
SETTINGS, HEADERS, ACK, END_STREAM, END_HEADERS = 4, 1, 1, 1, 4


def measure(kind: type[Peer], cell: Cell, etag: str, number: int, ground: Rig) -> Sample:
    """One round: a server of its own, so that no earlier connection has left memory behind for these."""
    _allow_files(cell.connections + FIRST + SPARE_FILES)
    server = kind(ground, cell.tier)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        probe.verify(server, cell, etag)
        for _ in range(FIRST):
            stack.enter_context(_served(server, cell))
        time.sleep(SETTLE_SECONDS)
        before, _ = machine.memory_kib(server.pids())
        cpu_before, began = machine.cpu_of(server.pids()), time.monotonic()
        for _ in range(cell.connections):
            stack.enter_context(_served(server, cell))
        elapsed, cpu = time.monotonic() - began, machine.cpu_of(server.pids()) - cpu_before
        time.sleep(SETTLE_SECONDS)
        own, resident = machine.memory_kib(server.pids())
    return Sample(
        round=number,
        requests_per_second=cell.connections / elapsed,
        cpu_us=cpu / cell.connections * 1e6,
        p50_us=0,
        p99_us=0,
        own_kib=own,
        resident_kib=resident,
        server_share=cpu / elapsed,
        softirq_share=0,
        others_share=0,
        idle_kib=(own - before) / cell.connections,
    )


def _allow_files(needed: int) -> None:
    limit = machine.allow_files(needed)
    if needed > limit:
        raise probe.Wrong(f"{needed} open files are needed: the limit is {limit}")


def _served(server: Peer, cell: Cell) -> socket.socket:
    """A connection that has had the object once, to the last byte."""
    port = server.port(cell.protocol)
    if cell.protocol != "h2":
        connection = probe.connect(port, cell.protocol != "plain")
        answer = probe.exchange(connection, f"GET {cell.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        if answer.status != 200 or answer.body != cell.content:
            raise probe.Wrong(f"status {answer.status} and {len(answer.body)} body bytes before the idle time")
        return connection
    connection = probe.connect(port, tls=True, protocol="h2")
    _get_h2(connection, f"127.0.0.1:{port}", cell)
    return connection


def _get_h2(connection: socket.socket, authority: str, cell: Cell) -> None:
    """One GET on stream 1, by HPACK's static table and literals, and all frames up to its end."""
    assert isinstance(connection, ssl.SSLSocket)
    path, host = cell.path.encode(), authority.encode()
    block = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01" + bytes([len(host)]) + host
    connection.sendall(PREFACE + _frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
    received, body = bytearray(), bytearray()
    while True:
        while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3], "big"):
            chunk = connection.recv(1 << 16)
            if not chunk:
                raise probe.Wrong("the connection ended before it was idle")
            received += chunk
        length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
        payload = bytes(received[9 : 9 + length])
        del received[: 9 + length]
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(_frame(SETTINGS, ACK, 0, b""))
        if kind == 0:
            body += payload
        if kind in (0, HEADERS) and flags & END_STREAM:
            break
    if body != cell.content:
        raise probe.Wrong(f"{len(body)} body bytes, which are not those that were asked for")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
