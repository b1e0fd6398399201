#!/usr/bin/env python3
"""How fast files get to a device, against OpenSSH's own scp and sftp, over a real sshd on loopback.

    python benchmarks/transfer.py [--rounds 7]

Each round sends 200 MB in one file, and 500 files of 4 KB, in all ways in turn, each with a connection of its
own and to a place where nothing is. Shown are the medians, and the median of the ratios within a round, which
a machine that does other things in the meantime disturbs less; and the CPU seconds of both ends together.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from sshd import running_sshd

from edgekit.devices.address import parse_address
from edgekit.devices.ssh import open_ssh
from edgekit.devices.transfer import send

PYTHON = "/usr/bin/python3"  # the device's
BIG, SMALL, COUNT = 200_000_000, 4096, 500


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loads = {"200 MB in one file": folder / "big", "500 files of 4 KB": folder / "small"}
        make(folder)
        with running_sshd(folder / "sshd") as server:
            os.environ["HOME"] = str(server.make_client(folder / "me"))
            os.environ.pop("SSH_AUTH_SOCK", None)
            for title, source in loads.items():
                show(title, measure(server, source, rounds))


def make(folder):
    """The files; random, as a compressing connection would be no fair comparison."""
    for name, size, count in (("big", BIG, 1), ("small", SMALL, COUNT)):
        (folder / name).mkdir()
        for number in range(count):
            (folder / name / f"{number}.bin").write_bytes(os.urandom(size))


def measure(server, source, rounds):
    """By way: the seconds, and the CPU seconds, of each round; the order changes from round to round."""
    ways = {"edgekit": by_edgekit, "scp": by_scp, "sftp": by_sftp}
    taken = {way: [] for way in ways}
    for number in range(rounds + 1):
        names = list(ways)
        for way in names[number % 3 :] + names[: number % 3]:
            target = server.home / f"{way}-{number}"
            target.mkdir()
            before, began = own_cpu() + server_cpu(server), time.perf_counter()
            ways[way](server, source, target)
            seconds, own = time.perf_counter() - began, own_cpu()
            while server.connections():
                time.sleep(0.02)
            if number:  # the first is for warming up
                taken[way].append((seconds, own + server_cpu(server) - before))
            assert sum(path.stat().st_size for path in target.rglob("*.bin")) >= BIG // 100
            shutil.rmtree(target)
    return taken


def by_edgekit(server, source, target):
    """As `edgekit bench --on ssh://...` does."""
    device = open_ssh(parse_address(server.address))
    files = {path.name: path for path in sorted(source.iterdir())}
    send(device, PYTHON, str(target), files, "files", patience=10, detail=lambda _: None)
    device.close()


def by_scp(server, source, target):
    """With the options that a user's configuration gives."""
    subprocess.run(["scp", "-q", "-r", *options(server), source, f"root@127.0.0.1:{target}/"], check=True)


def by_sftp(server, source, target):
    """`put -r`, from a batch."""
    batch = f"put -r {source} {target}/\n".encode()
    command = ["sftp", "-q", "-b", "-", *options(server), "root@127.0.0.1"]
    subprocess.run(command, input=batch, check=True, stdout=subprocess.DEVNULL)


def options(server):
    """The server's port, its key and the user's."""
    known = Path(os.environ["HOME"]) / ".ssh" / "known_hosts"
    return ["-F", "none", "-i", server.key, "-o", f"UserKnownHostsFile={known}", "-P", str(server.port)]


def own_cpu():
    """CPU seconds of this process and its children so far."""
    return sum(os.times()[:4])


def server_cpu(server):
    """CPU seconds of the server and of the connections that it has ended."""
    stat = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(stat[at]) for at in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def show(title, taken):
    """One line for each way."""
    print(title)
    ours = taken["edgekit"]
    for way, runs in taken.items():
        ratio = statistics.median(mine[0] / other[0] for mine, other in zip(ours, runs, strict=True))
        seconds = [run[0] for run in runs]
        spread = f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"
        work = statistics.median(run[1] for run in runs)
        print(f"  {way:8} median {spread}, CPU {work:.2f} s; edgekit takes {ratio:.2f} of its time")


if __name__ == "__main__":
    main()
