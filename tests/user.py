"""A user of the command line with devices: a home of his own, and the caches of whoever runs the tests."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from platformdirs import user_cache_path, user_config_path
from sshd import is_alive


@contextlib.contextmanager
def user_at(home):
    """Within the block `edgekit` runs as the user of this home, and finds wheels and images where they are.

    pip's own settings stay: the index may be named there.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(user_cache_path()))
        patch.setenv("XDG_CONFIG_HOME", str(user_config_path()))
        patch.setenv("EDGEKIT_CONFIG", str(home / "edgekit"))
        patch.setenv("HOME", str(home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield home


def running_on(server):
    """What runs on a device over its server: command lines by pid; its programs have its home as HOME."""
    mark, found = f"HOME={server.home}".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and is_alive(entry.name):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def wait_for(condition, seconds=30):
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_nothing_runs_on(server):
    """A command that was told to end needs a moment."""
    end = time.monotonic() + 10
    while left := running_on(server):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def assert_nothing_half_done_on(server):
    """No environment and no bundle is there, nor a run, nor a part of a file that nobody will go on with."""
    assert_nothing_runs_on(server)
    assert not list(server.root.glob("bundles/*/venv"))
    assert not list(server.root.glob("runs/*"))
    for manifest in server.root.glob("bundles/*/bundle/manifest.json"):
        assert (manifest.parent / "model.onnx").exists()
