import json

import pytest
from bundles import run_edgekit
from sshd import make_key, public

from edgekit.bundle.archive import write_archive


@pytest.fixture
def key(tmp_path, monkeypatch):
    home = tmp_path / "me"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGEKIT_CONFIG", str(home / "config"))
    (home / "config").mkdir()
    return make_key(home / ".ssh" / "id_ed25519")


def test_a_bundle_and_an_archive_are_signed_and_verified(bundle, key, tmp_path):
    write_archive(bundle, tmp_path / "tiny.tar.gz")
    for path in (bundle, tmp_path / "tiny.tar.gz"):
        assert run_edgekit("verify", path).stdout.splitlines()[1] == "not signed"
        done = run_edgekit("sign", path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"signed {path} with ED25519 SHA256:")
        assert (
            run_edgekit("verify", path).stdout.splitlines()[1].startswith("signed by an unknown key: ED25519")
        )
    (tmp_path / "me" / "config" / "allowed_signers").write_text(f"ada@example.org {public(key)}")
    assert (
        run_edgekit("verify", bundle).stdout.splitlines()[1].startswith("signed by ada@example.org: ED25519")
    )
    found = json.loads(run_edgekit("verify", bundle, "--json").stdout)["signature"]
    assert found["name"] == "ada@example.org"
    assert found["key"].startswith("ED25519 SHA256:")


def test_a_signature_that_is_demanded_and_wrong_has_exit_status_5(bundle, key, tmp_path):
    allowed = tmp_path / "team"
    allowed.write_text(f"ada@example.org {public(make_key(tmp_path / 'other'))}")
    done = run_edgekit("verify", bundle, "--allowed-signers", allowed)
    assert (done.returncode, done.stdout) == (5, "")
    assert "not signed" in done.stderr
    run_edgekit("sign", bundle)
    done = run_edgekit("verify", bundle, "--allowed-signers", allowed)
    assert (done.returncode, done.stdout) == (5, "")
    assert f"which {allowed} does not allow" in done.stderr


def test_what_is_no_bundle_is_not_signed(key, tmp_path):
    done = run_edgekit("sign", tmp_path / "nothing")
    assert done.returncode == 2
    assert "no such bundle" in done.stderr
