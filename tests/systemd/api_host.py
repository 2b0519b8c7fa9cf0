"""What a host of the HTTP interface needs and test nodes cannot fetch: Debian's packages, and Python's."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import sys
from pathlib import Path

from tests.systemd.command import execute
from tests.systemd.image import REPOSITORY, ensure_image
from tests.systemd.node import machine_flags, podman

_REPO = Path(__file__).resolve().parents[2]
_REQUIREMENTS = _REPO / "requirements" / "api.txt"
_WHEELS = _REPO / "var" / "cache" / "wheels"
_LOCK = Path("/run/lock/vpnfleet-systemd-api-image.lock")

# What the role installs. They are in the image as apt's archives, not installed: that is for the role to do. What they
# are built upon is there already, as it takes longer than they do.
FOUNDATIONS = ("locales", "perl", "ssl-cert")
PACKAGES = (
    "ca-certificates",
    "nginx",
    "openssh-client",
    "openssl",
    "postgresql",
    "postgresql-client",
    "python3-venv",
)


def ensure_api_image() -> str:
    """Return the name of the nodes' image with apt's lists and archives of PACKAGES, made first where it is missing.

    Raises ImageError, or CommandFailed where apt or podman fails.
    """
    base = ensure_image()
    digest = hashlib.sha256(
        repr((base, FOUNDATIONS, PACKAGES, inspect.getsource(_make))).encode()
    ).hexdigest()[:12]
    name = f"{REPOSITORY}-api:{digest}"
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if execute(["podman", "image", "exists", name], check=False).returncode != 0:
            _make(name, base)
    return name


def _make(name: str, base: str) -> None:
    container = f"vpnfleet-api-image-{os.getpid()}"
    install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"
    script = [
        "set -eu",
        # What is thrown away in minutes need not reach the disk.
        "echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io",
        "apt-get update --quiet",
        f"{install} {' '.join(FOUNDATIONS)}",
        f"{install} --download-only {' '.join(PACKAGES)}",
    ]
    argv = [*podman(), "run", f"--name={container}", "--network=host", *machine_flags(), base]
    try:
        execute([*argv, "sh", "-c", "; ".join(script)], timeout=600)
        execute(
            [*podman(), "commit", "--quiet", '--change=CMD ["/lib/systemd/systemd"]', container, name],
            timeout=300,
        )
    finally:
        execute([*podman(), "rm", "--force", "--ignore", container], check=False)


def ensure_wheels() -> Path:
    """Return a folder with the wheels of requirements/api.txt, fetched by pip where it is missing."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes() + version.encode()).hexdigest()[:12]
    folder = _WHEELS / digest
    _WHEELS.mkdir(parents=True, exist_ok=True)
    with (_WHEELS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = folder.with_suffix(".new")
            shutil.rmtree(scratch, ignore_errors=True)
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary=:all:",
            ]
            pip += ["--require-hashes", f"--requirement={_REQUIREMENTS}", f"--dest={scratch}"]
            execute(pip, timeout=600)
            scratch.rename(folder)
    return folder
