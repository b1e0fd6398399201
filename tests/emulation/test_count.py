"""The QEMU that counts: programs of known instructions, written out in machine code, run on this machine."""

import json
import os
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.emulation import count
from edgekit.errors import OutsideFailure

EXIT = [0xD2800BA8, 0xD2800000, 0xD4000001]  # mov x8, 93; mov x0, 0; svc 0
# As the Arm manual spells them; the disassembler of capstone agrees.
WORDS = {
    "ldr x2, [sp]": (0xF94003E2, {"load": 1, "load_bytes": 8}),
    "ldrsb w2, [sp]": (0x39C003E2, {"load": 1, "load_bytes": 1}),
    "ldr q0, [sp]": (0x3DC003E0, {"load": 1, "load_bytes": 16}),
    "ldr x2, .+4": (0x58000022, {"load": 1, "load_bytes": 8}),
    "ldp q0, q1, [sp]": (0xAD4007E0, {"load": 1, "load_bytes": 32}),
    "ldpsw x2, x3, [sp]": (0x69400FE2, {"load": 1, "load_bytes": 8}),
    "ld1 {v0.16b}, [sp]": (0x4C4073E0, {"load": 1, "load_bytes": 16}),
    "ld4 {v0.4s-v3.4s}, [sp]": (0x4C400BE0, {"load": 1, "load_bytes": 64}),
    "ld1 {v0.s}[1], [sp]": (0x0D4093E0, {"load": 1, "load_bytes": 4}),
    "ld1r {v0.4s}, [sp]": (0x4D40CBE0, {"load": 1, "load_bytes": 4}),
    "ldaxr w2, [sp]": (0x885FFFE2, {"load": 1, "load_bytes": 4}),
    "ldapr x2, [sp]": (0xF8BFC3E2, {"load": 1, "load_bytes": 8}),
    "ldadd w2, w3, [sp]": (0xB82203E3, {"load": 1, "load_bytes": 4, "store_bytes": 4}),
    "cas x2, x3, [sp]": (0xC8A27FE3, {"load": 1, "load_bytes": 8, "store_bytes": 8}),
    "str w2, [sp]": (0xB90003E2, {"store": 1, "store_bytes": 4}),
    "str q0, [sp]": (0x3D8003E0, {"store": 1, "store_bytes": 16}),
    "stp x2, x3, [sp]": (0xA9000FE2, {"store": 1, "store_bytes": 16}),
    "st1 {v0.8b}, [sp]": (0x0C0073E0, {"store": 1, "store_bytes": 8}),
    "stlr w2, [sp]": (0x889FFFE2, {"store": 1, "store_bytes": 4}),
    "prfm pldl1keep, [sp]": (0xF98003E0, {"other": 1}),
    "nop": (0xD503201F, {"other": 1}),
    "dmb ish": (0xD5033BBF, {"other": 1}),
    "b .+4": (0x14000001, {"branch": 1}),
    "cbz xzr, .+4": (0xB400003F, {"branch": 1}),
    "b.eq .+4": (0x54000020, {"branch": 1}),
    "add x2, x2, x3": (0x8B030042, {"integer": 1}),
    "add x2, x2, 1": (0x91000442, {"integer": 1}),
    "madd x2, x2, x3, x4": (0x9B031042, {"integer": 1}),
    "fmul v0.4s, v1.4s, v2.4s": (0x6E22DC20, {"simd_fp": 1}),
    "add v0.4s, v1.4s, v2.4s": (0x4EA28420, {"simd_fp": 1}),
    "fmla v0.4s, v1.4s, v2.4s": (0x4E22CC20, {"simd_fp": 1, "fma": 1}),
    "fmls v0.4s, v1.4s, v2.4s": (0x4EA2CC20, {"simd_fp": 1, "fma": 1}),
    "fmla v0.8h, v1.8h, v2.8h": (0x4E420C20, {"simd_fp": 1, "fma": 1}),
    "fmla v0.4s, v1.4s, v2.s[0]": (0x4F821020, {"simd_fp": 1, "fma": 1}),
    "fmadd s0, s1, s2, s3": (0x1F020C20, {"simd_fp": 1, "fma": 1}),
    "sdot v0.4s, v1.16b, v2.16b": (0x4E829420, {"simd_fp": 1, "dot": 1}),
    "udot v0.4s, v1.16b, v2.4b[0]": (0x6F82E020, {"simd_fp": 1, "dot": 1}),
    "smlal v0.4s, v1.4h, v2.4h": (0x0E628020, {"simd_fp": 1, "widening": 1}),
    "smlal v0.4s, v1.4h, v2.h[0]": (0x0F422020, {"simd_fp": 1, "widening": 1}),
    "umull v0.8h, v1.8b, v2.8b": (0x2E22C020, {"simd_fp": 1, "widening": 1}),
}


def marked(number):
    """getpriority(PRIO_PROCESS, 0x6b000000 + number)."""
    return [0xD28011A8, 0xD2800000, 0x52AD6001, 0x72800001 | number << 5, 0xD4000001]


def program(path, words):
    """A static program for arm64 that consists of these instructions."""
    code = struct.pack(f"<{len(words)}I", *words)
    base, start = 0x400000, 64 + 56
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = start + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    path.write_bytes(identity + header + segment + code)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def qemu():
    return count.counting_qemu(print)


@pytest.fixture
def counters(qemu, tmp_path):
    """What was counted between two marks around instructions."""

    def counters(words):
        path = program(tmp_path / "program", [*marked(0), *words, *marked(1), *EXIT])
        done = subprocess.run(
            count.counted([str(path)], str(qemu)),
            env={**os.environ, "QEMU_CPU": "max"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        readings = dict(filter(None, map(count.parse_reading, done.stderr.splitlines())))
        return {name: readings[1][name] - readings[0][name] for name in readings[0]}

    return counters


@pytest.mark.parametrize("instruction", WORDS)
def test_an_instruction_is_in_its_class_and_no_other(counters, instruction):
    word, expected = WORDS[instruction]
    empty, found = counters([]), counters([word])
    added = {name: found[name] - empty[name] for name in found}
    once = {"instructions": 1, "calling": 1, **expected}
    assert added == {name: once.get(name, 0) for name in added}


def test_what_is_between_two_marks_is_counted_and_nothing_else(counters):
    found = counters([])
    assert (found["instructions"], found["integer"], found["other"]) == (
        5,
        4,
        1,
    )  # what asks for the second one


def test_a_loop_counts_each_time_it_is_run(counters):
    loop = [0xD2807D02, 0x4E22CC20, 0xF1000442, 0x54FFFFC1]  # mov x2, 1000; fmla; subs x2, x2, 1; b.ne back
    found = counters(loop)
    assert (found["fma"], found["branch"]) == (1000, 1000)
    assert found["instructions"] == 1 + 3 * 1000 + 5


def test_two_threads_at_once_lose_nothing(counters):
    loop = [0xD2986A02, 0x4E22CC20, 0xF1000442, 0x54FFFFC1]  # mov x2, 50000; fmla; subs x2, x2, 1; b.ne back
    flag = [0x910003F4, 0xB900029F]  # mov x20, sp; str wzr, [x20]
    stack, flags = [0xD14013E1], [0xD281E000, 0xF2A000A0]  # sub x1, sp, 16384; mov x0, 0x50f00: a thread
    clone = [*flag, *stack, *flags, 0xD2800002, 0xD2800003, 0xD2800004, 0xD2801B88, 0xD4000001]
    first = [*loop, 0xB9400285, 0x34FFFFE5]  # and wait until [x20] is no longer 0
    second = [*loop, 0x52800025, 0xB9000285, *EXIT]  # and set [x20]
    found = counters([*clone, 0xB4000100, *first, 0x1400000A, *second])  # cbz x0, second; b to the end
    assert found["fma"] == 100_000
    assert found["calling"] < found["instructions"] - 150_000


def test_the_classes_add_up_to_all_instructions(counters):
    found = counters([word for word, _ in WORDS.values()])
    assert sum(found[name] for name in count.CLASSES) == found["instructions"] == len(WORDS) + 5


def test_it_is_made_once(qemu):
    said = []
    assert count.counting_qemu(said.append) == qemu
    assert said == []


def test_without_a_compiler_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutsideFailure) as refused:
        count.counting_qemu(print)
    expected = "the QEMU that counts instructions: gcc is missing; apt-get install gcc libc6-dev"
    assert str(refused.value) == expected
    assert list((tmp_path / "cache" / "qemu").iterdir()) == []


@given(st.text() | st.text().map(lambda text: count.PREFIX + text))
def test_a_line_of_the_model_is_no_reading(line):
    assert count.parse_reading(line) is None


def reading(instructions):
    return dict.fromkeys(("calling", *count.COUNTERS), 0) | {"instructions": instructions}


def ran(inferences):
    return {"inferences": inferences, "bundle": {}, "runtime": {}, "threads": 1, "facts": {}}


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=9).filter(lambda found: len(found) % 2 == 1))
def test_the_median_inference_is_told_and_how_far_the_others_are(qemu, totals):
    readings = {}
    for number, total in enumerate(totals):
        readings[2 * number], readings[2 * number + 1] = reading(7), reading(7 + total)
    record = count.record_of(ran(len(totals)), readings, qemu)
    middle = sorted(totals)[len(totals) // 2]
    assert record["per_inference"]["instructions"] == middle
    assert record["spread"] == (max(totals) - min(totals)) / middle
    assert record["instructions_of_each"] == totals
    assert "ms" not in json.dumps(record)


def test_a_reading_that_is_missing_is_said(qemu):
    with pytest.raises(OutsideFailure, match="gave no reading 1"):
        count.record_of(ran(1), {0: reading(1)}, qemu)
