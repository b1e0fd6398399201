import json
import sys

import pytest
from sshd import running_sshd

from edgekit.devices import program
from edgekit.devices.address import parse_address
from edgekit.devices.here import Here
from edgekit.devices.program import call, opened
from edgekit.devices.ssh import open_ssh
from edgekit.errors import BadInput, OutsideFailure, VerificationFailed

SOURCES = {
    "remote/answers": """
import sys
def main(arguments):
    given = sys.stdin.buffer.read()
    print("not the last line")
    print("a line of progress", file=sys.stderr)
    print('{"given": %d, "arguments": "%s"}' % (len(given), " ".join(arguments)))
    return 0
""",
    "remote/refuses": """
import sys
def main(arguments):
    print("refuses: %s; %s" % (arguments[1], arguments[2]), file=sys.stderr)
    return int(arguments[0])
""",
    "remote/crashes": "def main(arguments):\n    raise RuntimeError('no luck')\n",
    "remote/says_nothing": "def main(arguments):\n    return 0\n",
    "runner/number": "NUMBER = 42\n",
    "remote/needs": """
import json, sys
def main(arguments):
    print(json.dumps({"number": sys.modules["edgekit_number"].NUMBER}))
    return 0
""",
}


@pytest.fixture(params=["here", "ssh"])
def device(request, tmp_path, monkeypatch):
    for name, source in SOURCES.items():
        file = tmp_path / "ondevice" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    monkeypatch.setattr(program, "ROOT", tmp_path / "ondevice")
    if request.param == "here":
        yield Here()
        return
    with running_sshd(tmp_path / "sshd") as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        device = open_ssh(parse_address(server.address))
        yield device
        device.close()


def test_a_program_answers_with_the_last_line_that_it_prints(device):
    told = []
    given = [b"x" * 1000] * 1000
    answer = call(device, sys.executable, "answers", ["a b", "*"], given=given, detail=told.append)
    assert answer == {"given": 1_000_000, "arguments": "a b *"}
    assert told == ["a line of progress"]


@pytest.mark.parametrize(("status", "kind"), [(2, BadInput), (4, OutsideFailure), (5, VerificationFailed)])
def test_a_refusal_is_of_the_class_of_its_status(device, status, kind):
    with pytest.raises(kind) as caught:
        call(device, sys.executable, "refuses", [str(status), "it is full", "free some space"])
    assert str(caught.value) == f"{device.name}: it is full; free some space"


def test_a_crash_and_an_answer_that_is_none_are_one_line(device):
    with pytest.raises(OutsideFailure, match="crashes failed with status 1: RuntimeError: no luck"):
        call(device, sys.executable, "crashes")
    with pytest.raises(OutsideFailure, match="says_nothing gave no answer"):
        call(device, sys.executable, "says_nothing")


def test_a_program_finds_the_parts_that_it_needs(device):
    assert call(device, sys.executable, "needs", parts=["runner/number"]) == {"number": 42}


def test_what_lies_in_the_working_folder_is_not_imported(device, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert call(Here(), sys.executable, "needs", parts=["runner/number"]) == {"number": 42}


def test_the_streams_of_an_open_program_are_the_callers(device):
    with opened(device, sys.executable, "answers") as process:
        process.write(b"abc")
        process.end_input()
        printed = b""
        while (piece := process.read()) is not None:
            printed += piece[1] if piece[0] == "out" else b""
        assert process.status() == 0
    assert json.loads(printed.splitlines()[-1])["given"] == 3
