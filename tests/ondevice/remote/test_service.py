"""Services under a real systemd: root's, and those of a user without rights."""

import json
import os
import shutil
import time

import pytest
from booted import UID, USER, booted
from bundles import packed
from deploying import PARTS, PYTHON, Site, digest, given_of, rewritten

from edgekit.devices.device import started
from edgekit.devices.program import opened
from edgekit.errors import OutsideFailure

UNIT = "edgekit-tiny"
RUNTIME = {"root": "/run", USER: f"/run/user/{UID}"}
# Appended to the part that serves: what it does instead.
DIES = """

def serve(runner, bundle, options):
    print("the sensor is missing", file=sys.stderr)
    raise SystemExit(7)
"""
DIES_SOON = """

def announce(name, shown, announce=announce):
    announce(name, shown)
    threading.Timer(1.0, lambda: os._exit(7)).start()
"""
HANGS = """

def announce(name, shown):
    pass
"""
ANOTHER = """

class Service(Service):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.version = "another"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("versions")
    for number, name in enumerate("ab", start=1):
        packed(root / name, threads=number)
    serve = (root / "a" / "runner" / "serve.py").read_text()
    for name, more in (("dies", DIES), ("dies-soon", DIES_SOON), ("hangs", HANGS), ("another", ANOTHER)):
        rewritten(shutil.copytree(root / "a", root / name), "runner/serve.py", serve + more)
    return root


@pytest.fixture
def user(request):
    return getattr(request, "param", USER)


both = pytest.mark.parametrize("user", ["root", USER], indirect=True)


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "srv").mkdir()
    with booted(tmp_path / "srv") as machine:
        yield machine


@pytest.fixture
def site(machine, user):
    here = machine.srv / "edgekit"
    here.mkdir()
    owner = UID if user == USER else None
    if owner:
        os.chown(here, owner, owner)
    return Site("/srv/edgekit", device=machine.device(user), here=here, owner=owner)


def systemctl(machine, user, *words, check=True):
    command = (
        ["systemctl"]
        if user == "root"
        else ["env", f"XDG_RUNTIME_DIR={RUNTIME[user]}", "systemctl", "--user"]
    )
    return machine.run(*command, *words, user=user, check=check)


def shown(machine, user, name):
    return systemctl(machine, user, "show", "--value", "-p", name, UNIT)


def health(machine, user):
    """What the service answers."""
    ask = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n'); print(s.makefile().read().split('\\n\\n')[-1])"
    )
    answer = machine.run(PYTHON, "-c", ask, f"{RUNTIME[user]}/edgekit/tiny/http.sock", user=user)
    return json.loads(answer)


def serves(machine, user, bundle):
    """Whether the service runs and serves this bundle."""
    return (
        shown(machine, user, "ActiveState") == "active"
        and health(machine, user)["version"] == digest(bundle)[:12]
    )


@both
def test_a_version_is_started_and_the_next_one_takes_its_place(machine, site, user, made):
    answer = site.deploy(made / "a")
    assert answer["service"] == UNIT
    assert answer["address"] == f"unix:{RUNTIME[user]}/edgekit/tiny/http.sock"
    assert serves(machine, user, made / "a")
    site.deploy(made / "b")
    assert serves(machine, user, made / "b")
    assert site.listed()[0]["service"] == "active"
    site.rollback(digest(made / "a")[:12])
    assert serves(machine, user, made / "a")


@both
def test_the_unit_is_one_that_systemd_has_nothing_to_say_against(machine, site, user, made):
    site.deploy(made / "a")
    path = shown(machine, user, "FragmentPath")
    kind = [] if user == "root" else ["--user"]
    runtime = f"XDG_RUNTIME_DIR={RUNTIME[user]}"
    said = machine.run(
        "env", runtime, "sh", "-c", '"$@" 2>&1', "-", "systemd-analyze", *kind, "verify", path, user=user
    )
    assert said == ""
    assert shown(machine, user, "NoNewPrivileges") == "yes"
    assert systemctl(machine, user, "is-enabled", UNIT) == "enabled"


def test_what_runs_already_is_not_started_again(machine, site, user, made):
    site.deploy(made / "a")
    before = shown(machine, user, "MainPID")
    site.said.clear()
    site.deploy(made / "a")
    assert shown(machine, user, "MainPID") == before
    assert site.said[-1] == "it is in service already"


def test_a_service_that_is_killed_comes_back(machine, site, user, made):
    site.deploy(made / "a")
    before = shown(machine, user, "MainPID")
    machine.run("kill", "-KILL", before)
    wait_until(lambda: shown(machine, user, "MainPID") not in (before, "0"))
    wait_until(lambda: shown(machine, user, "ActiveState") == "active")
    assert serves(machine, user, made / "a")


@both
def test_a_version_that_does_not_start_is_taken_back_and_its_last_words_are_told(machine, site, user, made):
    site.deploy(made / "b")
    site.deploy(made / "a")
    with pytest.raises(OutsideFailure) as refused:
        site.deploy(made / "dies")
    a, b = (digest(made / name)[:12] for name in "ab")
    assert f"{a} is in service again; it said: the sensor is missing" in str(refused.value)
    assert serves(machine, user, made / "a")
    assert (site.current(), site.current("previous"), site.current("trial")) == (a, b, None)
    assert sorted(path.name for path in (site.folder() / "versions").iterdir()) == sorted([a, b])


@pytest.mark.parametrize(
    ("bad", "why"), [("dies-soon", "it ended within 2 s"), ("another", "it serves version another")]
)
def test_a_version_that_starts_and_is_not_healthy_is_taken_back(machine, user, site, made, bad, why):
    site.deploy(made / "a")
    with pytest.raises(OutsideFailure, match=why):
        site.deploy(made / bad)
    assert serves(machine, user, made / "a")


def test_a_first_version_that_does_not_start_leaves_nothing(machine, site, user, made):
    with pytest.raises(OutsideFailure, match="no service runs, as before"):
        site.deploy(made / "dies")
    assert site.current() is None
    assert shown(machine, user, "LoadState") == "not-found"
    assert list((site.folder() / "versions").iterdir()) == []
    site.deploy(made / "a")
    assert serves(machine, user, made / "a")


def test_an_address_that_is_taken_is_given_up_for_the_one_before(machine, site, user, made):
    site.deploy(made / "a")
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 8099)); print(1, flush=True); "
    with started(machine.device(), [PYTHON, "-c", f"{listen} time.sleep(600)"]) as taken:
        assert taken.read() == ("out", b"1\n")
        with pytest.raises(OutsideFailure, match=r"127\.0\.0\.1:8099"):
            site.deploy(made / "b", address="127.0.0.1:8099")
    assert serves(machine, user, made / "a")


def test_an_address_that_is_asked_for_is_kept_by_later_versions(machine, site, user, made):
    assert site.deploy(made / "a", address="127.0.0.1:8098")["address"] == "127.0.0.1:8098"
    assert site.deploy(made / "b")["address"] == "127.0.0.1:8098"


@both
def test_after_a_loss_of_power_while_a_version_is_tried_the_one_before_runs(machine, site, user, made):
    if user == USER:  # its services start at boot once this was typed
        machine.run("loginctl", "enable-linger", USER)
    site.deploy(made / "a")
    with trying(site, made / "hangs"):
        machine.lose_power()
    assert (site.current(), site.current("trial")) == (digest(made / "hangs")[:12], digest(made / "a")[:12])
    machine.boot()
    wait_until(lambda: shown(machine, user, "ActiveState") == "active")
    assert serves(machine, user, made / "a")
    assert (site.current(), site.current("trial")) == (digest(made / "a")[:12], None)
    site.deploy(made / "b")
    assert serves(machine, user, made / "b")


def test_a_deployment_that_is_killed_while_it_tries_a_version_is_taken_back_by_the_next(
    machine, site, user, made
):
    site.deploy(made / "a")
    with trying(site, made / "hangs"):
        machine.run("pkill", "-KILL", "-f", "edgekit_")
    assert site.current("trial") == digest(made / "a")[:12]
    answer = site.authorize(made / "b")
    assert any("was taken back" in note for note in answer["notes"])
    assert serves(machine, user, made / "a")


def test_where_the_users_manager_does_not_run_the_command_that_mends_it_is_told(machine, made):
    machine.run("systemctl", "stop", f"user@{UID}.service")
    here = machine.srv / "edgekit"
    here.mkdir()
    os.chown(here, UID, UID)
    site = Site("/srv/edgekit", device=machine.device(USER), here=here, owner=UID)
    answer = site.deploy(made / "a")
    assert answer["service"] is None
    assert any(f"`sudo loginctl enable-linger {USER}`" in note for note in answer["notes"])
    assert site.current() == digest(made / "a")[:12]


class trying:
    """A deployment of a version that never gets ready, from when it is in service until the block ends."""

    def __init__(self, site, bundle):
        self.site, self.bundle = site, bundle

    def __enter__(self):
        site, bundle = self.site, self.bundle
        site.authorize(bundle)
        site.bring(bundle)
        words = ["install", str(site.root), "tiny", digest(bundle), "2"]
        self.running = opened(site.device, PYTHON, "deploy", words, parts=PARTS)
        process = self.running.__enter__()
        process.write(json.dumps(given_of(bundle)).encode())
        process.end_input()
        wait_until(lambda: site.current() == digest(bundle)[:12])

    def __exit__(self, *error):
        self.running.__exit__(None, None, None)


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
