import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import PI4

from edgekit.bundle.manifest import DeviceIdentity, identity_of
from edgekit.devices.mismatch import doubts, mismatches
from edgekit.target import load_target
from edgekit.target_file import names

A72 = {"part": "0x41/0xd08", "core": "Cortex-A72", "count": 4}
A76 = {"part": "0x41/0xd0b", "core": "Cortex-A76", "count": 4}
A55 = {"part": "0x41/0xd05", "core": "Cortex-A55", "count": 4}
BOARD = {
    **PI4,
    "cpu_parts": [A72],
    "clock_limit_mhz": 1800.0,
    "clock_driver": "cpufreq-dt",
    "kernel_bits": 64,
    "os_bits": 64,
    "memory_limit_mb": None,
    "revision_means": {"memory_mb": 4295.0},
    "power_mode": None,
    "throttled": "0x0",
}


def found(target="rpi4", **changes):
    return mismatches({**BOARD, **changes}, identity_of(load_target(target)))


def test_the_board_of_the_profile_differs_in_nothing():
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arch": "x86_64"}, "it is x86_64, rpi4 is aarch64"),
        (
            {"os_bits": 32},
            "its system has 32 bits on a 64-bit kernel, and most runtimes have no packages for "
            "that; install the 64-bit edition",
        ),
        ({"cpu_parts": [A76]}, "its core is Cortex-A76, that of rpi4 is Cortex-A72"),
        ({"cpu_parts": []}, None),  # the model's name is all that an x86 has, and here it fits
        (
            {"board": "Raspberry Pi 400 Rev 1.0"},
            "it is a Raspberry Pi 400 Rev 1.0, rpi4 is a Raspberry Pi 4 Model B",
        ),
        ({"board": None}, None),
        ({"cores": 3}, "it has 3 cores, rpi4 has 4"),
        ({"cores": 2, "power_mode": "5W"}, "it has 2 cores (power mode 5W), rpi4 has 4"),
        (
            {"max_clock_mhz": 1250.0, "clock_limit_mhz": 1250.0},
            "its highest clock is 1250 MHz, that of rpi4 is 1500 MHz: it is slower",
        ),
        ({"max_clock_mhz": 1500.0, "clock_limit_mhz": 1500.0}, None),
        ({"max_clock_mhz": 2147.0}, "its highest clock is 2147 MHz, that of rpi4 is 1500 MHz: it is faster"),
        (
            {"clock_limit_mhz": 600.0},
            "its clock is limited to 600 MHz of 1800 MHz, rpi4 has 1500 MHz; lift the "
            "limit (scaling_max_freq)",
        ),
        ({"max_clock_mhz": None, "clock_limit_mhz": None}, None),
        ({"revision_means": {"memory_mb": 2147.5}}, "its memory is 2148 MB, that of rpi4 is 4295 MB"),
        ({"revision_means": None, "memory_total_mb": 3980.0}, None),
        (
            {"revision_means": None, "memory_total_mb": 3100.0},
            "its memory is 3100 MB, that of rpi4 is 4295 MB",
        ),
        ({"memory_limit_mb": 512.0}, "its memory is 512 MB, that of rpi4 is 4295 MB"),
        ({"revision_means": {"memory_mb": 8589.9}}, None),
        (
            {"governor": "powersave"},
            "its clock governor is powersave, which keeps the clock low; set it by `echo "
            "performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
        ),
        ({"governor": "powersave", "clock_driver": "intel_pstate"}, None),
        (
            {"throttled": "0x50005"},
            "its firmware slows it down now: under-voltage, throttled; use a better power supply and cable",
        ),
        (
            {"throttled": "0xe0008"},
            "its firmware slows it down now: near the temperature limit; let it cool, or cool it better",
        ),
        (
            {"throttled": "0x50000"},
            "its firmware has slowed it down since it was started: under-voltage has "
            "occurred, throttling has occurred; use a better power supply and cable",
        ),
        ({"throttled": None}, None),
        ({"throttled": "0xzz"}, None),
    ],
)
def test_each_difference_from_the_profile_is_one_sentence(changes, sentence):
    assert found(**changes) == ([] if sentence is None else [sentence])


def test_the_memory_that_the_kernel_of_a_small_board_keeps_back_is_no_difference():
    # MemTotal is 426,068 kB on the 512 MB of a Zero 2 W (raspberrypi/picamera2#1358).
    board = {"board": "Raspberry Pi Zero 2 W Rev 1.0", "cpu_parts": [{**A72, "core": "Cortex-A53"}]}
    zero = {**board, "revision_means": None, "max_clock_mhz": 1000.0, "clock_limit_mhz": 1000.0}
    assert found("rpi-zero2w", **zero, memory_total_mb=426068 * 1024 / 1e6) == []
    assert len(found("rpi-zero2w", **zero, memory_total_mb=400.0)) == 1


def test_a_pi_5_under_the_name_of_a_pi_4_is_said_in_every_respect():
    pi5 = {"board": "Raspberry Pi 5 Model B Rev 1.0", "cpu_parts": [A76], "max_clock_mhz": 2400.0}
    assert [sentence.split(",")[0] for sentence in found(**pi5)] == [
        "its core is Cortex-A76",
        "it is a Raspberry Pi 5 Model B Rev 1.0",
        "its highest clock is 2400 MHz",
    ]


def test_of_a_chip_with_small_and_large_cores_those_of_the_profile_count():
    big_little = {"cpu_parts": [A55, A76], "cores": 8, "max_clock_mhz": 2400.0, "clock_limit_mhz": 2400.0}
    orange = {**big_little, "board": "Orange Pi 5"}
    assert found("rpi5", **orange) == ["it is a Orange Pi 5, rpi5 is a Raspberry Pi 5"]
    assert (
        found("rpi5", **{**orange, "cpu_parts": [A55, {**A76, "count": 2}]})[-1]
        == "it has 2 cores, rpi5 has 4"
    )


def test_of_an_emulated_board_only_what_is_real_is_compared():
    emulated = {
        "emulated": True,
        "emulated_how": "qemu",
        "cores": 2,
        "governor": "powersave",
        "throttled": "0x5",
    }
    around = {
        "board": "Some server",
        "max_clock_mhz": 400.0,
        "memory_total_mb": 100.0,
        "revision_means": None,
    }
    first = "it is emulated (qemu): function and memory are real, time is not"
    assert found(**emulated, **around) == [first]
    other = {"arch": "armv7l", "cpu_parts": [A76]}
    assert found(**emulated, **around, **other) == [
        first,
        "it is armv7l, rpi4 is aarch64",
        "its core is Cortex-A76, that of rpi4 is Cortex-A72",
    ]


def test_where_any_machine_of_the_architecture_counts_only_its_state_is_said():
    local = DeviceIdentity(
        target="x86-cpu", profile="x86-cpu", core="Zen 5", arch="x86_64", cores=2, local=True, clock_mhz=4500
    )
    machine = {**BOARD, "arch": "x86_64", "cpu_parts": [], "board": "Some server"}
    assert mismatches(machine, local) == []
    assert (
        len(mismatches({**machine, "throttled": "0x1", "governor": "powersave", "os_bits": 32}, local)) == 3
    )
    assert mismatches(BOARD, local) == ["it is aarch64, x86-cpu is x86_64"]


def test_a_bundle_of_before_that_names_no_clock_and_no_memory_is_held_against_neither():
    data = identity_of(load_target("rpi4")).model_dump(exclude={"clock_mhz", "memory_mb"})
    old = DeviceIdentity.model_validate(data)
    assert mismatches({**BOARD, "max_clock_mhz": 600.0, "memory_limit_mb": 100.0}, old) == []


@pytest.mark.parametrize("name", names("target"))
def test_the_device_of_every_target_is_a_record_of_a_manifest(name):
    target = load_target(name)
    identity = identity_of(target)
    assert DeviceIdentity.model_validate_json(identity.model_dump_json()) == identity
    assert (identity.clock_mhz, identity.memory_mb) == (target.profile.clock_mhz, target.profile.memory_mb)


def test_doubts_need_no_target():
    assert doubts(BOARD) == []
    assert len(doubts({**BOARD, "os_bits": 32, "governor": "powersave", "throttled": "0x80000"})) == 3


@given(st.text(), st.text())
def test_what_a_board_says_of_itself_never_breaks_a_line(board, throttled):
    for sentence in found(board=board, throttled=throttled, cpu_parts=[{**A72, "core": board or None}]):
        assert sentence.isprintable()
