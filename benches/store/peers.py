#!/usr/bin/env python3
"""Checks the benchmark's own LRU and S3-FIFO, and shows more policies, with libCacheSim on the same requests.

Usage: STORE_BENCH_TRACES=DIR cargo bench --bench store -- tiers && benches/store/peers.py DIR
Needs the package `libcachesim`.
"""

import csv
import pathlib
import sys

import libcachesim as sim

CAPACITY = (64 << 20) // 8 * 7
POLICIES = {"LRU": sim.LRU, "S3-FIFO": sim.S3FIFO, "W-TinyLFU": sim.WTinyLFU, "ARC": sim.ARC, "SIEVE": sim.Sieve}


def replay(cache: sim.CacheBase, requests: list[tuple[int, int]]) -> tuple[float, float]:
    """Hit ratios of objects and of bytes, in per cent."""
    hits = hit_bytes = total = 0
    request = sim.Request()
    for identifier, size in requests:
        request.obj_id, request.obj_size = identifier, size
        total += size
        if cache.get(request):
            hits += 1
            hit_bytes += size
    return 100 * hits / len(requests), 100 * hit_bytes / total


def main() -> None:
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.csv")):
        with path.open() as file:
            requests = [(int(row[1]) + 1, int(row[2])) for row in csv.reader(file)]
        for name, policy in POLICIES.items():
            objects, size = replay(policy(CAPACITY), requests)
            print(f"{path.stem:24} {name:10} {objects:6.2f} {size:6.2f}", flush=True)


if __name__ == "__main__":
    main()
