"""Target and Profile: what one deployment needs and what one board is, as validated records."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from edgekit.cost import Cost, Figure
from edgekit.errors import BadInput
from edgekit.target_file import Found, Kind, load, read, resolve_inline
from edgekit.target_record import Built, Problem, Record, build, figure, json_schema, keys

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Pin = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.\d+$")]
Share = Annotated[float, Field(gt=0, le=1)]
# YAML has lists; the records hold tuples, so that nothing changes them.
Words = Annotated[tuple[Text, ...], Field(strict=False)]
Pythons = Annotated[tuple[PythonVersion, ...], Field(strict=False, min_length=1)]
Runtimes = Annotated[tuple[Literal["onnxruntime"], ...], Field(strict=False, min_length=1)]


class CostModel(Record):
    """Coefficients of the latency prediction, fitted together; `plan.cost_model` says how they act."""

    dense: float = Field(gt=0, description="share of the peak rate that convolutions beyond 1x1 reach")
    pointwise: float = Field(gt=0, description="the same for 1x1 convolutions and matrix products")
    depthwise: float = Field(gt=0, description="the same for depthwise and grouped convolutions")
    memory_gbs: float = Field(gt=0, description="bytes moved by a layer in a nanosecond, caches included")
    overhead_us: float = Field(ge=0, description="microseconds that a layer costs beside its work")
    serial_share: float = Field(ge=0, le=1, description="share of the work that more threads do not divide")
    low: Share = Field(description="low end of the 90 % interval as a factor on the prediction")
    high: float = Field(ge=1, description="high end of the 90 % interval as a factor on the prediction")
    p90: float = Field(ge=1, description="90th percentile of latency over the median")
    p99: float = Field(ge=1, description="99th percentile of latency over the median")


class Profile(Record):
    """Numbers of one board: what it is, and what a model may use on it."""

    name: Text = Field(description="what `profile:` calls it: the file's name")
    title: Text = Field(description="the board in words")
    soc: Text = Field(description="system on chip")
    core: Text = Field(description="the cores that run the model, by their bare name: Cortex-A72")
    board: str = Field(default="", description="how the name begins that the system gives the board, if any")
    arch: Literal["aarch64", "armv7l", "x86_64"] = Field(description="what `uname -m` says there")
    cores: int = figure("cores that a model may use", gt=0, le=1024)
    clock_mhz: float = figure("highest clock of these cores", gt=0)
    memory_mb: float = figure("memory of the board, millions of bytes", gt=0)
    bandwidth_gbs: float = figure("peak of the memory bus, GB/s", gt=0)
    isa: Words = figure("instruction sets that matter, as Linux lists them: asimddp, i8mm, avx2, avx512_vnni")
    macs_per_cycle: float = figure("float32 multiply-accumulates that a core starts in a cycle", gt=0)
    int8_gain: float = figure("rate of int8 kernels over float32 ones", gt=0)
    fp16_gain: float = figure("the same for float16; 1 where onnxruntime gains nothing", gt=0)
    simd_width: int = figure("channels are kept in multiples of this many", gt=0, le=1024)
    reduce_range: bool = figure("int8 weights must stay within 7 bits: x86 without VNNI saturates")
    cost_model: CostModel = figure("coefficients of the latency prediction")


class Budget(Record):
    """The limits; see `edgekit.cost.Cost`."""

    latency_p50_ms: float | None = figure("median latency", gt=0, default=None)
    latency_p90_ms: float | None = figure("90th percentile of latency", gt=0, default=None)
    latency_p99_ms: float | None = figure("99th percentile of latency", gt=0, default=None)
    peak_memory_mb: float | None = figure("peak resident memory, 10^6 bytes", gt=0, default=None)
    size_mb: float | None = figure("artifact on disk, 10^6 bytes", gt=0, default=None)
    drop: float | None = figure("accuracy lost: 0.01 is one point in a hundred", gt=0, default=None)
    fidelity_drop: float | None = figure(
        "takes the place of `drop` where a task has no evaluate()", gt=0, default=None
    )
    class_drop: float | None = figure("the same for the class that lost most", gt=0, default=None)


class Target(Record):
    """Wiring of one deployment."""

    name: Text = Field(description="what `--target` calls it: the file's name")
    title: Text = Field(description="the deployment in words")
    profile: Profile = Field(description="name of a profile, or a mapping that extends one")
    runtimes: Runtimes = Field(description="what may execute the model there, best first")
    threads: int = figure("threads of the runtime", gt=0, le=1024)
    python: Pythons = figure('Python versions on the device, in quotes: ["3.11"]')
    requirements: dict[Text, Pin] = figure("exact versions to install there", min_length=1)
    opset: int = figure("newest opset that the pinned runtime takes", ge=7)
    ir_version: int = figure("newest ONNX file format that the pinned runtime takes", ge=3)
    local: bool = Field(default=False, description="a machine of the same architecture counts as the device")
    note: Text | None = Field(default=None, description="what the user must know to run a bundle there")
    limits: Budget = Field(default_factory=Budget, alias="budget", description="what must hold there")

    @property
    def budget(self) -> Cost:
        """The limits that are named."""
        named = self.limits.model_dump(exclude_none=True, exclude={"fidelity_drop"})
        return Cost(
            **{
                key: Figure(value=value, how="limit", source=self.sources[f"budget.{key}"])
                for key, value in named.items()
            }
        )

    def for_fidelity(self) -> Target:
        """The same target for a task without labels: the limit of `drop` becomes that of `fidelity_drop`.

        Fidelity counts every answer that changed, also those that were wrong before: it falls faster than
        accuracy.
        """
        limit = self.limits.fidelity_drop
        if limit is None:
            return self
        return self.with_limits({"drop": limit}, self.sources["budget.fidelity_drop"])

    def with_limits(self, limits: Mapping[str, float], source: str) -> Target:
        """The same target with these limits replaced or added.

        Args:
            limits: by the names of `Budget`.
            source: where they come from: the option, in words.

        Raises:
            BadInput: an unknown name, or a limit that is not more than 0.
        """
        merged = {**self.limits.model_dump(exclude_none=True), **limits}
        built = build(Budget, merged, source=source)
        if built.problems:
            raise _refusal(source, built.problems, more="")
        changed = self.model_copy(update={"limits": built.record})
        changed._sources = {**self.sources, **{f"budget.{key}": source for key in limits}}
        return changed


def load_target(name: str) -> Target:
    """The target that `--target NAME` means: a name to look up, or the path of a YAML file.

    Raises:
        BadInput: no such target, or its first problem; the line names the key and the near miss.
    """
    found = load("target", name)
    target, problems = _target(found)
    if target is None or problems:
        raise _refusal(found.shown, problems, more=f"edgekit targets validate {found.shown}")
    return target


def load_profile(name: str) -> Profile:
    """The profile of that name or path.

    Raises:
        BadInput: as for `load_target`.
    """
    found = load("profile", name)
    built = _profile(found)
    if built.problems:
        raise _refusal(found.shown, built.problems, more=f"edgekit targets validate {found.shown}")
    record: Profile = built.record
    return record


def problems_of(path: Path) -> list[BadInput]:
    """Everything that is wrong with a target or profile file, one line each."""
    try:
        kind = kind_of(read(path), path)
        found = load(kind, str(path.parent / path.name) if path.parent.name else f"./{path.name}")
        problems = _target(found)[1] if kind == "target" else _profile(found).problems
    except BadInput as error:
        return [error]
    return [_line(found.shown, problem) for problem in problems]


def kind_of(data: Mapping[str, Any], path: Path) -> Kind:
    """Whether a file with these keys is meant as a target or as a profile; the folder decides a tie."""
    as_target, as_profile = (len(keys(model).keys() & data.keys()) for model in (Target, Profile))
    if as_target != as_profile:
        return "target" if as_target > as_profile else "profile"
    return "profile" if path.resolve().parent.name == "profiles" else "target"


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON schema of a target or profile file."""
    if kind == "profile":
        return json_schema(Profile, kind)
    rules = json_schema(Target, kind)
    board = rules["$defs"]["Profile"]
    board["properties"]["extends"] = {"type": "string", "description": "name or path of a profile"}
    del board["required"]  # inside a target it is a name, or what differs from the profile that it extends
    rules["properties"]["profile"]["anyOf"] = [{"type": "string"}, {"$ref": "#/$defs/Profile"}]
    del rules["properties"]["profile"]["$ref"]
    return rules


def _profile(found: Found) -> Built:
    return build(Profile, {"name": found.name, **found.data}, source=found.shown, origins=found.origins)


def _target(found: Found) -> tuple[Target | None, tuple[Problem, ...]]:
    data, origins = {"name": found.name, **found.data}, found.origins
    if isinstance(data.get("profile"), dict):
        inline = data["profile"]
        name = str(inline.get("extends", found.name))
        merged, inherited = resolve_inline(
            "profile", inline, where=f"{found.shown}: profile.extends", folder=found.path.parent
        )
        data["profile"] = {"name": Path(name).stem, **merged}
        origins = {**{f"profile.{key}": path for key, path in inherited.items()}, **origins}
    built = build(Target, data, source=found.shown, origins=origins)
    target: Target | None = built.record
    if target is not None:
        here = target.local and target.profile.arch == _this_arch()
        sources = target._sources
        target = target.model_copy(update={"local": here})
        target._sources, target.profile._sources = sources, _below("profile.", sources)
    return target, built.problems


def _below(prefix: str, sources: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix): text for key, text in sources.items() if key.startswith(prefix)}


def _this_arch() -> str:
    """This machine in the words of `Profile.arch`."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _refusal(where: str, problems: Sequence[Problem], *, more: str) -> BadInput:
    """The first problem, and how to see the others."""
    first = problems[0]
    rest = f"{len(problems) - 1} more: `{more}`" if more and len(problems) > 1 else None
    return _line(where, replace(first, todo="; ".join(filter(None, (first.todo, rest))) or None))


def _line(where: str, problem: Problem) -> BadInput:
    return BadInput(problem.what, where=f"{where}: {problem.key}", todo=problem.todo)
