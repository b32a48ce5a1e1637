"""Everything that must be there before the first measurement: Debian packages and our own programs."""

from __future__ import annotations

import functools
import glob
import os
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Missing(Exception):
    """Something needed is not there; the message says what to do."""


def install(packages: dict[str, str]) -> None:
    """Installs by apt-get what is missing of `packages` (program -> Debian package)."""
    absent = sorted({package for program, package in packages.items() if find(program) is None})
    if not absent:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Missing(f"install these first (as root: apt-get install {' '.join(absent)})")
    print(f"installing {', '.join(absent)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]
    for step in (["update"], ["install", "-y", "--no-install-recommends", *absent]):
        done = subprocess.run([*apt, *step], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise Missing(f"apt-get {step[0]} failed: {done.stderr.strip()[-500:]}")


def find(program: str) -> str | None:
    """The path of a program, also where only root's PATH has it; or the first file of a pattern with slashes."""
    if "/" in program:
        return next(iter(sorted(glob.glob(program))), None)
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


@functools.cache
def larder() -> pathlib.Path:
    """Larder's binary: `LARDER_BIN`, or a release build of this tree."""
    return _ours("LARDER_BIN", "larder", ROOT / "Cargo.toml")


@functools.cache
def floor() -> pathlib.Path:
    """The floor's binary: `FLOOR_BIN`, or a release build of `floor/`."""
    return _ours("FLOOR_BIN", "bench-floor", HERE / "floor" / "Cargo.toml")


@functools.cache
def client() -> pathlib.Path:
    """The client's binary: `CLIENT_BIN`, or a release build of `client/`."""
    return _ours("CLIENT_BIN", "bench-client", HERE / "client" / "Cargo.toml")


def lead_by_profiles() -> None:
    """Has `larder` be what deploy/pgo makes; made first if there is none of this tree's sources as they are."""
    made = _target() / "pgo" / "larder"
    sources = [ROOT / "Cargo.toml", ROOT / "Cargo.lock", *(ROOT / "src").rglob("*.rs")]
    if not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        print("building larder, twice", flush=True)
        if subprocess.run([str(ROOT / "deploy" / "pgo")]).returncode != 0:
            raise Missing("deploy/pgo failed")
    os.environ["LARDER_BIN"] = str(made)


def _target() -> pathlib.Path:
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def _ours(variable: str, name: str, manifest: pathlib.Path) -> pathlib.Path:
    given = os.environ.get(variable)
    if given:
        binary = pathlib.Path(given).resolve()
        if not os.access(binary, os.X_OK):
            raise Missing(f"{variable} names no program: {binary}")
        return binary
    if not manifest.exists():
        raise Missing(f"no {manifest}; set {variable} to a built {name}")
    if shutil.which("cargo") is None:
        raise Missing(f"cargo is missing; install Rust, or set {variable} to a built {name}")
    target = _target()
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", str(manifest), "--target-dir", str(target)]
    print(f"building {name}", flush=True)
    if subprocess.run(command).returncode != 0:
        raise Missing(f"{name} does not build; see above, or set {variable} to a built one")
    return target / "release" / name
