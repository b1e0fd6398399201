"""A machine in a container that runs systemd: this one's `/usr`, with an init, users and units of its own."""

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path

from edgekit.devices.here import Here, HereProcess

ROOT = Path(__file__).parent.parent
USER, UID = "pi", 1000
ENVIRONMENT = "/opt/edgekit-tests"  # this Python's packages there: a service sees no /tmp
START_S = 60
FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh\n"
    "messagebus:x:100:102::/nonexistent:/usr/sbin/nologin\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n",
    "etc/group": f"root:x:0:\ntty:x:5:\nmessagebus:x:102:\nsystemd-journal:x:999:{USER}\n{USER}:x:{UID}:\n",
    "etc/shadow": f"root:*:19000:0:99999:7:::\n{USER}:*:19000:0:99999:7:::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\n",
    "etc/hostname": "booted\n",
    "etc/machine-id": "",
    # The user's manager starts without what a login does: this system need not have PAM's part of systemd.
    "etc/systemd/system/user@.service.d/alone.conf": "[Service]\nPAMName=\n"
    "Environment=XDG_RUNTIME_DIR=/run/user/%i\n",
}
FOLDERS = {
    **dict.fromkeys(f"dev etc home home/{USER} proc run srv sys tmp usr var var/log".split(), 0o755),
    "root": 0o755,  # this Python may lie there
    "var/log/journal": 0o755,
    "var/tmp": 0o1777,
}
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


class Booted:
    """The machine while it runs.

    Attributes:
        srv: the folder here that is `/srv` there, the same before and after a loss of power.
    """

    def __init__(self, name, srv):
        self.name, self.srv = name, srv

    @property
    def address(self):
        """Of it in its network."""
        return self._inspected("{{.NetworkSettings.IPAddress}}")

    def leave_the_internet(self):
        """Let it reach its own network alone."""
        enter = ["nsenter", "--target", self._inspected("{{.State.Pid}}"), "--net"]
        subprocess.run([*enter, "ip", "route", "del", "default"], check=True, timeout=60)

    def _inspected(self, form):
        command = ["docker", "inspect", "--format", form, self.name]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    def device(self, user="root"):
        """It as a device, for a user there."""
        return Inside(self.name, user)

    def run(self, *command, user="root", check=True):
        """What a command there prints."""
        done = subprocess.run(
            [*exec_as(self.name, user), *command], capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def lose_power(self):
        """Kill it and all that runs there, in a moment."""
        subprocess.run(["docker", "kill", self.name], check=True, capture_output=True, timeout=60)

    def boot(self):
        """Start it (again); returns when its services are up, and those of the user."""
        subprocess.run(["docker", "start", self.name], check=True, capture_output=True, timeout=60)
        end = time.monotonic() + START_S
        while self.run("systemctl", "is-system-running", check=False) not in ("running", "degraded"):
            assert time.monotonic() < end, self.run("systemctl", "--no-pager", "list-jobs", check=False)
            time.sleep(0.1)
        self.run("systemctl", "start", f"user@{UID}.service")


class Inside(Here):
    """The machine as a device: commands run in its container."""

    def __init__(self, machine, user):
        self.name = f"booted:{user}"
        self._machine, self._user = machine, user

    def start(self, command, *, silence=60.0):
        return HereProcess([*exec_as(self._machine, self._user), *command], silence)


def exec_as(machine, user):
    home = "/root" if user == "root" else f"/home/{user}"
    return ["docker", "exec", "-i", "-u", user, "-e", f"HOME={home}", "-e", "OMP_NUM_THREADS=1", machine]


@contextlib.contextmanager
def booted(srv, network="none"):
    """A machine whose `/srv` is the folder `srv` here, in a network of Docker's."""
    subprocess.run([ROOT / "docker" / "up"], check=True, timeout=120)
    files = root_files()
    image = f"edgekit-tests/booted:{hashlib.sha256(files).hexdigest()[:12]}"
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        subprocess.run(["docker", "import", "-", image], input=files, check=True, capture_output=True)
    name = f"edgekit-booted-{uuid.uuid4().hex[:12]}"
    own = [ROOT, sys.prefix, sys.base_prefix]  # this Python and its packages, for the bundles there
    command = [
        *["docker", "create", "--name", name, "--network", network, "--hostname", "booted"],
        *["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--env", "container=docker"],
        *["--security-opt", "apparmor=unconfined"],
        *["--tmpfs", "/run:mode=755,exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"],
        *["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro", "--volume", "/usr:/usr:ro"],
        *[word for path in dict.fromkeys(map(str, own)) for word in ("--volume", f"{path}:{path}:ro")],
        *["--volume", f"{sys.prefix}:{ENVIRONMENT}:ro"],
        *[
            "--volume",
            "/etc/ld.so.cache:/etc/ld.so.cache:ro",
            "--volume",
            "/etc/alternatives:/etc/alternatives:ro",
        ],
        *["--volume", f"{srv}:/srv", image, "/lib/systemd/systemd"],
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        machine = Booted(name, Path(srv))
        machine.boot()
        yield machine
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


def root_files():
    """What is not in `/usr`, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, mode in FOLDERS.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            entry.uid = entry.gid = UID if path == f"home/{USER}" else 0
            tar.addfile(entry)
        for path, target in LINKS.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for path, text in FILES.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text), 0o640 if path.endswith("shadow") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
