"""How pip is asked and understood, on a device and on the machine of the build: a part of programs, not one.

It hears what the user has set for its index, and nothing else that he has set: a `user = true`, a `target` or
a `constraint` that is meant for other work must not reach into a bundle's packages.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

# What of pip's configuration says where packages come from.
KEPT = (
    "index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy",
    "timeout", "default-timeout", "retries", "keyring-provider",
)  # fmt: skip
QUIET = ("--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off")
_NONE_FITS = re.compile(
    r"satisfies the requirement (?P<name>[A-Za-z0-9._-]+)(?P<pin>[^ ]*).*\(from versions: (?P<there>[^)]*)\)"
)
_UNREACHABLE = re.compile(
    r"Retrying \(Retry|NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|Temporary failure in name"
    r"|Network is unreachable|Connection refused|Connection reset|Connection broken|Max retries exceeded",
)


class Complaint(NamedTuple):
    """Why pip failed.

    Attributes:
        kind: "fit" (no wheel does), "network", "clock" (certificates are not valid yet), "disk" or "other".
        what: in words.
        package, pin: what no wheel fits, `numpy` and `==2.4.6`; for "fit".
        versions: those that would fit, oldest first; for "fit".
    """

    kind: str
    what: str
    package: str = ""
    pin: str = ""
    versions: Tuple[str, ...] = ()


def bare_environment() -> Dict[str, str]:
    """The environment without what changes where Python or pip look and put things."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIP_") and name not in unwanted
    }


def index_environment(pip: Sequence[str]) -> Dict[str, str]:
    """An environment in which pip knows the user's index, and nothing else of his configuration.

    Args:
        pip: the command that starts pip.
    """
    environment = bare_environment()
    if "PIP_CONFIG_FILE" in os.environ:
        environment["PIP_CONFIG_FILE"] = os.environ["PIP_CONFIG_FILE"]
    # Not `config list`, which shows less where the user has set `user = true`.
    command = [*pip, "config", "debug"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=False
    )
    found = settings(config_files(done.stdout.decode("utf-8", "replace")), os.environ)
    return {
        **environment,
        "PIP_CONFIG_FILE": os.devnull,
        **{"PIP_" + key.upper().replace("-", "_"): value for key, value in found.items()},
    }


def config_files(told: str) -> List[str]:
    """The files of pip's configuration that `pip config debug` tells of, the weakest first."""
    kinds: Dict[str, List[str]] = {kind: [] for kind in ("global", "user", "site", "env")}
    kind = ""
    for line in told.splitlines():
        match = re.match(r"  (\S.*), exists: True$", line)
        if match and kind in kinds:
            kinds[kind].append(match.group(1))
        elif re.match(r"\w+:$", line):
            kind = line[:-1]
    return [path for paths in kinds.values() for path in paths]


def settings(files: Sequence[str], environ: Mapping[str, str]) -> Dict[str, str]:
    """What these files and variables say of where packages come from.

    A command's own section stands above the global one, and variables above both, as for pip itself.
    """
    parsed = [_parsed(path) for path in files]
    found: Dict[str, str] = {}
    for section in ("global", "download", "install"):
        for parser in parsed:
            for key, value in parser.items(section) if parser.has_section(section) else ():
                if key.replace("_", "-") in KEPT and value.strip():
                    found[key.replace("_", "-")] = value
    for key in KEPT:
        value = environ.get("PIP_" + key.upper().replace("-", "_"), "")
        if value.strip():
            found[key] = value
    return found


def _parsed(path: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            parser.read_file(file)
    except (OSError, configparser.Error):
        return configparser.RawConfigParser()  # pip itself will say what is wrong with it
    return parser


def complaint(said: str) -> Complaint:
    """Why pip failed, of all that it said."""
    if "No space left on device" in said or "Errno 28]" in said or "Disk quota exceeded" in said:
        return Complaint("disk", "no room left on the disk")
    if "CERTIFICATE_VERIFY_FAILED" in said and "not yet valid" in said:
        return Complaint("clock", "the index's certificate is not valid yet by this machine's clock")
    if _UNREACHABLE.search(said):
        return Complaint("network", "the package index cannot be reached")
    match = _NONE_FITS.search(said)
    if match:
        versions = [word for word in match.group("there").replace(" ", "").split(",") if word != "none"]
        name, pin = match.group("name"), match.group("pin").rstrip(";")
        return Complaint("fit", "no wheel fits", name, pin, tuple(versions))
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
    lines = errors or [line for line in said.splitlines() if line.strip()] or ["no message"]
    return Complaint("other", lines[0].replace("ERROR:", "", 1).strip())
