"""Runs every check and prints `N passed, N failed`. Names given on the command line choose among them."""

import sys
import traceback

import faults
import images
import manifests
import monitoring
import unit

CHECKS = [check for module in (monitoring, faults, unit, manifests, images) for check in module.CHECKS]


def main():
    chosen = [c for c in CHECKS if not sys.argv[1:] or any(word in c.__name__ for word in sys.argv[1:])]
    failed = 0
    for check in chosen:
        try:
            check()
            print(f"ok      {check.__name__}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {check.__name__}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    print(f"{len(chosen) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not chosen else 0)


main()
