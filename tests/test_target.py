import pickle
import platform
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from edgekit import target_file
from edgekit.cost import Figure
from edgekit.errors import BadInput
from edgekit.target import PACKAGES, Budget, load_profile, load_target, problems_of, schema
from edgekit.target_record import FIGURE, FIGURES, keys

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
    """The paths of the figures that a record has."""
    for key, info in keys(type(record)).items():
        value = getattr(record, key, None)
        if info.json_schema_extra == FIGURES:
            yield from (f"{prefix}{key}.{name}" for name in value)
        elif info.json_schema_extra == FIGURE and value is not None:
            yield prefix + key


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
def test_every_runtime_has_exact_pins_and_its_own_package_among_them(name):
    target = load_target(name)
    assert set(target.requirements) == set(target.runtimes)
    for runtime in target.runtimes:
        pins = target.requirements_for(runtime)
        own = set(PACKAGES[runtime])
        assert "numpy" in pins
        assert own & set(pins) or runtime == "tensorrt"
        assert target.version_of(runtime) == next((pins[name] for name in own & set(pins)), "of the device")
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", pin) for pin in pins.values())
        # microsoft/onnxruntime#23957 and #24112: dies of SIGILL on a Cortex-A72.
        assert pins.get("onnxruntime") != "1.21.0"


def test_tflite_runtime_is_only_where_numpy_is_below_2():
    pins = [load_target(name).requirements.get("tflite", {}) for name in TARGETS]
    old = [found for found in pins if "tflite-runtime" in found]
    assert old
    assert all(found["numpy"].startswith("1.") for found in old)


def test_the_tensorrt_of_a_board_comes_with_the_board_and_falls_back_to_what_is_pinned():
    target = load_target("jetson-orin-nano")
    assert target.runtimes[0] == "tensorrt"
    assert target.version_of("tensorrt") == "of the device"
    assert target.requirements_for("tensorrt") == target.requirements_for("onnxruntime")
    assert (target.profile.tensorrt.version, target.profile.tensorrt.workspace_mb) == ("10.3.0", 1024)


def test_who_has_the_bindings_of_tensorrt_on_a_jetson_nano_only_names_the_runtime(tmp_path):
    target = load_target(mine(tmp_path, "extends: jetson-nano\nruntimes: [tensorrt, onnxruntime]\n"))
    assert list(target.requirements) == ["tensorrt", "onnxruntime"]
    assert target.profile.tensorrt.opset == 13


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
    assert rules.is_valid({"extends": "rpi4", "requirements": {"torch": {"torch": "2.13.0"}}})
    assert not rules.is_valid({"extends": "rpi4", "requirements": {"torch": "2.13.0"}})
    assert not rules.is_valid({"extends": "rpi4", "requirements": {"pytorch": {"torch": "2.13.0"}}})
    assert not rules.is_valid({"extends": "rpi4", "runtimes": ["pytorch"]})


def test_an_unknown_key_is_named_with_its_path_and_the_near_miss(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nbudget: {latencyy_p90_ms: 20}\n")
    assert line == "mine.yaml: budget.latencyy_p90_ms: unknown key; did you mean `latency_p90_ms`?"


def test_an_unknown_key_of_the_profile_is_named_with_its_path(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nprofile: {coress: 2}\n")
    assert line == "mine.yaml: profile.coress: unknown key; did you mean `cores`?"


def test_a_key_near_to_nothing_gets_the_known_keys(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nzebra: 1\n")
    assert line.startswith("mine.yaml: zebra: unknown key; known keys: budget, glibc, ir_version")


def test_a_value_that_is_not_allowed_gets_the_allowed_ones(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nprofile: {arch: arm}\n")
    assert line.startswith("mine.yaml: profile.arch: should be 'aarch64', 'armv7l' or 'x86_64', not `'arm'`")


def test_an_unknown_runtime_is_refused_with_the_known_ones_and_the_near_miss(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nruntimes: [tflight]\n")
    assert line.startswith("mine.yaml: runtimes.0: should be 'onnxruntime', 'openvino', 'tflite', ")
    assert line.endswith("not `'tflight'`; did you mean `tflite`?")


def test_requirements_of_an_unknown_runtime_are_refused_with_the_near_miss(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nrequirements: {tflte: {ai-edge-litert: 2.3.0}}\n")
    assert line.startswith("mine.yaml: requirements.tflte: should be ")
    assert line.endswith("did you mean `tflite`?")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "runtimes: [onnxruntime, torch]\n",
            "requirements.torch: is missing; `runtimes` names torch: say what to install for it",
        ),
        (
            "requirements: {tflite: {numpy: 2.4.6}}\n",
            "requirements.tflite: does not pin ai-edge-litert or tflite-runtime; "
            "the version of the runtime itself",
        ),
        (
            "runtimes: [tensorrt]\nrequirements: {tensorrt: {onnxruntime: 1.31.1}}\n",
            "profile.tensorrt: is missing; `runtimes` names tensorrt: say which one",
        ),
    ],
)
def test_a_runtime_of_which_too_little_is_said_is_refused(tmp_path, text, line):
    assert refusal(tmp_path, f"extends: rpi4\n{text}") == f"mine.yaml: {line}"


def test_requirements_are_inherited_runtime_by_runtime(tmp_path):
    text = "requirements: {tflite: {value: {tflite-runtime: 2.14.0, numpy: 1.26.4}, source: tried}}\n"
    target = load_target(mine(tmp_path, f"extends: rpi4\n{text}"))
    assert target.requirements_for("tflite") == {"tflite-runtime": "2.14.0", "numpy": "1.26.4"}
    assert target.version_of("tflite") == "2.14.0"
    assert target.sources["requirements.tflite"] == "tried"
    assert target.requirements_for("openvino") == load_target("rpi4").requirements_for("openvino")


@pytest.mark.parametrize(
    "pins", ["{tflite-runtime: 2.14.0}", "{value: {tflite-runtime: 2.14.0}, source: me}"]
)
def test_the_pins_of_a_runtime_are_replaced_whole(tmp_path, pins):
    assert load_target(mine(tmp_path, f"extends: rpi4\nrequirements: {{tflite: {pins}}}\n")).requirements_for(
        "tflite"
    ) == {"tflite-runtime": "2.14.0"}


def test_pins_with_a_source_replace_bare_ones_whole(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: rpi4\nrequirements: {tflite: {tflite-runtime: 2.14.0}}\n")
    text = "requirements: {tflite: {value: {ai-edge-litert: 2.3.0}, source: me}}\n"
    target = load_target(mine(tmp_path, f"extends: ./base.yaml\n{text}"))
    assert target.requirements_for("tflite") == {"ai-edge-litert": "2.3.0"}


def test_pins_of_runtimes_that_a_target_does_not_have_are_left_behind(tmp_path):
    target = load_target(mine(tmp_path, "extends: rpi4\nruntimes: [onnxruntime]\n"))
    assert list(target.requirements) == ["onnxruntime"]
    assert "requirements.openvino" not in target.sources


def test_a_forced_runtime_is_the_only_one_left():
    target = load_target("rpi4").with_runtimes(["openvino"])
    assert target.runtimes == ("openvino",)
    assert target.sources["requirements.openvino"]
    assert load_target("rpi4").runtimes[0] == "tflite"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("torch", "runtime `torch`: is not one of rpi4's: tflite, onnxruntime, openvino"),
        (
            "onnxruntme",
            "runtime `onnxruntme`: is not one of rpi4's: tflite, onnxruntime, openvino; "
            "did you mean `onnxruntime`?",
        ),
    ],
)
def test_a_forced_runtime_that_the_target_does_not_have_is_refused_with_those_it_has(name, line):
    with pytest.raises(BadInput) as caught:
        load_target("rpi4").with_runtimes([name])
    assert str(caught.value) == line


def test_coefficients_are_inherited_runtime_by_runtime_and_their_keys_are_checked(tmp_path):
    text = Path(target_file.folders("profile")[-1], "rpi4.yaml").read_text()
    model = {**yaml.safe_load(text)["cost_model"]["tflite"]["value"], "dense": 0.5}
    own = yaml.safe_dump({"extends": "rpi4", "profile": {"cost_model": {"tflite": model}}})
    profile = load_target(mine(tmp_path, own)).profile
    assert (profile.cost_model["tflite"].dense, profile.cost_model["onnxruntime"].dense) == (0.5, 0.8)
    assert profile.sources["cost_model.tflite"].endswith("mine.yaml")
    line = refusal(tmp_path, own.replace("dense:", "dence:"))
    assert line.startswith("mine.yaml: profile.cost_model.tflite.de")
    told = [str(problem) for problem in problems_of(tmp_path / "mine.yaml")]
    assert any("profile.cost_model.tflite.dence: unknown key; did you mean `dense`?" in one for one in told)


def test_coefficients_of_an_unknown_runtime_are_one_problem_with_the_near_miss(tmp_path):
    mine(tmp_path, "extends: rpi4\nprofile: {cost_model: {tflight: {dense: 1}}}\n")
    (problem,) = problems_of(tmp_path / "mine.yaml")
    assert ": profile.cost_model.tflight: should be 'onnxruntime', " in str(problem)
    assert str(problem).endswith("did you mean `tflite`?")


def test_pins_without_a_runtime_above_them_are_refused_in_words_of_yaml(tmp_path):
    line = refusal(tmp_path, "extends: rpi4\nrequirements: {onnxruntime: 1.31.1}\n")
    assert line == "mine.yaml: requirements.onnxruntime: should be a mapping, not `'1.31.1'`"


def test_the_gain_of_a_precision_belongs_to_a_runtime():
    profile = load_profile("rpi5")
    assert profile.gain("onnxruntime", "float16") < 1 == profile.gain("tflite", "float16")
    assert profile.gain("executorch", "float16") is None
    assert profile.gain("openvino", "int8") is None
    assert profile.gain("onnxruntime", "float32") == 1


@pytest.mark.parametrize("limit", ["0", "-1", ".nan", ".inf", "'20'", "true", "[20]"])
def test_a_limit_that_is_no_number_above_0_is_refused(tmp_path, limit):
    line = refusal(tmp_path, f"extends: rpi4\nbudget: {{latency_p90_ms: {limit}}}\n")
    assert line.startswith("mine.yaml: budget.latency_p90_ms: should be ")


@pytest.mark.parametrize("pin", ["1.31", ">=1.31.1", "1.31.1; evil", "latest"])
def test_a_requirement_that_is_no_exact_version_is_refused(tmp_path, pin):
    text = f"extends: rpi4\nrequirements: {{onnxruntime: {{onnxruntime: '{pin}'}}}}\n"
    assert refusal(tmp_path, text).startswith("mine.yaml: requirements.onnxruntime.onnxruntime: ")


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
