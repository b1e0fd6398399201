"""`edgekit deploy`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from edgekit.cli.devices import device_options, manner_from
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, clean, count

if TYPE_CHECKING:
    from edgekit.deploy import Deployed, Order
    from edgekit.devices.device import Detail
    from edgekit.devices.inventory import Place
    from edgekit.devices.visit import Manner
    from edgekit.progress import Progress

T = TypeVar("T")
Outcomes = list[tuple[str, T | EdgekitError]]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@device_options
@click.option("--name", metavar="NAME", help="The service's name; left out: the bundle's.")
@click.option(
    "--keep",
    type=click.IntRange(2, 100),
    default=2,
    show_default=True,
    metavar="N",
    help="Versions that stay there, the current and the previous one among them.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Where it answers: unix:/PATH or 127.0.0.1:PORT; left out: as before, at first a socket of its own.",
)
@click.option("--rollback", "goes_back", is_flag=True, help="Go back to the previous version.")
@click.option("--list", "lists", is_flag=True, help="List the services and their versions.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def deploy(
    bundle: Path | None, goes_back: bool, lists: bool, as_json: bool, on: tuple[str, ...], **options: Any
) -> None:
    """Put a bundle into service on a device, and take it back.

    The bundle is checked here and there (its digests, and its signature where the device demands one), laid
    beside the version that runs, and given an environment of its own; its golden outputs are compared on the
    device. Then one atomic step makes it the current version. Where there is systemd, it is started as the
    service edgekit-NAME and asked for its health; if it does not come up, what ran before runs again.
    Wherever the power goes, a whole version is in service.

    Several devices are served one after the other; one that fails does not stop the others, and makes the
    exit status 4.

    \b
    Example:
      edgekit deploy dist/digits-rpi4 --on ssh://pi@raspberrypi.local
      edgekit deploy --list --on ssh://pi@raspberrypi.local
      edgekit deploy --rollback --on ssh://pi@raspberrypi.local --name digits-rpi4
    """
    from edgekit.deploy import deploy as install
    from edgekit.deploy import rollback, services
    from edgekit.devices.inventory import find_places
    from edgekit.progress import Progress

    _refuse_mixture(bundle, goes_back=goes_back, lists=lists, options=options)
    if not on:
        raise BadInput("no device is given", where="--on", todo="write --on ssh://pi@raspberrypi.local")
    progress, places = Progress(quiet=as_json), find_places(on, options["inventory"])
    manner, name = manner_from(options, progress), options["name"]
    if lists:
        listed = _at_each(
            places,
            manner,
            progress,
            "look at",
            lambda at, how, detail: services(at.address, how, detail=detail),
        )
        _show_services(listed, as_json=as_json)
    elif goes_back:
        done = _at_each(
            places,
            manner,
            progress,
            "roll back",
            lambda at, how, detail: rollback(at.address, name, how, detail=detail),
        )
        _show_deployed(done, progress, as_json=as_json)
    elif bundle is not None:
        order = _order(options)
        done = _at_each(
            places,
            manner,
            progress,
            f"deploy {bundle} to",
            lambda at, how, detail: install(bundle, at.address, order, how, detail=detail),
        )
        _show_deployed(done, progress, as_json=as_json)


def _refuse_mixture(bundle: Path | None, *, goes_back: bool, lists: bool, options: dict[str, Any]) -> None:
    if goes_back and lists:
        raise BadInput("`--rollback` and `--list` exclude one another", todo="give one of them")
    if (goes_back or lists) and bundle is not None:
        which = "--rollback" if goes_back else "--list"
        raise BadInput(
            f"`{which}` takes no bundle", where=str(bundle), todo=f"leave it out, or leave out `{which}`"
        )
    if (goes_back or lists) and options["listen"]:
        raise BadInput(
            "only a deployment changes the address", where="--listen", todo="give the bundle as well"
        )
    if not (goes_back or lists) and bundle is None:
        raise BadInput("no bundle is given", todo="write edgekit deploy BUNDLE --on DEVICE")


def _order(options: dict[str, Any]) -> Order:
    from edgekit.deploy import Order, listening_address, service_name

    name, listen = options["name"], options["listen"]
    return Order(
        name=service_name(name) if name else None,
        keep=options["keep"],
        address=listening_address(listen) if listen else None,
    )


def _at_each(
    places: Sequence[Place],
    manner: Manner,
    progress: Progress,
    verb: str,
    act: Callable[[Place, Manner, Detail], T],
) -> Outcomes[T]:
    """Do it on each device; where there is one alone, its refusal is that of the command."""
    outcomes: Outcomes[T] = []
    for place in places:
        own = replace(manner, offline=manner.offline or place.offline)
        try:
            with progress.stage(f"{verb} {place.name}") as detail:
                outcomes.append((place.name, act(place, own, detail)))
        except EdgekitError as error:
            if len(places) == 1:
                raise
            outcomes.append((place.name, error))
    return outcomes


def _show_deployed(outcomes: Outcomes[Deployed], progress: Progress, *, as_json: bool) -> None:
    from rich.markup import escape

    done = [(name, outcome) for name, outcome in outcomes if not isinstance(outcome, EdgekitError)]
    for name, one in done:
        for warning in one.warnings:
            progress.warn(f"{name}: {warning}")
        for note in one.notes:
            progress.say(f"[dim]note:[/dim] {escape(clean(f'{name}: {note}'))}")
    if as_json:
        _print_json([_as_data(name, outcome, asdict) for name, outcome in outcomes])
    elif len(outcomes) == 1:
        click.echo(_sentence(done[0][1]))
    else:
        rows = [_row(name, outcome) for name, outcome in outcomes]
        _print_table(("device", "service", "version", "before", "outcome"), rows)
    _fail_if_any(outcomes)


def _row(device: str, outcome: Deployed | EdgekitError) -> tuple[str, ...]:
    if isinstance(outcome, EdgekitError):
        return (device, "", "", "", clean(outcome))
    answers = f"answers on {outcome.address}" if outcome.address else "no service was started"
    return (device, outcome.name, outcome.version, outcome.before or "-", answers)


def _sentence(done: Deployed) -> str:
    where = f", answers on {done.address}" if done.address else ""
    before = f" (before: {done.before})" if done.before and done.before != done.version else ""
    return f"{done.name} {done.version} is in service on {done.device}{where}{before}"


def _show_services(outcomes: Outcomes[list[dict[str, Any]]], *, as_json: bool) -> None:
    if as_json:
        _print_json(
            [_as_data(name, outcome, lambda found: {"services": found}) for name, outcome in outcomes]
        )
    else:
        rows = [row for name, outcome in outcomes for row in _rows(name, outcome)]
        _print_table(("device", "service", "state", "version", "role", "deployed", "MB"), rows)
    _fail_if_any(outcomes)


def _rows(device: str, outcome: list[dict[str, Any]] | EdgekitError) -> list[tuple[str, ...]]:
    if isinstance(outcome, EdgekitError):
        return [(device, "", clean(outcome), "", "", "", "")]
    if not outcome:
        return [(device, "none", "", "", "", "", "")]
    return [
        (
            device,
            clean(service["name"], 64),
            clean(service["service"] or "no service manager") if version["active"] else "",
            clean(version["version"], 12),
            _role(service, version),
            "" if version["when"] is None else _date(version["when"]),
            f"{version['size_mb']:.1f}",
        )
        for service in outcome
        for version in service["versions"]
    ]


def _role(service: dict[str, Any], version: dict[str, Any]) -> str:
    if version["active"]:
        return "on trial" if service["on_trial"] else "active"
    if not version["whole"]:
        return "half-done"
    return "previous" if version["previous"] else ""


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    from edgekit.cli.options import result_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        justify: Literal["left", "right"] = "right" if head == "MB" else "left"
        table.add_column(head, overflow="fold", justify=justify, no_wrap=head == "device")
    for row in rows:
        table.add_row(*row)
    result_console().print(table, markup=False)


def _as_data(name: str, outcome: T | EdgekitError, data: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    if isinstance(outcome, EdgekitError):
        return {"device": name, "error": clean(outcome), "exit_status": outcome.exit_status}
    return {**data(outcome), "device": name}


def _print_json(devices: list[dict[str, Any]]) -> None:
    click.echo(json.dumps({"schema": "edgekit.deploy/1", "devices": devices}, indent=2))


def _fail_if_any(outcomes: Outcomes[T]) -> None:
    failed = [name for name, outcome in outcomes if isinstance(outcome, EdgekitError)]
    if failed:
        what = f"{count(len(failed), 'device')} of {len(outcomes)} failed: {', '.join(failed)}"
        raise OutsideFailure(what, where="--on", todo="see the table, and give those again")
