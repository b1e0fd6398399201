import pytest
from sshd import free_port

from edgekit.bench_on import Wanted, bench_all
from edgekit.devices.inventory import find_places
from edgekit.devices.visit import Manner
from edgekit.errors import BadInput

QUICK = Wanted(mode="quick")


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))


def places(*addresses):
    return find_places(addresses, None)


def closed():
    return f"ssh://root@127.0.0.1:{free_port()}"


def test_each_gives_a_record_or_an_error_in_the_order_in_which_they_were_asked(bundle):
    asked, said = [closed(), "local", closed()], []
    first, here, last = bench_all(bundle, places(*asked), QUICK, Manner(), detail=said.append)
    for found, address in ((first, asked[0]), (last, asked[2])):
        assert found.record is None
        assert (found.place.name, found.error.exit_status) == (address, 4)
        assert "refuses connections" in str(found.error)
    assert here.error is None
    assert here.record["schema"] == "edgekit.bench/1"
    assert here.record["device"] == {"name": "local", "address": "local"}
    assert f"{asked[0]}: connecting" in said
    assert any(line.startswith("local: measuring") for line in said)


def test_one_device_alone_needs_no_name_before_its_progress(bundle):
    said = []
    bench_all(bundle, places(closed()), QUICK, Manner(), detail=said.append)
    assert said == ["connecting"]


def test_a_mistake_of_edgekits_own_stops_one_device_only(bundle):
    def ask_for_trouble(line):
        if "local" not in line:
            raise RuntimeError("a mistake")

    asked = places(closed(), "local")
    broken, here = bench_all(bundle, asked, QUICK, Manner(), detail=ask_for_trouble)
    assert str(broken.error).endswith(": RuntimeError: a mistake")
    assert broken.error.exit_status == 1
    assert here.error is None


def test_more_threads_than_the_device_has_are_its_refusal(bundle):
    (found,) = bench_all(bundle, places("local"), Wanted(threads=1000), Manner(), detail=print)
    assert "1000 threads asked for" in str(found.error)


def test_what_is_no_bundle_is_refused_before_any_device_is_asked(tmp_path):
    said = []
    with pytest.raises(BadInput):
        bench_all(tmp_path, places(closed()), QUICK, Manner(), detail=said.append)
    assert said == []
