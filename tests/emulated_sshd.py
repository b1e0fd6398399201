"""A real OpenSSH server inside an emulated arm64 board: what `--on ssh://` finds there is aarch64."""

import contextlib
import os
import subprocess
import time
import uuid

from emulated import image
from sshd import START_S, Sshd, answers

from edgekit.emulation.board import board_of

# The server, and what it is linked against.
PACKAGES = tuple(
    "openssh-server openssh-sftp-server libaudit1 libcap-ng0 libcap2 libcom-err2 libgcrypt20 libgpg-error0 "
    "libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 liblz4-1 libnsl2 libpam0g "
    "libsystemd0 libtirpc3 libwrap0 libzstd1".split()
)
USER, PORT = 1000, 2222
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
edge:x:1000:1000:edge:/home/edge:/bin/sh
"""


class EmulatedSshd(Sshd):
    """The server on a board; see `sshd.Sshd`.

    Attributes:
        home: the folder of this machine that is /home/edge there.
    """

    def __init__(self, folder, *, target="rpi4", extra=()):
        super().__init__(folder, extra=extra)
        self.board = board_of(target)
        self.name = f"edgekit-sshd-{uuid.uuid4().hex[:12]}"
        os.chown(self.home, USER, USER)

    @property
    def address(self):
        """What `--on` takes."""
        return f"ssh://edge@127.0.0.1:{self.port}"

    def start(self):
        """Start it; returns when it answers. Raises AssertionError with its log when it does not."""
        config, passwd = self.folder / "sshd_config", self.folder / "passwd"
        config.write_text("\n".join([*self._settings(), *self.extra]) + "\n", encoding="utf-8")
        passwd.write_text(PASSWD, encoding="ascii")
        limit = str(self.board.limit_bytes)
        bound = {
            self.board.cpuinfo.resolve(): "/proc/cpuinfo:ro",
            config: "/keys/config:ro",
            self.host_key: "/keys/host:ro",
            f"{self.key}.pub": "/keys/authorized:ro",
            passwd: "/etc/passwd:ro",
            self.home: "/home/edge",
        }
        subprocess.run(
            [
                *["docker", "run", "--detach", "--name", self.name, "--init", "--platform", "linux/arm64"],
                *["--read-only", "--tmpfs", "/tmp:size=64m", "--tmpfs", "/run/sshd:mode=0755"],
                *["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
                *[word for one in ("SETUID", "SETGID", "SYS_CHROOT") for word in ("--cap-add", one)],
                *["--memory", limit, "--memory-swap", limit, "--publish", f"127.0.0.1:{self.port}:{PORT}"],
                *["--env", f"QEMU_CPU={self.board.cpu}"],
                *[word for here, there in bound.items() for word in ("--volume", f"{here}:{there}")],
                *[image(PACKAGES), "/usr/sbin/sshd", "-D", "-e", "-f", "/keys/config"],
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        end = time.monotonic() + START_S
        while not answers(self.port):
            assert time.monotonic() < end, self.read_log()
            time.sleep(0.05)
        return self

    def read_log(self):
        """What the server said."""
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout + done.stderr

    def stop(self):
        """Remove the board with all that runs on it."""
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False, timeout=60)

    def close(self):
        """The same."""
        self.stop()

    def _settings(self):
        variables = f"QEMU_CPU={self.board.cpu} PYTHONHASHSEED=0 PATH=/usr/bin:/usr/sbin"
        return [
            f"Port {PORT}",
            "HostKey /keys/host",
            "AuthorizedKeysFile /keys/authorized",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            "MaxStartups 100",
            "Subsystem sftp /usr/lib/openssh/sftp-server",
            f"SetEnv {variables}",
        ]


@contextlib.contextmanager
def running_emulated_sshd(folder, **options):
    """A server in a folder that is not there yet, removed when the block is left."""
    server = EmulatedSshd(folder, **options)
    try:
        yield server.start()
    finally:
        server.close()
