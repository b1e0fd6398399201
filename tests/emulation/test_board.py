"""What is imitated of each board agrees with its profile and with what QEMU can do."""

import re
import subprocess

import pytest
from emulated import up

from edgekit.emulation.board import EMULATOR_MB, board_of, imitable
from edgekit.emulation.engine import registered
from edgekit.ondevice.runner.facts import CORES
from edgekit.target import load_target


@pytest.fixture(scope="module")
def known_to_qemu():
    """The cores that this machine's emulator has."""
    up()
    program = registered().interpreter.resolve()
    said = subprocess.run([program, "-cpu", "help"], capture_output=True, text=True, check=False, timeout=30)
    return set(said.stdout.split())  # its exit status is 1 all the same


@pytest.mark.parametrize("name", imitable())
def test_the_cpuinfo_is_that_of_the_core_that_qemu_imitates(name, known_to_qemu):
    board, profile = board_of(name), load_target(name).profile
    parts = set(re.findall(r"CPU part\t: (0x\w+)", board.cpuinfo.read_text()))
    assert [CORES[("0x41", part)].lower() for part in parts] == [board.cpu]
    assert board.cpu in known_to_qemu
    assert board.cpuinfo.read_text().count("processor\t:") == profile.cores
    assert "emulation" in profile.sources


@pytest.mark.parametrize("name", imitable())
def test_the_cpuinfo_has_the_instruction_sets_of_the_profile_and_its_board(name):
    board, profile = board_of(name), load_target(name).profile
    text = board.cpuinfo.read_text()
    (features,) = set(re.findall(r"Features\t: (.*)", text))
    assert set(profile.isa) <= set(features.split())
    assert re.findall(r"Serial\t+: (\w+)", text) in ([], ["0" * 16]), "nobody's serial number"
    if model := re.search(r"Model\t+: (.*)", text):
        assert model[1].startswith(profile.board)


def test_the_limit_is_the_board_s_memory_and_the_emulator_s():
    board = board_of("rpi-zero2w")
    assert board.limit_bytes == (537 + EMULATOR_MB) * 1_000_000
    assert re.fullmatch(r"(\w+: +\d+ kB\n)+", board.meminfo)
    total = int(re.search(r"MemTotal: +(\d+) kB", board.meminfo)[1]) * 1024
    assert total == pytest.approx(537e6, rel=1e-4)


def test_a_broken_target_of_the_user_s_does_not_hide_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "broken.yaml").write_text("zebra: 1\n")
    (tmp_path / "targets" / "mine.yaml").write_text("extends: rpi4\n")
    assert imitable() == ["jetson-nano", "jetson-orin-nano", "mine", "rpi-zero2w", "rpi3", "rpi4", "rpi5"]
