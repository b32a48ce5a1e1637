"""The image and the compose file, as far as a machine without a container engine goes."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

import yaml

from support import DEPLOY, ROOT, run

FOLDER = DEPLOY / "docker"
# What gcr.io/distroless/cc-debian12 brings: glibc and libgcc.
BASE_LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"}


def instructions():
    """(word, rest) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def hadolint_has_no_complaint():
    run(os.path.join(os.path.dirname(os.sys.executable), "hadolint"), FOLDER / "Dockerfile")


def compose_takes_its_file_and_finds_what_it_mounts():
    run("docker-compose", "-f", FOLDER / "compose.yaml", "config", "--quiet")
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(services) == {"larder", "origin", "prometheus", "grafana"}
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).exists(), f"{name} mounts {source}"


def ignored(path):
    """Whether the .dockerignore keeps a file out of the build; the last pattern that matches decides."""
    out = False
    for pattern in (FOLDER / "Dockerfile.dockerignore").read_text().split():
        keeps, glob = pattern.startswith("!"), pattern.lstrip("!")
        parts = path.parts
        names = [pathlib.PurePath(*parts[: n + 1]).match(glob) for n in range(len(parts))]
        is_inner = glob.startswith("**/") and glob[3:] in parts
        if is_inner or any(names) and (not glob.startswith("**/")) and (len(pathlib.PurePath(glob).parts) > 1 or glob in ("*", parts[0])):
            out = not keeps
    return out


def copy(source, target):
    files = [source] if source.is_file() else [f for f in source.rglob("*") if f.is_file()]
    for file in files:
        relative = file.relative_to(ROOT)
        if ignored(relative):
            continue
        to = target if source.is_file() and not target.is_dir() else target / (file.relative_to(source) if source.is_dir() else file.name)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, to)
    assert files and any(not ignored(f.relative_to(ROOT)) for f in files), f"{source} is not in the build's context"


def build(stages):
    """Carries the Dockerfile out: its copies, and its commands with this machine's tools in place of the base image's."""
    name, folder, settings = None, "/", {}
    for word, rest in instructions():
        if word == "FROM":
            name = rest.split(" AS ")[1] if " AS " in rest else "image"
            (stages / name).mkdir()
            folder = "/"
        elif word == "WORKDIR":
            folder = rest
            (stages / name / folder.lstrip("/")).mkdir(parents=True)
        elif word == "COPY":
            words = rest.split()
            target = stages / name / os.path.join(folder, words[-1]).lstrip("/")
            if words[0].startswith("--from="):
                source = stages / words[0].removeprefix("--from=") / words[1].lstrip("/")
                shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
                run("cp", "-a", f"{source}/.", target)
            else:
                for source in words[:-1]:
                    copy(ROOT / source, target)
        elif word == "RUN":
            carry_out(rest, stages / name, folder)
        elif word in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "USER"):
            settings[word] = rest
        else:
            assert word in ("EXPOSE", "VOLUME", "STOPSIGNAL"), f"{word} is not known to this check"
    return settings


def carry_out(command, stage, folder):
    if "cargo build" in command and not os.environ.get("LARDER_IMAGE_RELEASE"):
        # The same sources with the same lock file; the profile alone is the one that builds sooner.
        command = command.replace("--release ", "")
    command = command.replace("target/release/", f"target/{'release' if os.environ.get('LARDER_IMAGE_RELEASE') else 'debug'}/")
    command = re.sub(r"(?<=\s)/image", f"{stage}/image", command)
    environment = {k: v for k, v in os.environ.items() if k != "CARGO_TARGET_DIR"}
    cache = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    target = stage / folder.lstrip("/") / "target"
    if not target.exists():
        kept = pathlib.Path(cache, "deploy-image").resolve()
        kept.mkdir(parents=True, exist_ok=True)
        target.symlink_to(kept)
    done = subprocess.run(["sh", "-ec", command], cwd=stage / folder.lstrip("/"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def the_dockerfile_makes_an_image_that_runs():
    with tempfile.TemporaryDirectory() as stages:
        stages = pathlib.Path(stages)
        settings = build(stages)
        image = stages / "image"
        program = image / "usr/bin/larder"
        libraries = re.findall(r"^\s*(\S+)(?: => (\S+))? \(0x", run("ldd", program), re.MULTILINE)
        names = {os.path.basename(n) for n, _ in libraries} - {"linux-vdso.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
        assert names <= BASE_LIBRARIES, f"the base image lacks {names - BASE_LIBRARIES}"
        for library, path in libraries:
            path = path or library
            if path.startswith("/"):
                to = image / path.lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)
        assert (image / "var/cache/larder").stat().st_uid == 65532
        start = json.loads(settings["ENTRYPOINT"]) + json.loads(settings["CMD"])
        health = json.loads(settings["HEALTHCHECK"].split("CMD ")[1])
        inside = f"chroot --userspec={settings['USER']} {shlex.quote(str(image))}"
        # A network and mounts of its own: the image's ports are fixed. The root is read-only, as in the manifests.
        script = f"""
            ip link set lo up 2>/dev/null || ifconfig lo up
            mkdir -p {image}/proc {image}/tmp && mount -t proc proc {image}/proc
            mount --bind {image} {image} && mount --bind {image}/var/cache/larder {image}/var/cache/larder
            mount -o remount,ro,bind {image}
            {inside} {shlex.join(start)} & node=$!
            for _ in $(seq 100); do {inside} {shlex.join(health)} >/dev/null 2>&1 && break; sleep 0.2; done
            {inside} {shlex.join(health)}
            kill -TERM $node; wait $node
        """
        said = run("unshare", "--net", "--mount", "bash", "-ec", script)
        assert "ready" in said and "drained" in said and "hit ratio" in said, said


CHECKS = [
    hadolint_has_no_complaint,
    compose_takes_its_file_and_finds_what_it_mounts,
    the_dockerfile_makes_an_image_that_runs,
]
