import contextlib
import hashlib
import os
import re
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from sshd import descendants, free_port, is_alive, make_key, public, running_sshd

from edgekit.devices.address import parse_address
from edgekit.devices.device import ConnectionLost, run, started
from edgekit.devices.ssh import open_ssh
from edgekit.errors import BadInput, OutsideFailure


@pytest.fixture
def server(tmp_path):
    with running_sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def me(server, tmp_path, monkeypatch):
    """The user's home."""
    home = server.make_client(tmp_path / "me", config="HashKnownHosts no\n")  # Debian's own file says yes
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@contextlib.contextmanager
def connected(address, **options):
    device = open_ssh(parse_address(address), **options)
    try:
        yield device
    finally:
        device.close()


def refusal(address, kind=OutsideFailure, **options):
    """The one line of a connection that is refused."""
    with pytest.raises(kind) as caught:
        open_ssh(parse_address(address), **options)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_status == kind.exit_status
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    return line


def says_hello(address, **options):
    with connected(address, **options) as device:
        return run(device, ["echo", "hello"]).stdout == b"hello\n"


def quiet(line):
    assert line


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_command_gets_its_arguments_and_input_as_they_are(server, me):
    with connected(server.address) as device:
        words = ["a b", "it's", '"', "$HOME", "*", "", "äö", "a\nb", "\\", "!x"]
        done = run(device, ["printf", "%s|", *words])
        assert done.stdout.decode() == "".join(f"{word}|" for word in words)
        given = bytes(range(256)) * 100
        assert run(device, ["cat"], given=given).stdout == given


def test_both_streams_and_the_status_come_back(server, me):
    with connected(server.address) as device:
        done = run(device, ["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (done.status, done.stdout, done.stderr) == (3, b"out\n", "err\n")
        assert run(device, ["no-such-program"]).status == 127
        assert run(device, ["sh", "-c", "kill -9 $$"]).status == 137
        assert run(device, ["sh", "-c", "kill -SEGV $$"]).status == 139
        assert run(device, ["sh", "-c", "kill -9 -$(ps -o pgid= $$ | tr -d ' ')"]).status == 137
        large = run(device, ["sh", "-c", "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"])
        assert (len(large.stdout), len(large.stderr)) == (5_000_000, 3_000_000)


def test_writing_to_a_command_that_has_ended_is_a_broken_pipe(server, me):
    with connected(server.address) as device, started(device, ["sh", "-c", "exit 5"]) as process:
        assert process.read() is None
        with pytest.raises(BrokenPipeError):
            process.write(bytes(100_000_000))
        assert process.status() == 5


def test_a_device_on_loopback_is_here(server, me):
    with connected(server.address) as device:
        assert device.is_here
        assert device.name == server.address


def test_an_unknown_host_key_is_refused_with_what_accepts_it(server, me):
    known = me / ".ssh" / "known_hosts"
    known.unlink()
    line = refusal(server.address)
    assert "unknown host key ssh-ed25519" in line
    option, fingerprint = re.search(r"(--accept-host-key) (SHA256:\S+)", line).groups()
    assert (option, fingerprint) == ("--accept-host-key", server.fingerprint)
    assert not known.exists()
    assert says_hello(server.address, accept_host_key=fingerprint)
    assert known.read_text() == server.known_hosts
    assert known.stat().st_mode & 0o777 == 0o600
    assert says_hello(server.address)


def test_an_accepted_key_goes_after_a_last_line_without_end(server, me):
    known = me / ".ssh" / "known_hosts"
    known.write_text("elsewhere ssh-ed25519 AAAA")
    assert says_hello(server.address, accept_host_key=server.fingerprint)
    assert known.read_text() == "elsewhere ssh-ed25519 AAAA\n" + server.known_hosts


def test_another_fingerprint_than_the_accepted_one_is_refused(server, me, tmp_path):
    (me / ".ssh" / "known_hosts").write_text("")
    other = "SHA256:" + "A" * 43
    line = refusal(server.address, accept_host_key=other)
    assert server.fingerprint in line
    assert other in line
    assert (me / ".ssh" / "known_hosts").read_text() == ""


@pytest.mark.parametrize("text", ["SHA256:short", "MD5:00:11", "yes", "SHA256:" + "!" * 43, ""])
def test_what_is_no_fingerprint_is_refused(server, me, text):
    assert "--accept-host-key" in refusal(server.address, BadInput, accept_host_key=text)


def test_a_changed_host_key_is_refused_until_the_old_one_is_removed(server, me):
    old = server.fingerprint
    server.swap_host_key()
    line = refusal(server.address, accept_host_key=server.fingerprint)
    assert "THE HOST KEY HAS CHANGED" in line
    assert old in line
    assert server.fingerprint in line
    command = re.search(r"`(ssh-keygen -R [^`]+)`", line)[1]
    file = me / ".ssh" / "known_hosts"  # ssh-keygen takes the home of /etc/passwd, not HOME
    subprocess.run([*shlex.split(command), "-f", file], check=True, capture_output=True)
    assert says_hello(server.address, accept_host_key=server.fingerprint)


def test_a_key_of_another_kind_than_the_known_one_counts_as_changed(server, me):
    server.swap_host_key("ecdsa")
    assert "THE HOST KEY HAS CHANGED" in refusal(server.address)


def test_a_revoked_host_key_is_refused(server, me):
    with (me / ".ssh" / "known_hosts").open("a") as known:
        known.write(f"@revoked * {' '.join(public(server.host_key).split()[:2])}\n")
    assert "revoked" in refusal(server.address)


def test_hashed_names_are_found_and_written(server, me):
    known = me / ".ssh" / "known_hosts"
    subprocess.run(["ssh-keygen", "-H", "-f", known], check=True, capture_output=True)
    assert known.read_text().startswith("|1|")
    assert says_hello(server.address)
    known.write_text("")
    (me / ".ssh" / "config").write_text("HashKnownHosts yes\n")
    assert says_hello(server.address, accept_host_key=server.fingerprint)
    assert known.read_text().startswith("|1|")
    assert says_hello(server.address)


def test_the_server_is_asked_for_the_kind_of_key_that_is_known(tmp_path, monkeypatch):
    rsa = make_key(tmp_path / "rsa", "rsa")
    with running_sshd(tmp_path / "sshd", extra=[f"HostKey {rsa}"]) as server:
        home = server.make_client(tmp_path / "me")
        monkeypatch.setenv("HOME", str(home))
        name = server.known_hosts.split()[0]
        (home / ".ssh" / "known_hosts").write_text(f"{name} {' '.join(public(rsa).split()[:2])}\n")
        assert says_hello(server.address)


def test_an_alias_of_the_configuration_says_host_port_user_and_key(server, me):
    (me / ".ssh" / "id_ed25519").rename(me / "elsewhere")
    (me / ".ssh" / "boards").write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port={server.port}\n  User root\n  IdentityFile ~/elsewhere\n"
        "  HostKeyAlias the-board\n"
    )
    (me / ".ssh" / "config").write_text("Include boards\nHost other\n  Port 1\n")
    (me / ".ssh" / "known_hosts").write_text(
        server.known_hosts.replace(f"[127.0.0.1]:{server.port}", "the-board")
    )
    assert says_hello("ssh://board")


def test_what_the_address_says_goes_before_the_configuration(server, me):
    (me / ".ssh" / "config").write_text("Host 127.0.0.1\n  Port 1\n  User nobody\n")
    assert says_hello(server.address)


def test_a_configuration_that_cannot_be_read_is_refused_in_one_line(server, me):
    (me / ".ssh" / "config").write_text("Host\n")
    assert "config" in refusal(server.address, BadInput)
    (me / ".ssh" / "config").write_text("ConnectTimeout soon\n")
    assert "connecttimeout" in refusal(server.address, BadInput)


def test_a_match_block_that_is_not_understood_never_matches(server, me):
    (me / ".ssh" / "config").write_text(
        "Match tagged x\n  Port 1\nMatch exec true\n  User nobody\nMatch Host 127.*\n  User root\n"
    )
    assert says_hello(server.address.replace("root@", ""))


@pytest.fixture
def between(tmp_path, server, me):
    """Two more servers, which the client knows, and which let through to others."""
    with running_sshd(tmp_path / "one") as one, running_sshd(tmp_path / "two") as two:
        for hop in (one, two):
            hop.authorized_keys.write_text(public(server.key))
        with (me / ".ssh" / "known_hosts").open("a") as known:
            known.write(one.known_hosts + two.known_hosts)
        yield one, two


def test_hosts_between_are_gone_through_one_after_the_other(server, me, between):
    one, two = between
    (me / ".ssh" / "config").write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n"
        f"  ProxyJump root@127.0.0.1:{one.port},two\n"
        f"Host two\n  HostName 127.0.0.1\n  Port {two.port}\n  User root\n"
    )
    with connected("ssh://board") as device:
        assert run(device, ["echo", "hello"]).stdout == b"hello\n"
        assert not device.is_here  # its address is not seen
        assert [len(hop.connections()) for hop in (one, two, server)] == [1, 1, 1]
        two.cut_connections()
        with pytest.raises(ConnectionLost):
            run(device, ["echo", "hello"])
        device.reconnect(patience=20, detail=quiet)
        assert run(device, ["echo", "hello"]).stdout == b"hello\n"
    (me / ".ssh" / "known_hosts").write_text(server.known_hosts + one.known_hosts)
    line = refusal("ssh://board")
    assert "by way of two: unknown host key" in line
    assert two.fingerprint in line


def test_a_host_between_that_does_not_get_further_is_named(server, me, between):
    one, _ = between
    server.stop()
    (me / ".ssh" / "config").write_text(f"Host 127.0.0.1\n  ProxyJump ssh://root@localhost:{one.port}\n")
    with (me / ".ssh" / "known_hosts").open("a") as known:
        known.write(one.known_hosts.replace("127.0.0.1", "localhost"))
    assert f"localhost does not connect to 127.0.0.1 port {server.port}" in refusal(server.address)


def test_a_configuration_that_jumps_in_a_circle_is_refused(server, me):
    (me / ".ssh" / "config").write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    assert "hosts between" in refusal("ssh://a")


def test_a_proxy_command_is_the_connection(server, me, between):
    one, _ = between
    known = f"-o UserKnownHostsFile={me}/.ssh/known_hosts"
    through = f"ssh -F none -i {server.key} {known} -p {one.port} -W %h:%p root@127.0.0.1"
    (me / ".ssh" / "config").write_text(f"Host 127.0.0.1\n  ProxyCommand {through}\n")
    assert says_hello(server.address)
    assert [name for name in descendants_names() if name == "ssh"] == []


def test_a_proxy_command_that_fails_says_why(server, me):
    (me / ".ssh" / "config").write_text("ProxyCommand echo no such luck >&2; exit 1\n")
    assert "the ProxyCommand failed: no such luck" in refusal(server.address)


def descendants_names():
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in descendants(os.getpid())]


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """A real agent with no key; its socket is in the environment."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.terminate()
        process.wait()


def test_the_agent_shows_its_keys(server, me, agent):
    (me / ".ssh" / "id_ed25519").unlink()
    assert "there is no key to show" in refusal(server.address)
    subprocess.run(["ssh-add", "-q", server.key], check=True)
    assert says_hello(server.address)
    (me / ".ssh" / "config").write_text("IdentityAgent none\n")
    assert "there is no key to show" in refusal(server.address)


def test_only_the_named_key_of_a_full_agent_is_shown(tmp_path, agent, monkeypatch):
    with running_sshd(tmp_path / "sshd", extra=["MaxAuthTries 2"]) as server:
        home = server.make_client(tmp_path / "me")
        monkeypatch.setenv("HOME", str(home))
        for number in range(4):
            subprocess.run(["ssh-add", "-q", make_key(tmp_path / f"key{number}")], check=True)
        subprocess.run(["ssh-add", "-q", server.key], check=True)
        for name in ("id_ed25519", "id_ed25519.pub"):
            (home / ".ssh" / name).rename(home / name)
        assert "the server closed the connection after 2 keys" in refusal(server.address)
        (home / ".ssh" / "config").write_text("IdentitiesOnly yes\nIdentityFile ~/id_ed25519\n")
        (home / "id_ed25519").unlink()  # the agent has it
        assert says_hello(server.address)


@pytest.mark.parametrize("options", [["ed25519"], ["rsa"], ["ecdsa"], ["rsa", "-m", "PEM"]])
def test_a_locked_key_is_opened_by_its_passphrase_and_stays_open(server, me, options):
    key = me / ".ssh" / "mine"
    command = ["ssh-keygen", "-q", "-N", "secret", "-f", key, "-t", *options]
    subprocess.run(command, check=True)
    server.authorized_keys.write_text(public(key))
    (me / ".ssh" / "config").write_text("IdentityFile ~/.ssh/mine\n")
    asked = []
    given = iter(["wrong", "secret"])

    def ask(question):
        asked.append(question)
        return next(given)

    with connected(server.address, ask=ask) as device:
        assert run(device, ["true"]).status == 0
        server.restart()
        device.reconnect(patience=20, detail=quiet)
        assert run(device, ["true"]).status == 0
    assert asked == [f"passphrase of {key}: "] * 2


def test_a_key_that_is_not_accepted_leads_to_what_would_help(server, me):
    server.authorized_keys.write_text("")
    line = refusal(server.address)
    assert "nobody can be asked for a password" in line
    assert f"ssh-copy-id -p {server.port} root@127.0.0.1" in line


def test_a_server_that_takes_nothing_but_keys_is_not_shown_a_password(tmp_path, monkeypatch):
    off = ["PasswordAuthentication no", "KbdInteractiveAuthentication no"]
    with running_sshd(tmp_path / "sshd", extra=off) as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        server.authorized_keys.write_text("")
        line = refusal(server.address, ask=lambda _: pytest.fail("asked"))
    assert "the key was not accepted, and the server takes nothing but publickey" in line


@pytest.fixture(scope="module")
def somebody():
    """A user of this system with a password, for as long as these tests take."""
    name, password = f"edgekit{os.getpid()}", "correct horse"
    subprocess.run(["useradd", "--home-dir", "/", "--shell", "/bin/sh", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{password}".encode(), check=True)
        yield name, password
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


WAYS = {
    "password": ["PasswordAuthentication yes", "KbdInteractiveAuthentication no"],
    "keyboard-interactive": ["PasswordAuthentication no", "KbdInteractiveAuthentication yes", "UsePAM yes"],
    "key and password": ["AuthenticationMethods publickey,password"],
}


@pytest.fixture(params=WAYS)
def asking(request, tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd", first=WAYS[request.param]) as server:
        tmp_path.chmod(0o755)
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        if request.param != "key and password":
            server.authorized_keys.write_text("")
        else:
            shared = Path("/tmp") / f"edgekit-keys-{os.getpid()}"  # that user cannot look into tmp_path
            shared.write_text(public(server.key))
            server.authorized_keys = shared
            server.restart()
        yield server
        server.authorized_keys.unlink()


def test_a_password_is_asked_for_once_and_kept_for_the_next_connection(asking, somebody):
    name, password = somebody
    asked = []

    def ask(question):
        asked.append(question)
        return password

    with connected(asking.address.replace("root", name), ask=ask) as device:
        assert run(device, ["id", "-un"]).stdout.decode().strip() == name
        asking.restart()
        device.reconnect(patience=20, detail=quiet)
        assert run(device, ["id", "-un"]).stdout.decode().strip() == name
        with started(device, ["sh", "-c", "echo $$; sleep 1000"]) as process:
            pid = process.read()[1].decode().strip()
            assert is_alive(pid)
        wait_for(lambda: not is_alive(pid))
    assert len(asked) == 1
    assert name in asked[0]
    assert password not in repr(vars(device))


def test_a_wrong_password_is_asked_for_again_and_refused_in_one_line(asking, somebody):
    name, password = somebody
    answers = iter(["wrong", "wronger", "wrongest", "not asked for"])
    line = refusal(asking.address.replace("root", name), ask=lambda _: next(answers))
    assert f"the password of {name} is wrong" in line
    assert next(answers) == "not asked for"
    later = iter(["wrong", password])
    assert says_hello(asking.address.replace("root", name), ask=lambda _: next(later))


def test_a_port_where_nothing_listens_is_said(me):
    assert "refuses connections" in refusal(f"ssh://root@127.0.0.1:{free_port()}")


def test_a_name_without_an_address_is_said(me):
    assert "no address is known for no-such-host.invalid" in refusal("ssh://no-such-host.invalid")


@pytest.mark.parametrize("greeting", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_where_no_ssh_server_greets_is_said(me, greeting):
    (me / ".ssh" / "config").write_text("ConnectTimeout 1\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                if greeting is None:
                    connection.recv(1000)
                    time.sleep(3)
                else:
                    connection.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        line = refusal(f"ssh://root@127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    expected = "did not greet within 1 s" if greeting is None else "before it greeted as an SSH server"
    assert expected in line


def test_no_answer_at_all_is_bounded(me):
    (me / ".ssh" / "config").write_text("ConnectTimeout 1\n")
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # the kernel drops what comes when its queue is full
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        began = time.monotonic()
        line = refusal(f"ssh://root@127.0.0.1:{listener.getsockname()[1]}")
    assert "no answer from 127.0.0.1" in line
    assert time.monotonic() - began < 10


def test_a_server_without_a_common_algorithm_is_said(tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd", extra=["Ciphers chacha20-poly1305@openssh.com"]) as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        assert "no algorithm in common" in refusal(server.address)


def test_a_server_that_runs_no_commands_for_the_user_is_said(tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd", extra=["MaxSessions 0"]) as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        with (
            connected(server.address) as device,
            pytest.raises(OutsideFailure, match="refuses to start a command"),
        ):
            run(device, ["true"])


def test_silence_counts_as_a_lost_connection(server, me):
    with (
        connected(server.address) as device,
        started(device, ["sleep", "100"], silence=0.5) as process,
        pytest.raises(ConnectionLost, match="no answer for"),
    ):
        process.read()


def test_a_pulled_cable_is_noticed_while_reading_and_while_writing(server, me):
    with connected(server.address) as device:
        reading = device.start(["cat"], silence=1)
        writing = device.start(["sh", "-c", "cat >/dev/null"], silence=1)
        began = time.monotonic()
        with server.frozen():
            with pytest.raises(ConnectionLost):
                reading.read()
            with pytest.raises(ConnectionLost):
                writing.write(bytes(100_000_000))
            with pytest.raises(ConnectionLost):
                device.start(["true"], silence=1)
            with pytest.raises(OutsideFailure, match="did not come back within 2 s"):
                device.reconnect(patience=2, detail=quiet)
        assert time.monotonic() - began < 20
        device.reconnect(patience=20, detail=quiet)
        assert run(device, ["true"]).status == 0


def test_a_cable_that_is_put_back_in_time_is_no_loss(server, me):
    with connected(server.address) as device, started(device, ["sh", "-c", "cat | sha256sum"]) as process:
        for number in range(20):
            if number == 5:
                with server.frozen():
                    time.sleep(1)
            process.write(bytes(1 << 20))
        process.end_input()
        digest = process.read()[1].split()[0].decode()
        assert process.read() is None
        assert process.status() == 0
    assert digest == hashlib.sha256(bytes(20 << 20)).hexdigest()


def test_more_is_sent_than_one_key_is_good_for(server, me, monkeypatch):
    monkeypatch.setattr("paramiko.packet.Packetizer.REKEY_BYTES", 1 << 22)
    with connected(server.address) as device, started(device, ["wc", "-c"]) as process:
        for _ in range(40):
            process.write(bytes(1 << 20))
        process.end_input()
        assert process.read() == ("out", b"41943040\n")


def test_a_connection_that_is_cut_is_lost_and_can_be_made_again(server, me):
    told = []
    with connected(server.address) as device:
        with started(device, ["sh", "-c", "echo begun; exec sleep 100"]) as process:
            assert process.read() == ("out", b"begun\n")
            server.stop()
            with pytest.raises(ConnectionLost, match="the connection broke"):
                process.read()
            with pytest.raises(ConnectionLost):
                process.write(b"x")
            with pytest.raises(ConnectionLost):
                process.status()
        with pytest.raises(ConnectionLost):
            device.start(["true"])
        with pytest.raises(OutsideFailure, match=r"did not come back within 2 s.*refuses connections"):
            device.reconnect(patience=2, detail=told.append)
        assert len(told) >= 2
        assert "attempt 2" in told[1]
        server.start()
        device.reconnect(patience=20, detail=quiet)
        assert run(device, ["echo", "back"]).stdout == b"back\n"


def test_a_host_key_that_changed_in_the_meantime_is_not_waited_for(server, me):
    with connected(server.address) as device:
        server.swap_host_key()
        began = time.monotonic()
        with pytest.raises(OutsideFailure, match="THE HOST KEY HAS CHANGED"):
            device.reconnect(patience=60, detail=quiet)
        assert time.monotonic() - began < 20


def test_what_is_stopped_ends_on_the_device_with_its_children(server, me):
    with connected(server.address) as device:
        with started(device, ["sh", "-c", "sleep 1234 & echo $!; wait"]) as process:
            child = process.read()[1].decode().strip()
            assert is_alive(child)
        wait_for(lambda: not is_alive(child))


def test_many_commands_run_at_once_on_one_connection(server, me):
    with connected(server.address) as device:
        found = {}

        def go(number):
            found[number] = run(device, ["sh", "-c", f"cat; echo {number}"], given=b"x" * 1000).stdout

        threads = [threading.Thread(target=go, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: b"x" * 1000 + f"{number}\n".encode() for number in range(8)}


def test_nothing_is_printed_when_a_connection_fails(me, capfd):
    refusal(f"ssh://root@127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close_it():
            listener.accept()[0].close()

        thread = threading.Thread(target=close_it)
        thread.start()
        refusal(f"ssh://root@127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert capfd.readouterr() == ("", "")
