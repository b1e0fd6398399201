"""The options of the commands that go to a device, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from edgekit.devices.visit import Manner
    from edgekit.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])


def complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers for a device: this machine, and every target's board in a container."""
    from edgekit.target_file import names

    del ctx, param
    devices = ["local", *(f"container:{name}" for name in names("target")), "ssh://"]
    return [CompletionItem(device) for device in devices if device.startswith(incomplete)]


on_option = click.option(
    "--on",
    multiple=True,
    metavar="DEVICE",
    shell_complete=complete_device,
    help="local, ssh://USER@HOST, container:TARGET, a name of the inventory, or all of it. May repeat.",
)
inventory_option = click.option(
    "--inventory",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML with your devices by name; left out: devices.yaml in the configuration folder.",
)
host_key_option = click.option(
    "--accept-host-key",
    metavar="FINGERPRINT",
    help="Trust an SSH host that is not known yet: SHA256:..., as its refusal shows it.",
)
offline_option = click.option(
    "--offline", is_flag=True, help="Send the packages along, for a device without internet."
)


def device_options(command: Command) -> Command:
    """The options of a command that puts a bundle on devices."""
    return on_option(inventory_option(host_key_option(offline_option(command))))


def manner_from(options: dict[str, Any], progress: Progress) -> Manner:
    """How the user wants devices to be treated; a password is asked for where somebody sits at a terminal."""
    from edgekit.devices.visit import Manner

    return Manner(
        accept_host_key=options.get("accept_host_key"),
        ask=progress.ask if sys.stdin.isatty() else None,
        offline=bool(options.get("offline")),
    )
