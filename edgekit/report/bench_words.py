"""What a benchmark's record says: whose figures they are, how they stand, how they were got, in words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.bench import cost_of
from edgekit.cost import LABELS, Cost, Status, Verdict, cost_from_dict, judge, outcome
from edgekit.errors import clean, count
from edgekit.report.bench_facts import machine_text
from edgekit.report.words import UNKNOWN, listed, show_ms, value_text

Record = Mapping[str, Any]

HERE = "this machine"
OPTIONS = {"quick": " --quick", "standard": "", "strict": " --strict"}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a benchmark is to be read.

    Attributes:
        word: the outcome when the figures are the target's; else that they are not.
        lead: whose figures these are.
        verdicts: on each limit of the bundle's budget; empty when the figures are not the target's.
    """

    word: str
    lead: str
    verdicts: tuple[Verdict, ...] = ()


def stand(result: Record, manifest: Record) -> Standing:
    """Whose figures these are, and how they stand against the budget if they are the target's."""
    target = clean(manifest["device"]["target"])
    doubt = "; something else shaped the timing" if result["contaminated"] else ""
    lead = f"measured on {target}: {machine_text(result['facts'])}"
    reason = why_not_the_target(result["facts"], manifest["device"])
    if reason:
        where = device_name(result)
        word = "MEASURED HERE" if where == HERE else "MEASURED THERE"
        return Standing(
            word="EMULATED" if result["facts"]["emulated"] else word,
            lead=f"these are the figures of {where}, not of {target}: {reason}{doubt}",
        )
    verdicts = judge(bench_cost(result, manifest), cost_from_dict(manifest["budget"]))
    if not verdicts:
        return Standing(word="MEASURED", lead=f"{lead}; the bundle names no limit{doubt}")
    word = outcome(verdicts)
    return Standing(word=word, lead=f"{lead}{_binding(verdicts, word)}{doubt}", verdicts=tuple(verdicts))


def device_name(result: Record) -> str:
    """Where it was measured, as the user named the device."""
    name = result.get("device", {}).get("name", "local")
    return HERE if name == "local" else clean(name)


def mismatch_lines(result: Record, manifest: Record) -> list[str]:
    """What is unlike the profile on a device that is the target all the same: a lower clock, heat."""
    if why_not_the_target(result["facts"], manifest["device"]):
        return []
    return [clean(sentence) for sentence in result.get("mismatches", ())]


def _binding(verdicts: Sequence[Verdict], word: Status) -> str:
    """Which limits made the outcome what it is; nothing when all are kept."""
    said = {"NOT MET": "above the limit", "UNPROVEN": "not decided", "PREDICTED": "predicted"}
    labels = [LABELS[verdict.name][0] for verdict in verdicts if verdict.status == word]
    be = "is" if len(labels) == 1 else "are"
    return f"; {listed(labels)} {be} {said[word]}" if word in said else ""


def why_not_the_target(facts: Record, device: Record) -> str:
    """What shows that the benchmark did not run on the bundle's target; empty when nothing does."""
    target = clean(device["target"])
    if facts["emulated"]:
        return f"it is emulated ({clean(facts['emulated_how'])}), where time is not real"
    if facts["arch"] != device["arch"]:
        return f"it is {clean(facts['arch'])}, {target} is {clean(device['arch'])}"
    if device["local"]:
        return ""
    core = facts["core"] or UNKNOWN
    if core.casefold() != device["core"].casefold():
        return f"its core is {clean(core)}, that of {target} is {clean(device['core'])}"
    if facts["cores"] != device["cores"]:
        return f"it has {count(facts['cores'], 'core')}, {target} has {device['cores']}"
    if facts["board"] and not facts["board"].startswith(device["board"]):
        return f"it is a {clean(facts['board'])}, {target} is a {clean(device['board'])}"
    return ""


def bench_cost(result: Record, manifest: Record) -> Cost:
    """The figures of a benchmark as a cost; the quality is the one that the build found."""
    built = cost_from_dict(manifest["cost"])
    return Cost(drop=built.drop, class_drop=built.class_drop) | cost_of(result)


def elsewhere_lines(result: Record, manifest: Record) -> list[str]:
    """What holds for the target, where the figures here are not the target's; else nothing."""
    if not why_not_the_target(result["facts"], manifest["device"]):
        return []
    predicted = [
        f"{LABELS[name][0]} {value_text(name, figure)}"
        for name, figure in cost_from_dict(manifest["cost"]).known()
        if figure.how == "predicted"
    ]
    target = clean(manifest["device"]["target"])
    lines = [f"predicted for {target} by the build: {listed(predicted)}"] if predicted else []
    command = f"edgekit bench {clean(manifest['name'])} --on ssh://USER@HOST"
    copy = "copy the bundle there and run `python run.py --bench` in it"
    return [*lines, f"to measure on {target}: `{command}`, or {copy}"]


def notes(result: Record) -> list[str]:
    """The notes of the record, without those on percentiles, which stand beside the figures."""
    absent = {f"{name}: {reason}" for name, reason in result["latency"]["not_given"].items()}
    return [note for note in result["notes"] if note not in absent]


def show_tail(value_ms: float | None) -> str:
    """A percentile that may not be given."""
    return "not given" if value_ms is None else show_ms(value_ms)


def tail_text(name: str, latency: Record) -> str:
    """What a percentile claims, or why it is not given."""
    reason = latency["not_given"].get(name)
    return reason or "99 % sure that the true one is not above this"


def runs_text(result: Record) -> str:
    """How long it was measured: `2000 runs in 3.5 s, protocol quick, 4 threads`."""
    protocol = result["protocol"]
    seconds = f"{protocol['seconds']:.1f} s"
    return (
        f"{protocol['runs']} runs in {seconds}, protocol {clean(protocol['mode'])}, "
        f"{count(protocol['threads'], 'thread')}"
    )


def start_text(result: Record) -> str:
    """What the first call cost beside its own time."""
    load, runtime = show_ms(result["load_ms"]), show_ms(result["runtime_import_ms"])
    return f"after {load} to load the model and {runtime} to import the runtime"


def memory_text(result: Record) -> str:
    """What the peak of memory holds."""
    before = result["memory"]["before_load_rss_mb"]
    start = f"; {before:.3g} MB before the model was loaded" if before is not None else ""
    return f"of a process of its own{start}"


def protocol_lines(result: Record) -> list[str]:
    """How it was measured, one sentence each."""
    protocol, warm = result["protocol"], result["protocol"]["warm_up"]
    golden = result["golden_lowest_snr_db"]
    settled = "until the time of a call had settled" if warm["steady"] else "and the time had not settled"
    lines = [
        "files and golden outputs were checked before anything was timed; "
        + ("the outputs are equal" if golden is None else f"the outputs agree to {golden:.1f} dB"),
        f"warm-up: {warm['runs']} runs in {warm['seconds']:.1f} s, {settled}",
        f"then {runs_text(result)}; inputs: {clean(protocol['inputs'])}",
        f"stream: {clean(protocol['stream'])}",
        f"timer: {clean(protocol['timer'])}",
        f"percentiles: {clean(protocol['percentiles'])}; one that the runs cannot carry is not given",
        "memory: peak resident memory of a process of its own, so that watching it disturbs no timing",
    ]
    kept = len(result["samples_ms"])
    if result.get("sustained"):
        return [*lines, *_sustained_lines(result["sustained"], kept)]
    if kept < protocol["runs"]:
        lines.append(f"of the runs, {kept} were kept, chosen at random, in their order")
    return lines


def _sustained_lines(sustained: Record, kept: int) -> list[str]:
    """How the part that is judged was found."""
    return [
        f"{clean(sustained['method'])}; the warm-up was short, to begin as cold as can be",
        f"the percentiles rest on {kept} runs of the judged part; of very many, some were chosen at random",
    ]


def repeat_commands(result: Record, manifest: Record) -> str:
    """What to type to measure again, here and on the device."""
    protocol, asked = result["protocol"], manifest["runtime"]["threads"]
    option = there = OPTIONS.get(protocol["mode"], "")
    if result.get("sustained"):
        there = f" --sustained {result['sustained']['asked_seconds']:g}"
        option = f"{there}s"
    threads = f" --threads {protocol['threads']}" if protocol["threads"] != asked else ""
    name = shlex.quote(clean(manifest["name"]))
    where = result.get("device", {}).get("address", "local")
    on = "" if where == "local" else f" --on {shlex.quote(clean(where))}"
    return f"edgekit bench {name}{on}{option}{threads}\ncd {name} && python run.py --bench{there}{threads}"
