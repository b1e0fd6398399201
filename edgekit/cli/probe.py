"""`edgekit probe`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.devices import complete_device, host_key_option, manner_from
from edgekit.cli.options import complete_target

if TYPE_CHECKING:
    from edgekit.bundle.manifest import DeviceIdentity
    from edgekit.devices.address import Address
    from edgekit.devices.probe import Facts
    from edgekit.devices.visit import Manner
    from edgekit.progress import Progress


@click.command()
@click.argument("device", default="local", shell_complete=complete_device)
@click.option(
    "--target",
    "-t",
    metavar="NAME|FILE",
    shell_complete=complete_target,
    help="Say where the device is not what this target means.",
)
@host_key_option
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON and nothing else.")
def probe(device: str, target: str | None, as_json: bool, **options: Any) -> None:
    """Look at a device: board, processor, clocks, system, Python and runtimes.

    DEVICE is local, ssh://[USER@]HOST[:PORT] (HOST may be an alias of ~/.ssh/config), or container:TARGET for
    that target's board in an emulated container. Nothing is installed or changed there. What makes figures of
    this device doubtful comes first: under-voltage, heat, a slow governor, a 32-bit system.

    \b
    Example:
      edgekit probe
      edgekit probe ssh://pi@raspberrypi.local --target rpi4
      edgekit probe container:rpi4 --json
    """
    from edgekit.devices.address import parse_address
    from edgekit.progress import Progress

    address, wanted = parse_address(device, where="DEVICE"), _identity(target)
    progress = Progress(quiet=as_json)
    facts, found = _look(address, manner_from(options, progress), wanted, progress)
    if as_json:
        record = {"schema": "edgekit.probe/1", "device": str(address), "target": target, "warnings": found}
        click.echo(json.dumps({**record, "facts": facts}, indent=2, allow_nan=False))
        return
    from edgekit.cli.options import result_console
    from edgekit.report.probe_terminal import print_probe

    print_probe(str(address), facts, found, result_console(), target=wanted.target if wanted else None)


def _look(
    address: Address, manner: Manner, wanted: DeviceIdentity | None, progress: Progress
) -> tuple[Facts, list[str]]:
    """The facts of the device, and what is wrong with it."""
    from edgekit.devices.mismatch import doubts, mismatches
    from edgekit.devices.visit import visit

    with progress.stage(f"look at {address}") as detail, visit(address, manner, detail=detail) as seen:
        facts = seen.facts
    return facts, mismatches(facts, wanted) if wanted else doubts(facts)


def _identity(target: str | None) -> DeviceIdentity | None:
    if target is None:
        return None
    from edgekit.bundle.manifest import identity_of
    from edgekit.target import load_target

    return identity_of(load_target(target))
