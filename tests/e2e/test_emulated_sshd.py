"""The SSH server on an emulated board is one as a user of a real board meets it."""

import subprocess

from emulated_sshd import running_emulated_sshd


def ssh(server, *command, **options):
    arguments = ["-F", "none", "-i", server.key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    arguments += ["-o", f"UserKnownHostsFile={server.folder / 'known_hosts'}", "-p", str(server.port)]
    done = subprocess.run(
        ["ssh", *arguments, "edge@127.0.0.1", *command],
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_login_lands_on_the_board(tmp_path):
    with running_emulated_sshd(tmp_path / "server") as server:
        (server.folder / "known_hosts").write_text(server.known_hosts)
        look = "import os; print(os.environ['QEMU_CPU'], open('/proc/cpuinfo').read().count('0xd08'))"
        said = ssh(server, f'uname -m; id -un; python3 -c "{look}"')
        assert said == (0, b"aarch64\nedge\ncortex-a72 4\n", "")
        given = bytes(range(256)) * 4000
        assert ssh(server, "cat > there; exit 7", input=given) == (7, b"", "")
        assert (server.home / "there").read_bytes() == given
