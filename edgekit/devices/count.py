"""Count the instructions of a bundle's inference in the container that imitates its board."""

from __future__ import annotations

import json
from typing import Any

from edgekit.devices.device import Detail, Device, started
from edgekit.devices.program import listen, refusal
from edgekit.emulation.count import Reading, counted, counting_qemu, parse_reading, record_of
from edgekit.errors import OutsideFailure, first_line

SILENCE_SECONDS = 1800.0  # an inference of 4e9 instructions, and nothing is said in it


def count_inference(
    device: Device, python: str, program: str, bundle: str, *, detail: Detail
) -> dict[str, Any]:
    """What one inference executes, by one thread; schema "edgekit.count/1".

    The golden outputs are compared before.

    Args:
        device: a container that was opened with the mount `{PLACE: counting_qemu(detail)}`.
        python: of the bundle's environment there.
        program: edgekit's `run.py` there.
        bundle: its folder there.
        detail: takes the lines of progress.

    Raises:
        EdgekitError: the runner's own refusal, of the class that belongs to its exit status.
        OutsideFailure: it crashed, or the emulator gave no readings.
        ConnectionLost: the container is gone, or nothing came for half an hour.
    """
    qemu = counting_qemu(detail)
    readings: dict[int, Reading] = {}
    last = ""

    def heard(line: str) -> None:
        nonlocal last
        reading = parse_reading(line)
        if reading:
            readings[reading[0]] = reading[1]
        else:
            last = line
            detail(line)

    command = counted([python, program, "--bundle", bundle, "--count"])
    with started(device, command, silence=SILENCE_SECONDS) as process:
        process.end_input()
        printed, _ = listen(process, heard)
        status = process.status()
    if status != 0:
        raise refusal(status, last, "run.py", device.name)
    try:
        ran = json.loads(printed)
    except ValueError as error:
        what = f"the runner printed no figures: {first_line(error)}"
        raise OutsideFailure(what, where=device.name) from error
    return record_of(ran, readings, qemu)
