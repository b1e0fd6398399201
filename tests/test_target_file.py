from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit import target_file, yaml_file
from edgekit.errors import BadInput
from edgekit.target import load_target, problems_of

ANYTHING = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
KEYS = st.sampled_from(
    ["extends", "profile", "budget", "threads", "value", "source", "name", "isa", "drop", "python"]
) | st.text(max_size=6)
DATA = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def refusal(name):
    with pytest.raises(BadInput) as caught:
        load_target(name)
    line = str(caught.value)
    assert "\n" not in line
    return line


@ANYTHING
@given(st.binary(max_size=200))
def test_any_bytes_are_a_target_or_one_line(tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    refusal(str(path))


@ANYTHING
@given(st.text(alphabet="{}[]:,-&*!#|>'\"%@` \n\tabextndsprofile0123.<=?~", max_size=80))
def test_any_text_of_yaml_signs_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_text(text)
    refusal(str(path))


@ANYTHING
@given(DATA)
def test_any_data_is_refused_in_lines(tmp_path, data):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(data))
    for problem in problems_of(path):
        assert "\n" not in str(problem)
        assert str(problem).startswith(str(path)) or "any.yaml" in str(problem)


@ANYTHING
@given(st.dictionaries(st.sampled_from(["budget", "profile", "threads", "note", "python", "local"]), DATA))
def test_any_change_of_a_shipped_target_loads_or_is_refused_in_lines(tmp_path, changes):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**changes, "extends": "rpi4"}))
    for problem in problems_of(path):
        assert "\n" not in str(problem)
    if not problems_of(path):
        assert load_target(str(path)).name == "mine"


def test_a_file_in_the_current_folder_comes_before_the_users_and_the_shipped_ones(tmp_path):
    assert load_target("rpi4").title.startswith("Raspberry Pi 4")
    write(tmp_path / "config/targets/rpi4.yaml", "extends: rpi4\ntitle: of the user\n")
    assert load_target("rpi4").title == "of the user"
    write(tmp_path / "targets/rpi4.yaml", "extends: rpi4\ntitle: of the project\n")
    assert load_target("rpi4").title == "of the project"
    assert load_target("rpi4").threads == 4


def test_names_lists_shipped_and_own_files(tmp_path):
    write(tmp_path / "config/targets/kiosk.yaml", "extends: rpi4\n")
    write(tmp_path / "targets/gate.yml", "extends: rpi4\n")
    names = target_file.names("target")
    assert {"kiosk", "gate", "rpi4", "x86-cpu"} <= set(names)
    assert names == sorted(names)


def test_an_unknown_name_is_refused_with_the_near_miss_and_the_known_names():
    line = refusal("rpi44")
    assert "there is no target `rpi44`" in line
    assert "did you mean `rpi4`" in line
    assert "jetson-nano" in line


def test_a_missing_file_is_refused_by_its_path():
    assert refusal("targets/none.yaml").startswith("targets/none.yaml: cannot be read: no such file")


def test_a_folder_is_refused_by_its_path(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml: cannot be read" in refusal("./folder.yaml")


def test_files_that_extend_each_other_are_refused(tmp_path):
    write(tmp_path / "targets/a.yaml", "extends: b\n")
    write(tmp_path / "targets/b.yaml", "extends: a\n")
    assert "goes round in a circle: a -> b -> a" in refusal("a")


def test_extends_takes_a_path_beside_the_file(tmp_path):
    write(tmp_path / "far/base.yaml", "extends: rpi4\nthreads: 2\n")
    mine = write(tmp_path / "far/mine.yaml", "extends: ./base.yaml\n")
    assert load_target(mine).threads == 2


def test_extends_to_nowhere_names_the_file_and_the_key(tmp_path):
    mine = write(tmp_path / "mine.yaml", "extends: rpi9\n")
    assert refusal(mine).startswith(f"{mine}: extends: there is no target `rpi9`; did you mean `rpi")


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    mine = write(tmp_path / "mine.yaml", "extends: rpi4\nthreads: 1\nthreads: 2\n")
    assert refusal(mine).startswith(f"{mine}:3: the key `threads` stands twice")


def test_a_huge_file_is_refused_unread(tmp_path):
    mine = write(tmp_path / "mine.yaml", "x" * (yaml_file.MAX_BYTES + 1))
    assert "is larger than" in refusal(mine)


def test_a_name_that_differs_from_the_file_is_refused(tmp_path):
    mine = write(tmp_path / "mine.yaml", "extends: rpi4\nname: other\n")
    assert "`name` differs from the name of the file" in refusal(mine)


def test_a_name_cannot_leave_the_folders():
    assert "there is no target" in refusal("..")
    assert "cannot be read" in refusal("../../etc/passwd")


def test_the_shipped_folder_is_found_from_anywhere():
    shipped = target_file.folders("target")[-1]
    assert (shipped / "rpi4.yaml").is_file()
    assert shipped != Path("targets")
