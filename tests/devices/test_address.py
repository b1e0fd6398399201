import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.address import Address, parse_address
from edgekit.errors import BadInput

WORD = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]", fullmatch=True)
HOSTS = WORD | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("local", Address(kind="local")),
        ("container:rpi4", Address(kind="container", target="rpi4")),
        ("ssh://pi@raspberrypi.local", Address(kind="ssh", host="raspberrypi.local", user="pi")),
        ("ssh://board/", Address(kind="ssh", host="board")),
        ("ssh://board:2222", Address(kind="ssh", host="board", port=2222)),
        ("ssh://root@[fe80::1%eth0]:22", Address(kind="ssh", host="fe80::1%eth0", user="root", port=22)),
        ("ssh://192.168.1.7", Address(kind="ssh", host="192.168.1.7")),
    ],
)
def test_an_address_is_taken_apart(text, address):
    assert parse_address(text) == address


@given(HOSTS, st.none() | WORD, st.none() | st.integers(1, 65535))
def test_the_text_of_an_address_gives_it_again(host, user, port):
    address = Address(kind="ssh", host=host, user=user, port=port)
    assert parse_address(str(address)) == address


@given(st.sampled_from(["", "ssh://", "ssh://pi@", "container:", "local"]), st.text(max_size=30))
def test_any_text_is_an_address_or_refused_in_one_line(start, text):
    try:
        address = parse_address(start + text)
    except BadInput as refused:
        line = str(refused)
    else:
        line = str(address)
        assert parse_address(line) == address
        assert not address.host.startswith("-")
    assert line.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raspberrypi.local",
        "http://board",
        "ssh://",
        "ssh://@board",
        "ssh://board:0",
        "ssh://board:65536",
        "ssh://board:x",
        "ssh://-oProxyCommand=x",
        "ssh://pi@-board",
        "ssh://a b",
        "ssh://::1",
        "container:",
        "container:../x",
        "container:-x",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(BadInput, match=r"--on: .*(rpi4|raspberrypi\.local)"):
        parse_address(text)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(BadInput) as caught:
        parse_address("ssh://pi:hunter2@board")
    assert "hunter2" not in str(caught.value)
