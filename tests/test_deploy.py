"""Deploying over a real SSH connection, with environments made there; the device has no systemd."""

import hashlib
import json
import subprocess

import pytest
from bundles import packed
from sshd import make_key, public, running_sshd

from edgekit.bundle.archive import write_archive
from edgekit.bundle.sign import sign_bundle
from edgekit.deploy import Order, deploy, listening_address, rollback, service_name, services
from edgekit.devices.address import parse_address
from edgekit.devices.visit import Manner
from edgekit.errors import BadInput, VerificationFailed

MANNER = Manner(patience_s=60.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("versions")
    for number, name in enumerate("ab", start=1):
        packed(root / name, threads=number)
    return root


@pytest.fixture(scope="module")
def device(tmp_path_factory, made):
    """A device with two versions, the second one current; each test leaves it so."""
    folder = tmp_path_factory.mktemp("device")
    with running_sshd(folder / "sshd") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(server.make_client(folder / "me")))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        for name in "ab":
            put(server, made / name)
        yield server


def put(server, bundle, detail=print, **order):
    return deploy(bundle, parse_address(server.address), Order(**order), MANNER, detail=detail)


def version_of(bundle):
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()[:12]


def current(server):
    return (server.root / "services" / "tiny" / "current").readlink().name


def test_the_version_there_works_by_itself_in_its_own_environment(device, made):
    folder = device.root / "services" / "tiny" / "current"
    command = [folder / "venv" / "bin" / "python", folder / "bundle" / "run.py", "--check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["samples"] == 8
    assert current(device) == version_of(made / "b")


def test_the_list_and_the_way_back(device, made):
    place = parse_address(device.address)
    (service,) = services(place, MANNER, detail=print)
    a, b = (version_of(made / name) for name in "ab")
    assert [one["version"] for one in service["versions"]] == [b, a]
    back = rollback(place, None, MANNER, detail=print)
    assert (back.version, back.before, current(device)) == (a, b, a)
    assert rollback(place, "tiny", MANNER, detail=print).version == b


def test_a_version_that_is_there_is_not_sent_again_and_an_archive_is_the_same_version(device, made, tmp_path):
    write_archive(made / "b", tmp_path / "b.tar.gz")
    said = []
    done = put(device, tmp_path / "b.tar.gz", said.append)
    assert done.version == done.before == version_of(made / "b")
    assert not any("sending" in line or "environment" in line for line in said)
    assert "running its check" in said


@pytest.mark.parametrize(
    "moment", ["asking whether the device takes it", "checking the files", "running its check"]
)
def test_a_connection_that_breaks_is_made_again_and_the_deployment_ends_well(device, made, moment):
    cut = []

    def detail(line):
        if line == moment and not cut:
            cut.append(device.cut_connections())

    assert put(device, made / "b", detail).version == current(device) == version_of(made / "b")
    assert cut[0] > 0


def test_nothing_of_a_bundle_that_the_device_does_not_trust_gets_there(device, made, tmp_path):
    bundle = packed(tmp_path / "c", threads=3)
    own = make_key(tmp_path / "own")
    allowed = device.root / "allowed_signers"
    allowed.write_text(f"ada@example.org {public(own)}")
    try:
        with pytest.raises(VerificationFailed, match="the bundle is not signed"):
            put(device, bundle)
        sign_bundle(bundle, make_key(tmp_path / "foreign"))
        with pytest.raises(VerificationFailed, match="does not allow"):
            put(device, bundle)
        versions = {path.name for path in (device.root / "services" / "tiny" / "versions").iterdir()}
        assert versions == {version_of(made / name) for name in "ab"}
        sign_bundle(made / "b", own)
        assert put(device, made / "b").signer.startswith("ada@example.org (ED25519")
    finally:
        allowed.unlink()
        (made / "b" / "manifest.json.sig").unlink(missing_ok=True)


def test_a_signature_that_is_not_the_bundles_is_refused_before_anybody_is_asked(made, tmp_path):
    bundle = packed(tmp_path / "c")
    sign_bundle(bundle, make_key(tmp_path / "own"))
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"tiny"', '"tony"'))
    with pytest.raises(VerificationFailed, match="not one of this manifest"):
        deploy(bundle, parse_address("ssh://nobody.invalid"), Order(), MANNER, detail=print)


def test_a_service_that_is_not_there_is_named_with_those_that_are(device):
    with pytest.raises(BadInput, match="has the services tiny; name one of them with `--name`"):
        rollback(parse_address(device.address), "other", MANNER, detail=print)


def test_an_emulated_board_is_no_place_to_deploy_to(made):
    for act in (
        lambda: deploy(made / "a", parse_address("container:rpi4"), Order(), MANNER, detail=print),
        lambda: rollback(parse_address("container:rpi4"), None, MANNER, detail=print),
        lambda: services(parse_address("container:rpi4"), MANNER, detail=print),
    ):
        with pytest.raises(BadInput, match="an emulated board keeps nothing"):
            act()


@pytest.mark.parametrize("name", ["a b", "../x", "", "-x", "x" * 65, "a/b", "x\n", "ü", "a@b", "a%n"])
def test_what_cannot_be_a_part_of_a_units_name_is_refused(name):
    with pytest.raises(BadInput, match="cannot be the name of a service"):
        service_name(name)


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "localhost:1", "[::1]:65535", "unix:/run/a.sock"])
def test_an_address_that_other_machines_cannot_reach_may_be_listened_on(text):
    assert listening_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:80",
        "8080",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "unix:x.sock",
        "unix:/a b",
        "unix:/%t",
        "unix:/" + "x" * 107,
    ],
)
def test_any_other_address_is_refused(text):
    with pytest.raises(BadInput, match="is no address to listen on"):
        listening_address(text)
