"""A container image of a bundle: an archive that `docker load` and other tools for OCI images take.

Layout: OCI Image Layout 1.0, with the `manifest.json` that engines before 25 read beside it (Docker Image
Specification 1.2). Nothing is built by an engine and no registry is asked: the base is Debian's packages.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.emulation.image import base_layer
from edgekit.files import written_whole
from edgekit.package.layer import tar_of
from edgekit.package.subject import Subject, site_packages

ARCHITECTURES: Mapping[str, Mapping[str, str]] = {
    "aarch64": {"architecture": "arm64", "variant": "v8"},
    "x86_64": {"architecture": "amd64"},
    "armv7l": {"architecture": "arm", "variant": "v7"},
}
PYTHON, GLIBC = "3.11", "2.36"  # Debian 12's, which the base image is
USER = "1000:1000"
SOCKETS = "run/edgekit"
CREATED = "2023-11-14T22:13:20Z"


def write_oci(subject: Subject, path: Path) -> str:
    """Write the image's archive; returns its name, as `docker run` takes it once the archive is loaded.

    The same bundle gives the same bytes, as long as Debian's packages are the same.

    Args:
        subject: the bundle.
        path: the file.

    Raises:
        OutsideFailure: packages cannot be fetched, or the file cannot be written.
    """
    home = f"opt/{subject.name}"
    layers = [
        base_layer(subject.manifest.device.arch),
        tar_of(site_packages(subject, PYTHON, GLIBC, f"{home}/site")),
        tar_of(subject.files(f"{home}/bundle"), folders={SOCKETS: 0o1777}),
    ]
    name = f"{subject.name}:{subject.version.replace('+', '-')}"
    blobs = {_digest(layer): layer for layer in layers}
    config = _json(_config(subject, home, layers))
    manifest = _json(_manifest(config, layers))
    blobs |= {_digest(config): config, _digest(manifest): manifest}
    files: dict[str, bytes] = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(_index(subject, name, manifest)),
        "manifest.json": _json(
            [{"Config": _blob(config), "RepoTags": [name], "Layers": [_blob(layer) for layer in layers]}]
        ),
        **{f"blobs/sha256/{digest}": content for digest, content in blobs.items()},
    }
    with written_whole(path) as half, half.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for place, content in files.items():
            entry = tarfile.TarInfo(place)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return name


def _config(subject: Subject, home: str, layers: Sequence[bytes]) -> dict[str, Any]:
    return {
        **ARCHITECTURES[subject.manifest.device.arch],
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": USER,
            "Env": [
                "PATH=/usr/bin:/usr/sbin",
                "PYTHONDONTWRITEBYTECODE=1",
                f"PYTHONPATH=/{home}/site",
                "LANG=C.UTF-8",
            ],
            "Entrypoint": ["python3", f"/{home}/bundle/run.py"],
            "Cmd": ["--serve", f"unix:/{SOCKETS}/{subject.name}.sock"],
            "Labels": {
                "org.opencontainers.image.title": subject.name,
                "org.opencontainers.image.version": subject.version,
                "org.opencontainers.image.description": subject.summary,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}" for layer in layers]},
        "history": [{"created": CREATED, "created_by": "edgekit package --format oci"} for _ in layers],
    }


def _manifest(config: bytes, layers: Sequence[bytes]) -> dict[str, Any]:
    kind = "application/vnd.oci.image"
    return {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": _descriptor(f"{kind}.config.v1+json", config),
        "layers": [_descriptor(f"{kind}.layer.v1.tar", layer) for layer in layers],
    }


def _index(subject: Subject, name: str, manifest: bytes) -> dict[str, Any]:
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["platform"] = {**ARCHITECTURES[subject.manifest.device.arch], "os": "linux"}
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{_digest(content)}", "size": len(content)}


def _blob(content: bytes) -> str:
    return f"blobs/sha256/{_digest(content)}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
