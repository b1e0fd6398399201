"""Deploy without what brings a bundle to a device: it is copied by hand, its environment is this Python."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from booted import ENVIRONMENT

from edgekit.deploy import PARTS
from edgekit.devices.here import Here
from edgekit.devices.program import call

PYTHON = "/usr/bin/python3"


class Site:
    """Edgekit's folder on a device.

    Attributes:
        device: where.
        root: of edgekit as the device sees it; `here` is the same folder as this machine sees it.
    """

    def __init__(self, root, *, device=None, here=None, owner=None):
        self.device = device or Here()
        self.root, self.here = Path(root), Path(here or root)
        self.owner = owner
        self.said = []

    def tell(self, *words, given=None):
        """Give the device's program an order; what it answers."""
        content = json.dumps(given).encode()
        return call(
            self.device, PYTHON, "deploy", words, given=[content], parts=PARTS, detail=self.said.append
        )

    def authorize(self, bundle, *, signature=None, name="tiny"):
        """Ask whether the device takes a bundle."""
        given = given_of(bundle, signature)
        return self.tell("authorize", str(self.root), name, digest(bundle), given=given)

    def bring(self, bundle, *, name="tiny"):
        """Put a bundle there, with an environment, as a version that is not finished yet; its digits."""
        version = digest(bundle)[:12]
        folder = self.folder(name) / "versions" / version
        if not folder.exists():
            shutil.copytree(bundle, folder / "bundle")
            python = folder / "venv" / "bin" / "python"
            python.parent.mkdir(parents=True)
            choice = f"for python in {ENVIRONMENT}/bin/python {sys.executable}; do"
            python.write_text(f'#!/bin/sh\n{choice} [ ! -x $python ] || exec $python "$@"; done\n')
            python.chmod(0o755)
            self._give_away()
        return version

    def install(self, bundle, *, keep=2, address="", signature=None, name="tiny"):
        """Put into service what was brought."""
        words = [str(self.root), name, digest(bundle), str(keep), *([address] if address else [])]
        return self.tell("install", *words, given=given_of(bundle, signature))

    def deploy(self, bundle, *, signature=None, **more):
        """All of it."""
        self.authorize(bundle, signature=signature)
        self.bring(bundle)
        return self.install(bundle, signature=signature, **more)

    def rollback(self, version, *, name="tiny"):
        """Go back to a version."""
        return self.tell("rollback", str(self.root), name, version)

    def listed(self):
        """The services there."""
        return self.tell("list", str(self.root))["services"]

    def folder(self, name="tiny"):
        """A service's folder, as this machine sees it."""
        return self.here / "services" / name

    def current(self, link="current", name="tiny"):
        """The version that a link leads to; None where there is no link."""
        path = self.folder(name) / link
        return path.readlink().name if path.is_symlink() else None

    def _give_away(self):
        if self.owner is not None:
            for path in [self.here, *self.here.rglob("*")]:
                os.chown(path, self.owner, self.owner, follow_symlinks=False)


def digest(bundle):
    """The SHA-256 of the manifest."""
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def given_of(bundle, signature=None):
    """What the device's program reads."""
    return {"manifest": (bundle / "manifest.json").read_text(), "signature": signature}


def rewritten(bundle, name, text):
    """The bundle with another text in one of its files, and the digest in its manifest that belongs to it."""
    (bundle / name).write_text(text)
    manifest = json.loads((bundle / "manifest.json").read_text())
    content = (bundle / name).read_bytes()
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=2) + "\n")
    return bundle
