"""Putting a bundle into service on a device without systemd; with it, see test_service.py."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import packed
from deploying import Site, digest, rewritten
from sshd import make_key, public

from edgekit.bundle.sign import sign_bundle
from edgekit.devices.here import Here, HereProcess
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, VerificationFailed
from edgekit.ondevice.runner import check

# The digests alone, which is what an interrupted deployment could spoil; it takes no second.
QUICK_CHECK = """\
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "runner"))
sys.dont_write_bytecode = True
import check
wrong = check.wrong_files(here, json.load(open(os.path.join(here, "manifest.json")))["files"])
sys.exit(f"run.py: {wrong[0]}" if wrong else 0)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bundles of one network, and three of a few files whose check takes no time."""
    root = tmp_path_factory.mktemp("versions")
    for number, name in enumerate("ab", start=1):
        packed(root / name, threads=number)
    for name in "abc":
        files = {"run.py": QUICK_CHECK, "runner/check.py": inspect.getsource(check), "model.onnx": name * 9}
        (root / f"quick-{name}" / "runner").mkdir(parents=True)
        (root / f"quick-{name}" / "manifest.json").write_text('{"files": {}}')
        for path, text in files.items():
            rewritten(root / f"quick-{name}", path, text)
    return root


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "edgekit")


def test_a_bundle_is_checked_with_its_own_environment_and_put_into_service(site, made):
    answer = site.deploy(made / "a")
    version = digest(made / "a")[:12]
    assert answer["version"] == site.current() == version
    assert answer["before"] is None
    assert site.said == ["checking the files", "running its check", "switching to it"]
    assert answer["service"] is None
    assert "no service was started: no systemd runs there" in answer["notes"]
    command = f"{site.folder()}/current/venv/bin/python {site.folder()}/current/bundle/run.py --serve unix:"
    assert any(note.startswith(f"start it with `{command}") for note in answer["notes"])


def test_the_version_before_stays_and_the_one_before_that_goes(site, made):
    for name in "abc":
        answer = site.deploy(made / f"quick-{name}")
    a, b, c = (digest(made / f"quick-{name}")[:12] for name in "abc")
    assert (site.current(), site.current("previous")) == (c, b)
    assert answer["pruned"] == [a]
    assert sorted(path.name for path in (site.folder() / "versions").iterdir()) == sorted([b, c])


def test_more_versions_are_kept_when_asked(site, made):
    for name in "abc":
        answer = site.deploy(made / f"quick-{name}", keep=3)
    assert answer["pruned"] == []
    assert len(list((site.folder() / "versions").iterdir())) == 3


def test_rollback_goes_to_the_previous_version_and_back(site, made):
    a, b = (site.deploy(made / f"quick-{name}")["version"] for name in "ab")
    assert site.rollback(a)["version"] == site.current() == a
    assert site.current("previous") == b
    assert site.rollback(b)["version"] == site.current() == b


def test_an_order_to_roll_back_that_is_given_twice_is_obeyed_once(site, made):
    a, b = (site.deploy(made / f"quick-{name}")["version"] for name in "ab")
    for _ in range(2):  # the first answer got lost
        site.rollback(a)
    assert (site.current(), site.current("previous")) == (a, b)


def test_a_previous_version_that_was_damaged_is_not_gone_back_to(site, made):
    a, b = (site.deploy(made / f"quick-{name}")["version"] for name in "ab")
    (site.folder() / "previous" / "bundle" / "model.onnx").write_bytes(b"other")
    with pytest.raises(VerificationFailed, match=r"on the device, model\.onnx has 5 bytes"):
        site.rollback(a)
    assert (site.current(), site.current("previous")) == (b, a)


def test_rollback_to_what_is_no_previous_version_is_refused(site, made):
    a = site.deploy(made / "quick-a")["version"]
    with pytest.raises(BadInput, match=f"{'0' * 12} is not the previous version of `tiny`"):
        site.rollback("0" * 12)
    assert site.current() == a


def test_a_file_that_was_changed_on_the_way_is_refused(site, made):
    site.authorize(made / "a")
    site.bring(made / "a")
    model = site.folder() / "versions" / digest(made / "a")[:12] / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(VerificationFailed, match=r"on the device, model\.onnx was changed.*; deploy again"):
        site.install(made / "a")
    assert site.current() is None


def test_a_version_that_is_there_need_not_be_sent_unless_it_was_damaged(site, made):
    assert not site.authorize(made / "quick-a")["ready"]
    site.deploy(made / "quick-a")
    assert site.authorize(made / "quick-a")["ready"]
    (site.folder() / "current" / "bundle" / "model.onnx").write_bytes(b"other")
    assert not site.authorize(made / "quick-a")["ready"]


def test_a_bundle_whose_check_fails_there_is_not_put_into_service_and_does_not_stay(site, made, tmp_path):
    a = site.deploy(made / "quick-a")["version"]
    failing = 'import sys\nsys.exit("run.py: check failed: golden sample 3")'
    bad = rewritten(shutil.copytree(made / "b", tmp_path / "bad"), "run.py", failing)
    with pytest.raises(OutsideFailure, match="is not put into service: check failed: golden sample 3"):
        site.deploy(bad)
    assert site.current() == a
    assert [path.name for path in (site.folder() / "versions").iterdir()] == [a]


def test_a_check_that_crashes_is_told_as_what_it_is(site, made, tmp_path):
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)"
    bad = rewritten(shutil.copytree(made / "b", tmp_path / "bad"), "run.py", crash)
    with pytest.raises(OutsideFailure, match="its check was ended by signal 4"):
        site.deploy(bad)
    assert site.current() is None


def test_a_version_that_was_half_brought_is_removed_by_the_next_deployment(site, made):
    half = site.folder() / "versions" / "0123456789ab"
    (half / "venv").mkdir(parents=True)
    site.deploy(made / "quick-a")
    assert not half.exists()


def test_the_list_tells_versions_and_what_they_are(site, made):
    a, b = (site.deploy(made / f"quick-{name}")["version"] for name in "ab")
    (service,) = site.listed()
    assert (service["name"], service["service"], service["on_trial"]) == ("tiny", None, False)
    assert [
        (one["version"], one["active"], one["previous"], one["whole"]) for one in service["versions"]
    ] == [
        (b, True, False, True),
        (a, False, True, True),
    ]
    assert all(one["size_mb"] > 0 for one in service["versions"])


def test_where_nothing_was_deployed_the_list_is_empty(site):
    assert site.listed() == []


def signed(bundle, key):
    sign_bundle(bundle, key)
    return (bundle / "manifest.json.sig").read_text()


@pytest.fixture
def keys(tmp_path):
    """Two keys; the device allows one of them."""
    return make_key(tmp_path / "own"), make_key(tmp_path / "foreign")


def allow(site, key):
    site.root.mkdir(exist_ok=True)
    (site.root / "allowed_signers").write_text(f'builder@work namespaces="edgekit" {public(key)}')


def test_a_device_that_names_signers_takes_what_one_of_them_signed(site, made, keys, tmp_path):
    allow(site, keys[0])
    bundle = shutil.copytree(made / "a", tmp_path / "bundle")
    answer = site.deploy(bundle, signature=signed(bundle, keys[0]))
    assert answer["signer"].startswith("builder@work (ED25519 SHA256:")
    assert not any("demands no signature" in note for note in answer["notes"])
    assert (
        (site.folder() / "current" / "bundle" / "manifest.json.sig").read_text().startswith("-----BEGIN SSH")
    )
    assert site.listed()[0]["versions"][0]["signer"] == answer["signer"]


def test_it_refuses_what_nobody_or_somebody_else_signed_before_anything_is_sent(site, made, keys, tmp_path):
    allow(site, keys[0])
    bundle = shutil.copytree(made / "a", tmp_path / "bundle")
    with pytest.raises(
        VerificationFailed, match=r"the bundle is not signed, and .*allowed_signers says who must"
    ):
        site.authorize(bundle)
    with pytest.raises(VerificationFailed, match=r"signed with ED25519 SHA256:.*, which .* does not allow"):
        site.authorize(bundle, signature=signed(bundle, keys[1]))
    of_another = signed(shutil.copytree(made / "b", tmp_path / "other"), keys[0])
    with pytest.raises(VerificationFailed, match="not one of this manifest"):
        site.authorize(bundle, signature=of_another)
    assert not (site.root / "services").exists()


def test_nothing_of_an_unsigned_bundle_runs_even_if_the_question_was_left_out(site, made, keys, tmp_path):
    allow(site, keys[0])
    spy = f"open({str(tmp_path / 'ran')!r}, 'w')"
    bundle = rewritten(shutil.copytree(made / "a", tmp_path / "bundle"), "run.py", spy)
    site.bring(bundle)
    with pytest.raises(VerificationFailed, match="the bundle is not signed"):
        site.install(bundle)
    assert not (tmp_path / "ran").exists()


def test_a_device_that_demands_a_signature_and_has_no_ssh_keygen_takes_nothing(
    site, made, keys, tmp_path, monkeypatch
):
    allow(site, keys[0])
    bundle = shutil.copytree(made / "a", tmp_path / "bundle")
    signature = signed(bundle, keys[0])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutsideFailure, match="no ssh-keygen to check signatures with"):
        site.authorize(bundle, signature=signature)


class KilledAt(Here):
    """This machine, where a program is killed as it begins the n-th call of a kind to the system."""

    def __init__(self, call, number, log):
        self.call, self.number, self.log = call, number, log

    def start(self, command, *, silence=60.0):
        tracer = ["strace", "-o", str(self.log), "-e", f"trace={self.call}", "-y"]
        if self.number:
            tracer += ["-e", f"inject={self.call}:signal=KILL:when={self.number}"]
        return HereProcess([*tracer, *command], silence)


def passes_its_check(site):
    current = site.folder() / "current"
    command = [sys.executable, current / "bundle" / "run.py", "--check"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def killed_at_every(call, site, tmp_path, act, prepare=lambda: None):
    """Let `act` be killed at the first, second... call of a kind until it is not; yields after each kill."""
    for number in range(1, 100):
        prepare()
        site.device = KilledAt(call, number, tmp_path / "log")
        try:
            act()
            return
        except EdgekitError:
            assert "+++ killed by SIGKILL +++" in (tmp_path / "log").read_text()
        finally:
            site.device = Here()
        yield number
    raise AssertionError("it never ends")


# Together, what changes the file system and what waits for the disk.
@pytest.mark.parametrize("call", "write fsync sync rename symlink unlink unlinkat rmdir flock".split())
def test_killed_at_any_call_a_deployment_leaves_a_version_that_is_whole(call, site, made, tmp_path):
    a, b, c = (digest(made / f"quick-{name}")[:12] for name in "abc")

    def bring_b():
        site.deploy(made / "quick-c")
        site.deploy(made / "quick-a")
        site.authorize(made / "quick-b")
        site.bring(made / "quick-b")

    kills = 0
    for _ in killed_at_every(call, site, tmp_path, lambda: site.install(made / "quick-b"), bring_b):
        kills += 1
        assert site.current() in (a, b)
        assert passes_its_check(site)
        assert site.current("trial") in (a, None)
        # The next deployment succeeds, and nothing of the one that was killed stays.
        assert site.deploy(made / "quick-c")["version"] == site.current() == c
        assert site.current("previous") in (a, b)
        assert site.current("trial") is None
        assert list(site.folder().glob("**/*half*")) == []
    assert kills > 0
    assert (site.current(), site.current("previous")) == (b, a)


@pytest.mark.parametrize("call", "mkdir flock unlinkat rmdir".split())
def test_killed_while_it_tidies_up_it_leaves_what_is_in_service(call, site, made, tmp_path):
    a = site.deploy(made / "quick-a")["version"]
    half = site.folder() / "versions" / "0123456789ab" / "venv"

    def leave_half():
        half.mkdir(parents=True, exist_ok=True)
        (half / "file").touch()

    kills = 0
    for _ in killed_at_every(call, site, tmp_path, lambda: site.authorize(made / "quick-b"), leave_half):
        kills += 1
        assert site.current() == a
        assert passes_its_check(site)
    assert kills > 0
    assert [path.name for path in (site.folder() / "versions").iterdir()] == [a]


@pytest.mark.parametrize("call", ["fsync", "rename", "symlink", "unlink"])
def test_killed_at_any_call_a_rollback_leaves_a_version_that_is_whole(call, site, made, tmp_path):
    a, b = (site.deploy(made / f"quick-{name}")["version"] for name in "ab")
    for _ in killed_at_every(call, site, tmp_path, lambda: site.rollback(a)):
        assert site.current() in (a, b)
        assert passes_its_check(site)
        site.deploy(made / "quick-a")
        site.deploy(made / "quick-b")
    assert site.current() == a


def test_what_a_switch_relies_on_is_on_the_disk_before_it(site, made, tmp_path):
    site.deploy(made / "quick-a")
    site.authorize(made / "quick-b")
    site.bring(made / "quick-b")
    site.device = KilledAt("fsync,sync,rename,symlink,unlink", 0, tmp_path / "log")
    site.install(made / "quick-b")
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if line.endswith(" = 0")]
    done = [(line.partition("(")[0], re.findall(r'"([^"]+)"|<([^>]+)>', line)) for line in lines]
    calls = [(name, [Path(one or other) for one, other in paths]) for name, paths in done]
    renames = [number for number, (name, _) in enumerate(calls) if name == "rename"]
    assert [calls[number][1][1].name for number in renames] == ["ready", "trial", "current", "previous"]
    assert "sync" in [name for name, _ in calls[: renames[0]]]  # the version's files, before its mark
    assert ("fsync", [calls[renames[0]][1][0]]) in calls[: renames[0]]  # the mark, before it has its name
    for number in renames:  # each name, before anything else happens
        assert calls[number + 1] == ("fsync", [calls[number][1][1].parent])
