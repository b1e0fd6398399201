"""Carry packets between two network namespaces, each packet some milliseconds late: a long cable.

    python delay_proxy.py NAMESPACE NAMESPACE INTERFACE MILLISECONDS

Makes the interface in both. Signal USR1 cuts the cable, USR2 mends it; what is under way is lost with it.
"""

import collections
import ctypes
import fcntl
import os
import select
import signal
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET = 1 << 16


def enter(path):
    """Move this thread into a network namespace, by its file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"{path} cannot be entered")
    finally:
        os.close(descriptor)


def end_of_cable(namespace, interface):
    """A descriptor whose packets are those of a new interface there."""
    enter(f"/run/netns/{namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", interface.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def carry(first, second, delay):
    """Carry packets until the end of the process."""
    other = {first: second, second: first}
    under_way = collections.deque()  # (when it arrives, where, packet), in this order
    whole = [True]
    signal.signal(signal.SIGUSR1, lambda *_: whole.__setitem__(0, False))
    signal.signal(signal.SIGUSR2, lambda *_: whole.__setitem__(0, True))
    while True:
        wait = max(under_way[0][0] - time.monotonic(), 0) if under_way else None
        for end in select.select([first, second], [], [], wait)[0]:
            try:
                under_way.append((time.monotonic() + delay, other[end], os.read(end, PACKET)))
            except OSError:
                continue  # the interface is down
        if not whole[0]:
            under_way.clear()
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, packet = under_way.popleft()
            try:
                os.write(end, packet)
            except OSError:
                continue  # down, or full: a packet is lost


if __name__ == "__main__":
    ends = [end_of_cable(namespace, sys.argv[3]) for namespace in sys.argv[1:3]]
    print("ready", flush=True)
    carry(*ends, float(sys.argv[4]) / 1000)
