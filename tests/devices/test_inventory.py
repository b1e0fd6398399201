import pytest

from edgekit.devices.inventory import find_places, read_inventory, usual_inventory
from edgekit.errors import BadInput

GOOD = """
devices:
  kitchen: ssh://pi@kitchen.local
  attic: {address: "ssh://pi@10.0.0.7:2222", offline: true}
"""


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "devices.yaml"
    path.write_text(GOOD)
    return path


def test_the_devices_of_an_inventory_have_their_addresses_and_settings(inventory):
    places = read_inventory(inventory)
    assert [(p.name, str(p.address), p.offline) for p in places.values()] == [
        ("kitchen", "ssh://pi@kitchen.local", False),
        ("attic", "ssh://pi@10.0.0.7:2222", True),
    ]


def test_names_addresses_and_all_can_be_asked_for_and_each_device_comes_once(inventory):
    asked = ["local", "attic", "all", "container:rpi4", "local"]
    assert [p.name for p in find_places(asked, inventory)] == ["local", "attic", "kitchen", "container:rpi4"]


def test_the_usual_inventory_is_in_the_users_configuration(inventory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(inventory.parent))
    assert usual_inventory() == inventory
    assert find_places(["kitchen"], None)[0].address.host == "kitchen.local"


def test_without_an_inventory_addresses_work_and_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    assert find_places(["ssh://host"], None)[0].name == "ssh://host"
    with pytest.raises(BadInput, match="no device `kitchen` in the inventory"):
        find_places(["kitchen"], None)
    with pytest.raises(BadInput, match="there is no inventory"):
        find_places(["all"], None)


@pytest.mark.parametrize(
    ("asked", "words"),
    [("kitchn", "did you mean `kitchen`"), ("pi@host", "is no device"), ("ssh://", "is no address")],
)
def test_what_is_no_device_is_refused_with_what_to_write(inventory, asked, words):
    with pytest.raises(BadInput, match=words):
        find_places([asked], inventory)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device: {a: local}", "unknown key `device`; did you mean `devices`"),
        ("devices: {}", "names no devices"),
        ("devices: [a]", "names no devices"),
        ("devices: {all: local}", "cannot be the name of a device"),
        ("devices: {a: 3}", "says not where the device is"),
        ("devices: {a: {address: local, ofline: true}}", "a: unknown key `ofline`; did you mean `offline`"),
        ("devices: {a: {address: local, offline: 1}}", "devices.a.offline: must be true or false"),
        ("devices: {a: host}", "devices.a: `host` is no device"),
        ("devices: {a: local, a: local}", "stands twice"),
    ],
)
def test_a_wrong_inventory_is_refused_in_one_line_that_names_the_key(tmp_path, text, words):
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_inventory(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
