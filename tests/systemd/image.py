"""The container image of the test nodes: a small Debian with systemd, sshd and WireGuard.

It is made on this machine, by debootstrap from the mirror that apt uses here, because there may be no way
to a container registry. Its tag is a digest of the recipe: it is made once, and again after a change only.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.systemd.command import CommandFailed, execute

REPOSITORY = "localhost/vpnfleet-systemd"

# What a node of the fleet has, and nothing more. python3-apt, because ansible.builtin.apt wants to install it
# where it is missing, and the nodes have no way to a mirror.
PACKAGES = (
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "systemd",
    "systemd-sysv",
    "wireguard-go",
    "wireguard-tools",
)

# The containers are privileged: these would reach for the machine's terminals, devices, modules and mounts.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty-static.service",
    "getty.target",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
)

SSHD_CONFIG = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
"""

# A node's journal is about the node, not about the kernel that it shares.
JOURNALD_CONFIG = """\
[Journal]
ReadKMsg=no
Audit=no
"""

_LOCK = Path("/run/lock/vpnfleet-systemd-image.lock")


class ImageError(RuntimeError):
    """The image cannot be made here; the text says why and what to do."""


def ensure_image() -> str:
    """Return the name of the image, making it first where podman does not have it yet.

    Raises ImageError without root or a needed command, CommandFailed when debootstrap or podman fails.
    """
    if os.geteuid() != 0:
        raise ImageError("test nodes with systemd need root: they are privileged containers")
    ensure_tools()
    suite = _suite()
    name = f"{REPOSITORY}:{suite}-{_digest(suite)}"
    with _alone():
        if not _exists(name):
            _make(name, suite)
    return name


def unified_cgroups() -> bool:
    """Whether the machine has cgroup v2 alone; a hybrid or v1 machine needs runc, as crun refuses it."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def ensure_tools() -> None:
    """Install podman, debootstrap and what goes with them by apt where they are missing.

    Raises ImageError where that is not possible, with the list of what is missing.
    """
    wanted = {"podman": "podman", "debootstrap": "debootstrap", "ip": "iproute2", "ssh": "openssh-client"}
    if not unified_cgroups():
        wanted["runc"] = "runc"
    missing = sorted({package for command, package in wanted.items() if shutil.which(command) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ImageError(f"missing: {', '.join(missing)}; install them, there is no apt here to do it")
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        # The lists first: those of a machine that has just been made are missing or old.
        execute(["apt-get", "update", "--quiet"], timeout=300, env=env)
        execute(install, timeout=600, env=env)
    except CommandFailed as error:
        raise ImageError(f"missing: {', '.join(missing)}; apt could not install them: {error}") from error


def _suite() -> str:
    """Return the machine's own release: the one that its mirror has for certain."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    if not suite:
        raise ImageError(f"{release.get('PRETTY_NAME', 'this system')} names no Debian or Ubuntu release")
    return suite


def _digest(suite: str) -> str:
    steps = inspect.getsource(_fit_for_container) + inspect.getsource(_import)
    recipe = repr((suite, PACKAGES, MASKED_UNITS, SSHD_CONFIG, JOURNALD_CONFIG, steps))
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


@contextmanager
def _alone() -> Iterator[None]:
    """Two test sessions at once must not make the same image twice."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _exists(name: str) -> bool:
    return execute(["podman", "image", "exists", name], check=False).returncode == 0


def _make(name: str, suite: str) -> None:
    mirror, components = _mirror(suite)
    with tempfile.TemporaryDirectory(prefix="vpnfleet-systemd-", dir="/var/tmp") as scratch:
        root = Path(scratch) / "root"
        argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        argv += [f"--components={','.join(components)}", suite, str(root), mirror]
        try:
            execute(argv, timeout=1200)
        except CommandFailed as error:
            log = root / "debootstrap" / "debootstrap.log"
            detail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise ImageError(f"{error}\n{detail}") from error
        _fit_for_container(root)
        _import(name, root)


def _mirror(suite: str) -> tuple[str, list[str]]:
    """Return (URL, components) of the mirror that apt uses for `suite` on this machine."""
    argv = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(SITE)", "Created-By: Packages"]
    lines = execute(argv).stdout.splitlines()
    if not lines:  # no lists yet, and apt only speaks of those it has
        execute(["apt-get", "update", "--quiet"], timeout=300)
        lines = execute(argv).stdout.splitlines()
    targets = [line.split() for line in lines]
    mirror = next((site for codename, _, site in targets if codename == suite), None)
    if mirror is None:
        raise ImageError(f"apt has no source for {suite}: `apt-get indextargets` names none")
    return mirror, sorted({part for codename, part, site in targets if (codename, site) == (suite, mirror)})


def _fit_for_container(root: Path) -> None:
    units = root / "etc/systemd/system"
    _mask(units, MASKED_UNITS)
    # The vendor's settings are the machine's own business: a privileged container would write them to it.
    # A node's own /etc/sysctl.d is read at boot as ever.
    vendor = (root / "usr/lib/sysctl.d").glob("*.conf")
    _mask(root / "etc/sysctl.d", (path.name for path in vendor))
    (root / "etc/ssh/sshd_config.d/vpnfleet.conf").write_text(SSHD_CONFIG)
    journald = root / "etc/systemd/journald.conf.d"
    journald.mkdir(parents=True, exist_ok=True)
    (journald / "vpnfleet.conf").write_text(JOURNALD_CONFIG)
    # Every node gets its own.
    for host_key in (root / "etc/ssh").glob("ssh_host_*"):
        host_key.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)  # systemd would take it as its own
    # debootstrap copies this machine's: a node has no way to those servers, and would wait for them.
    (root / "etc/resolv.conf").write_text("")
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)


def _mask(directory: Path, names: Iterable[str]) -> None:
    for name in names:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to("/dev/null")


def _import(name: str, root: Path) -> None:
    argv = ["podman", "import", "--quiet", "--change", 'CMD ["/lib/systemd/systemd"]']
    argv += ["--change", "STOPSIGNAL SIGRTMIN+3"]
    argv += ["--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    argv += ["-", name]
    pack = ["tar", "--create", "--numeric-owner", "--xattrs", f"--directory={root}", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        made = subprocess.run(argv, stdin=tar.stdout, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise CommandFailed(made)
    if tar.returncode != 0:
        execute(["podman", "rmi", name], check=False)
        raise ImageError(f"tar could not pack the new system: return code {tar.returncode}")


if __name__ == "__main__":
    print(ensure_image())
