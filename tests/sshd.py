"""A real OpenSSH server on loopback with keys, settings and a home of its own, in one folder."""

import base64
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

SSHD = "/usr/sbin/sshd"
PRIVILEGE_SEPARATION = Path("/run/sshd")  # a folder that sshd insists on
START_S = 20


class Sshd:
    """The server; `start` and `stop` may be called in turns, it keeps its port.

    Attributes:
        port: on 127.0.0.1.
        key: file of the user's private key (ed25519, no passphrase); it lets `root` in.
        home: the folder that is HOME for what runs over it: the device's side.
        host_key: file of the key that it shows; see `swap_host_key`.
        first, extra: lines of its configuration; sshd heeds the first of those that set the same.
    """

    def __init__(self, folder, *, first=(), extra=(), host_key_type="ed25519"):
        self.folder = Path(folder)
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.first, self.extra = list(first), list(extra)
        self.host_key = make_key(self.folder / "host_key", host_key_type)
        self.key = make_key(self.folder / "user_key")
        self.authorized_keys = self.folder / "authorized_keys"
        self.authorized_keys.write_text(public(self.key), encoding="ascii")
        self.log = self.folder / "sshd.log"
        self.process = None
        self._commands = {}  # pid -> when it began, of what ran over connections that were cut

    @property
    def address(self):
        """What `--on` takes."""
        return f"ssh://root@127.0.0.1:{self.port}"

    @property
    def fingerprint(self):
        """Of its host key: `SHA256:...`."""
        digest = hashlib.sha256(base64.b64decode(public(self.host_key).split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def root(self):
        """Edgekit's folder on this device."""
        return self.home / ".local/share/edgekit"

    @property
    def known_hosts(self):
        """The line of `known_hosts` for it."""
        return f"[127.0.0.1]:{self.port} {' '.join(public(self.host_key).split()[:2])}\n"

    def start(self):
        """Start it; returns when it answers. Raises AssertionError with its log when it does not."""
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text("\n".join([*self.first, *self._settings(), *self.extra]) + "\n", encoding="utf-8")
        with self.log.open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(config)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while not answers(self.port):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)
        return self

    def stop(self):
        """Kill it with its connections; the commands that run over them go on."""
        if self.process is None:
            return
        self.cut_connections()
        self.process.send_signal(signal.SIGSTOP)
        self.cut_connections()  # those that came in the meantime
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self):
        """Stop it, and kill the commands that still run; what detached itself from them lives on."""
        self.stop()
        kill([pid for pid, born in self._commands.items() if born_at(pid) == born])

    def restart(self):
        """Kill it with its connections, and start it on the same port."""
        self.stop()
        self.start()

    def connections(self):
        """The pids of its processes that each serve a connection."""
        return [pid for pid in descendants(self.process.pid) if name_of(pid) == "sshd"]

    def cut_connections(self):
        """Kill what serves the connections; server and commands go on. How many there were."""
        pids = descendants(self.process.pid)
        connections = [pid for pid in pids if name_of(pid) == "sshd"]
        self._commands.update({pid: born_at(pid) for pid in pids if pid not in connections})
        kill(connections)
        return len(connections)

    @contextlib.contextmanager
    def frozen(self):
        """Nothing goes in or out, as when the cable is pulled: neither old connections nor new ones."""
        pids = [self.process.pid, *self.connections()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def swap_host_key(self, key_type="ed25519"):
        """Show another host key from now on."""
        self.host_key = make_key(self.folder / f"host_key_{time.monotonic_ns()}", key_type)
        self.restart()

    def make_client(self, folder, *, known=True, config=""):
        """A home for the user's side whose `~/.ssh` knows this server and has the key; give it as HOME.

        Args:
            folder: made where it is not there.
            known: whether the host key is in `known_hosts`.
            config: text of `~/.ssh/config`.
        """
        home = Path(folder)
        ssh = home / ".ssh"
        ssh.mkdir(parents=True, exist_ok=True)
        ssh.chmod(0o700)
        for name, content in (
            ("id_ed25519", self.key.read_text()),
            ("id_ed25519.pub", public(self.key)),
            ("known_hosts", self.known_hosts if known else ""),
            ("config", config),
        ):
            (ssh / name).write_text(content, encoding="utf-8")
            (ssh / name).chmod(0o600)
        return home

    def _settings(self):
        return [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized_keys}",
            f"PidFile {self.folder / 'sshd.pid'}",
            "PermitRootLogin yes",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            "MaxStartups 100",
            "Subsystem sftp /usr/lib/openssh/sftp-server",
            f"SetEnv HOME={self.home}",
        ]


@contextlib.contextmanager
def running_sshd(folder, **options):
    """A server in a folder that is not there yet, stopped when the block is left; options as for `Sshd`."""
    server = Sshd(folder, **options)
    try:
        yield server.start()
    finally:
        server.close()


def make_key(path, key_type="ed25519", passphrase=""):
    """Make a private key and its `.pub`."""
    command = ["ssh-keygen", "-q", "-t", key_type, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Path(path)


def public(key):
    """The public half of a private key's file."""
    return Path(f"{key}.pub").read_text(encoding="ascii")


def free_port():
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port):
    """Whether an SSH server greets on this port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def descendants(pid):
    """The pids of all children of a process and of theirs."""
    children = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text()
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    found, rest = [], [pid]
    while rest:
        rest.extend(children.get(rest[0], []))
        found.append(rest.pop(0))
    return found[1:]


def name_of(pid):
    """The name of a process's program; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def born_at(pid):
    """When a process began, in ticks since boot; empty when it is gone. A pid that is used again differs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def kill(pids):
    """Kill processes, and wait until they are gone or only wait to be reaped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + START_S
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end, f"{pids} do not end"
        time.sleep(0.005)


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
