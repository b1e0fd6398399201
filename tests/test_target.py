import pickle
import platform
import re

import jsonschema
import pytest
import yaml

from edgekit import target_file
from edgekit.cost import Figure
from edgekit.errors import BadInput
from edgekit.target import Budget, load_profile, load_target, problems_of, schema
from edgekit.target_record import FIGURE, keys

TARGETS = [
    "android-low",
    "android-mid",
    "jetson-nano",
    "jetson-orin-nano",
    "rpi-zero2w",
    "rpi3",
    "rpi4",
    "rpi5",
    "x86-cpu",
]


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def mine(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def refusal(tmp_path, text):
    with pytest.raises(BadInput) as caught:
        load_target(mine(tmp_path, text))
    return str(caught.value).removeprefix(f"{tmp_path}/")


def figures(record, prefix=""):
    return [prefix + key for key, info in keys(type(record)).items() if info.json_schema_extra == FIGURE]


def test_a_bare_figure_has_the_file_that_holds_it_as_its_source_through_every_extends(tmp_path):
    for folder, name, text in [
        ("profiles", "board", "extends: rpi4\ncores: 2\nclock_mhz: 900\n"),
        ("targets", "base", "extends: rpi4\nprofile: board\nbudget: {size_mb: 3, latency_p90_ms: 50}\n"),
        ("targets", "mine", "extends: base\nbudget: {size_mb: 2}\nprofile: {clock_mhz: 800}\n"),
    ]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    target = load_target("mine")
    assert target.sources["budget.size_mb"] == "targets/mine.yaml"
    assert target.sources["budget.latency_p90_ms"] == "targets/base.yaml"
    assert target.profile.sources["clock_mhz"] == "targets/mine.yaml"
    assert target.profile.sources["cores"] == "profiles/board.yaml"
    assert (target.profile.cores, target.profile.clock_mhz) == (2, 800)


def test_the_boards_that_are_promised_are_shipped():
    shipped = {kind: target_file.folders(kind)[-1].glob("*.yaml") for kind in ("target", "profile")}
    assert sorted(path.stem for path in shipped["target"]) == TARGETS
    assert sorted(path.stem for path in shipped["profile"]) == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_shipped_figure_has_a_source_of_its_own(name):
    target = load_target(name)
    limits = [f"budget.{key}" for key, _ in target.budget.known()]
    for key in [*figures(target), *figures(target.profile, "profile."), *limits]:
        source = target.sources[key]
        assert len(source) > 15, key
        assert not source.endswith((".yaml", ".yml")), key


@pytest.mark.parametrize("name", TARGETS)
def test_every_pin_is_exact_and_holds_the_runtime(name):
    target = load_target(name)
    assert {"numpy", *target.runtimes} == set(target.requirements)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", pin) for pin in target.requirements.values())
    # microsoft/onnxruntime#23957 and #24112: dies of SIGILL on a Cortex-A72.
    assert target.requirements["onnxruntime"] != "1.21.0"


@pytest.mark.parametrize("name", TARGETS)
def test_every_shipped_target_limits_latency_memory_size_and_drop(name):
    named = dict(load_target(name).budget.known())
    assert set(named) == {"latency_p90_ms", "peak_memory_mb", "size_mb", "drop"}
    assert all(figure.how == "limit" for figure in named.values())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_asks_no_more_threads_than_its_board_has_cores(name):
    target = load_target(name)
    assert target.threads <= target.profile.cores
    assert target.profile.name == name


@pytest.mark.parametrize("kind", ["target", "profile"])
def test_the_shipped_files_follow_the_json_schema(kind):
    rules = schema(kind)
    jsonschema.Draft202012Validator.check_schema(rules)
    for path in target_file.folders(kind)[-1].glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), rules)


def test_the_json_schema_refuses_what_the_loader_refuses():
    rules = jsonschema.Draft202012Validator(schema("target"))
    assert rules.is_valid({"extends": "rpi4", "budget": {"size_mb": 2}})
    assert not rules.is_valid({"extends": "rpi4", "budget": {"size_mb": 0}})
    assert not rules.is_valid({"extends": "rpi4", "budget": {"sizemb": 2}})
    assert not rules.is_valid({"extends": "rpi4", "threads": {"value": 2}})
    assert not rules.is_valid({"threads": 2})


def test_an_unknown_key_is_named_with_its_path_and_the_near_miss(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nbudget: {latencyy_p90_ms: 20}\n")
    assert line == "mine.yaml: budget.latencyy_p90_ms: unknown key; did you mean `latency_p90_ms`?"


def test_an_unknown_key_of_the_profile_is_named_with_its_path(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nprofile: {coress: 2}\n")
    assert line == "mine.yaml: profile.coress: unknown key; did you mean `cores`?"


def test_a_key_near_to_nothing_gets_the_known_keys(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nzebra: 1\n")
    assert line.startswith("mine.yaml: zebra: unknown key; known keys: budget, ir_version, local")


def test_a_value_that_is_not_allowed_gets_the_allowed_ones(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nprofile: {arch: arm}\n")
    assert line == "mine.yaml: profile.arch: should be 'aarch64', 'armv7l' or 'x86_64', not `'arm'`"


def test_an_unknown_runtime_is_refused(tmp_path):
    assert "runtimes.0: should be 'onnxruntime'" in refusal(tmp_path, "extends: rpi4\nruntimes: [tflite]\n")


@pytest.mark.parametrize("limit", ["0", "-1", ".nan", ".inf", "'20'", "true", "[20]"])
def test_a_limit_that_is_no_number_above_0_is_refused(tmp_path, limit):
    line = refusal(tmp_path, f"extends: rpi4\nbudget: {{latency_p90_ms: {limit}}}\n")
    assert line.startswith("mine.yaml: budget.latency_p90_ms: should be ")


@pytest.mark.parametrize("pin", ["1.31", ">=1.31.1", "1.31.1; evil", "latest"])
def test_a_requirement_that_is_no_exact_version_is_refused(tmp_path, pin):
    assert refusal(tmp_path, f"extends: rpi4\nrequirements: {{onnxruntime: '{pin}'}}\n").startswith(
        "mine.yaml: requirements.onnxruntime: "
    )


def test_a_python_version_without_quotes_is_explained(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\npython: [3.10]\n")
    assert line == 'mine.yaml: python.0: must be text, not `3.1`; put it in quotes: "3.11"'


def test_a_missing_key_is_named_with_its_meaning(tmp_path):
    line = refusal(tmp_path, "title: x\nprofile: rpi4\n")
    assert line.startswith(
        "mine.yaml: runtimes: is missing; what may execute the model there, best first; 5 more"
    )


def test_a_figure_without_its_value_is_refused(tmp_path):
    assert refusal(tmp_path, "extends: rpi4\nthreads: {source: me}\n").startswith(
        "mine.yaml: threads.value: is missing; a figure has `value` and `source`"
    )


def test_a_figure_with_an_empty_source_is_refused(tmp_path):
    assert refusal(tmp_path, "extends: rpi4\nthreads: {value: 2, source: ''}\n").startswith(
        "mine.yaml: threads.source: must be text"
    )


def test_a_bare_figure_has_the_file_as_its_source(tmp_path):
    path = mine(tmp_path, "extends: rpi4\nbudget: {latency_p99_ms: 80}\n")
    budget = load_target(path).budget
    assert budget.latency_p99_ms == Figure(value=80, how="limit", source=path)
    assert budget.latency_p90_ms.source.startswith("the 100 ms inside")


def test_every_problem_of_a_file_is_told_at_once(tmp_path):
    path = mine(tmp_path, "extends: rpi4\nthreads: 0\nzebra: 1\nprofile: {cores: none}\n")
    told = [str(problem) for problem in problems_of(tmp_path / "mine.yaml")]
    assert len(told) == 3
    assert all(line.startswith(f"{path}: ") for line in told)


def test_a_profile_file_is_recognised_and_checked(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text("extends: rpi4\ntitle: my board\nclock_mhz: 2000\ncores: 8\n")
    assert problems_of(path) == []
    path.write_text("extends: rpi4\nclock_mhzz: 2000\ncores: 8\n")
    assert [str(problem) for problem in problems_of(path)] == [
        f"{path}: clock_mhzz: unknown key; did you mean `clock_mhz`?"
    ]


def test_a_target_may_change_parts_of_its_profile(tmp_path):
    target = load_target(mine(tmp_path, "extends: rpi4\nprofile: {clock_mhz: 1800, title: overclocked}\n"))
    assert (target.profile.clock_mhz, target.profile.cores) == (1800, 4)
    assert target.profile.sources["clock_mhz"].endswith("mine.yaml")
    assert target.profile.sources["cores"] == load_profile("rpi4").sources["cores"]


def test_with_limits_replaces_and_adds_and_says_where_from():
    target = load_target("rpi4").with_limits({"latency_p90_ms": 20.0, "latency_p99_ms": 40.0}, "--latency")
    assert target.budget.latency_p90_ms == Figure(value=20, how="limit", source="--latency")
    assert target.budget.latency_p99_ms == Figure(value=40, how="limit", source="--latency")
    assert target.budget.size_mb.value == 10
    assert load_target("rpi4").budget.latency_p90_ms.value == 66


@pytest.mark.parametrize(
    "limits", [{"size_mb": 0.0}, {"size_mb": -1.0}, {"drop": float("nan")}, {"sice_mb": 1.0}]
)
def test_with_limits_refuses_what_a_file_would_be_refused_for(limits):
    with pytest.raises(BadInput, match=r"^--size: (size_mb|drop|sice_mb): "):
        load_target("rpi4").with_limits(limits, "--size")


def test_records_do_not_change_and_survive_a_pickle():
    target = load_target("rpi4")
    with pytest.raises(Exception, match="frozen"):
        target.threads = 1
    again = pickle.loads(pickle.dumps(target))
    assert (again, dict(again.sources)) == (target, dict(target.sources))


def test_only_a_machine_of_the_same_architecture_counts_as_the_device():
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    assert load_target("x86-cpu").local == (machine == "x86_64")
    assert not load_target("rpi4").local


def test_budget_and_cost_name_the_same_limits():
    assert list(Budget.model_fields) == [
        "latency_p50_ms",
        "latency_p90_ms",
        "latency_p99_ms",
        "peak_memory_mb",
        "size_mb",
        "drop",
        "fidelity_drop",
        "class_drop",
    ]
    assert {name for name, _ in load_target("rpi4").budget.known()} == {
        "latency_p90_ms",
        "peak_memory_mb",
        "size_mb",
        "drop",
    }


def test_for_a_task_without_labels_the_limit_of_fidelity_takes_the_place_of_that_of_accuracy():
    target = load_target("rpi4")
    assert target.for_fidelity().budget.drop.value == target.limits.fidelity_drop
    assert target.for_fidelity().budget.drop.source == target.sources["budget.fidelity_drop"]
    strict = target.for_fidelity().with_limits({"drop": 0.001}, "the command line")
    assert strict.budget.drop.value == 0.001


def test_a_target_that_says_nothing_of_fidelity_keeps_its_limit_for_it():
    target = load_target("rpi4").with_limits({}, "a test")
    bare = target.model_copy(update={"limits": target.limits.model_copy(update={"fidelity_drop": None})})
    assert bare.for_fidelity() is bare
