"""Two machines, a user's and a device, at the ends of a slow, lossy, long cable that can be cut.

They are network namespaces of this machine. The rate is kept by the kernel (`tc`), packets are lost by its
filter (`iptables`), and a process that carries each of them is the delay (`delay_proxy.py`). It needs root.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

from delay_proxy import enter
from sshd import running_sshd

INTERFACE = "edge0"
USER, DEVICE = "192.0.2.1", "192.0.2.2"  # addresses for examples; nothing outside the namespaces sees them
PROXY = Path(__file__).parent / "delay_proxy.py"


class Cable:
    """A cable between two namespaces.

    Attributes:
        user, device: the names of the namespaces.
    """

    def __init__(self, user, device, proxy):
        self.user, self.device, self._proxy = user, device, proxy

    def cut(self):
        """Carry no packet any more; neither end is told."""
        self._proxy.send_signal(signal.SIGUSR1)

    def mend(self):
        """Carry packets again."""
        self._proxy.send_signal(signal.SIGUSR2)

    def cut_for(self, seconds, then=lambda: None):
        """Cut it now, and mend it after so many seconds; returns the timer, which can be joined."""

        def mend():
            then()
            self.mend()

        self.cut()
        timer = threading.Timer(seconds, mend)
        timer.start()
        return timer

    def sent(self):
        """Bytes that the user's machine has given to the cable since it is there, all headers included."""
        shown = ip("-n", self.user, "-s", "-j", "link", "show", INTERFACE)
        return json.loads(shown)[0]["stats64"]["tx"]["bytes"]

    def lost(self):
        """Packets that were lost on the way to the device."""
        shown = ip("netns", "exec", self.device, "iptables", "-w", "-nvxL", "INPUT")
        return sum(int(line.split()[0]) for line in shown.splitlines() if " DROP " in line)


@contextlib.contextmanager
def cable(*, mbit=10, loss=0.02, delay_ms=25):
    """A cable, and the two machines at its ends, for the time of the block.

    Args:
        mbit: megabits per second that each end sends at most.
        loss: the part of the packets that is lost, each way.
        delay_ms: of each packet, each way.
    """
    user, device = (f"edgekit-{end}-{uuid.uuid4().hex[:12]}" for end in ("user", "device"))
    with contextlib.ExitStack() as stack:
        for namespace in (user, device):
            ip("netns", "add", namespace)
            stack.callback(remove, namespace)
        command = [sys.executable, str(PROXY), user, device, INTERFACE, str(delay_ms)]
        proxy = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        stack.callback(proxy.kill)
        assert proxy.stdout.readline() == b"ready\n"
        for namespace, own, other in ((user, USER, DEVICE), (device, DEVICE, USER)):
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "address", "add", own, "peer", other, "dev", INTERFACE)
            ip("-n", namespace, "link", "set", INTERFACE, "up")
            shape = ["rate", f"{mbit}mbit", "burst", "16kb", "latency", "200ms"]
            run("tc", "-n", namespace, "qdisc", "add", "dev", INTERFACE, "root", "tbf", *shape)
            lose = ["-m", "statistic", "--mode", "random", "--probability", str(loss), "-j", "DROP"]
            run("ip", "netns", "exec", namespace, "iptables", "-w", "-A", "INPUT", "-i", INTERFACE, *lose)
        yield Cable(user, device, proxy)


@contextlib.contextmanager
def inside(namespace):
    """This thread, with the processes and threads that it starts, is on that machine within the block."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(f"/run/netns/{namespace}")
        yield
    finally:
        enter(f"/proc/self/fd/{before}")
        os.close(before)


@contextlib.contextmanager
def device_at_the_end_of_a_cable(folder, **cable_options):
    """A device with an SSH server behind a cable; in the block this thread is on the user's machine.

    Gives the cable, the server, and the address that `--on` takes. The user's home is `folder / "me"`, which
    knows the server; HOME is the caller's to set. To start the server again, be `inside(cable.device)`.
    """
    with cable(**cable_options) as between, contextlib.ExitStack() as stack:
        with inside(between.device):
            server = stack.enter_context(running_sshd(folder / "sshd", extra=[f"ListenAddress {DEVICE}"]))
        home = server.make_client(folder / "me")
        (home / ".ssh/known_hosts").write_text(server.known_hosts.replace("127.0.0.1", DEVICE))
        with inside(between.user):
            yield between, server, f"ssh://root@{DEVICE}:{server.port}"


def remove(namespace):
    """Remove a namespace with the processes that are in it."""
    for pid in ip("netns", "pids", namespace).split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", namespace)


def ip(*arguments):
    """What `ip` prints."""
    return run("ip", *arguments)


def run(*command):
    """What a command prints, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
