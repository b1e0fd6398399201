"""Target and Profile: what one deployment needs and what one board is, as validated records."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from edgekit.artifact import RuntimeName
from edgekit.cost import Cost, Figure
from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.target_file import Found, Kind, load, read, resolve_inline
from edgekit.target_profile import Profile, Text, Words
from edgekit.target_record import Built, Problem, Record, build, figure, figures, json_schema, keys

__all__ = ["Budget", "Profile", "Target", "load_profile", "load_target", "problems_of", "schema"]

Pin = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.\d+$")]
GlibcVersion = Annotated[str, StringConstraints(pattern=r"^2\.\d+$")]
Pythons = Annotated[tuple[PythonVersion, ...], Field(strict=False, min_length=1)]
Runtimes = Annotated[tuple[RuntimeName, ...], Field(strict=False, min_length=1)]
Pins = Annotated[dict[Text, Pin], Field(min_length=1)]
# The package whose version is the runtime's. TensorRT comes with the board's system, from no package index.
PACKAGES: Mapping[RuntimeName, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tflite": ("ai-edge-litert", "tflite-runtime"),
    "executorch": ("executorch",),
    "tensorrt": (),
    "torch": ("torch",),
}


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
    glibc: GlibcVersion | None = figure(
        'glibc of the oldest system there, in quotes: "2.36"; which wheels `--offline` takes', default=None
    )
    requirements: dict[RuntimeName, Pins] = figures("exact versions to install there, for each runtime")
    opset: int = figure("newest opset that the pinned onnxruntime takes", ge=7)
    ir_version: int = figure("newest ONNX file format that the pinned onnxruntime takes", ge=3)
    providers: Words | None = figure(
        "execution providers of onnxruntime besides the CPU's, used where the device's build has them",
        default=None,
    )
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

    def requirements_for(self, runtime: RuntimeName) -> dict[str, str]:
        """The exact versions that a bundle of this runtime needs there, by package."""
        return dict(self.requirements[runtime])

    def version_of(self, runtime: RuntimeName) -> str:
        """The version of the runtime itself: `of the device` where it comes with the device."""
        pins = self.requirements[runtime]
        return next((pins[name] for name in PACKAGES[runtime] if name in pins), "of the device")

    def with_runtimes(self, names: Sequence[str]) -> Target:
        """The same target with these of its runtimes alone, in this order.

        Raises:
            BadInput: a name that is not among `runtimes`.
        """
        for name in names:
            if name not in self.runtimes:
                what = f"is not one of {self.name}'s: {', '.join(self.runtimes)}"
                raise BadInput(what, where=f"runtime `{name[:64]}`", todo=nearest(name, self.runtimes))
        changed = self.model_copy(update={"runtimes": tuple(names)})
        changed._sources = self._sources
        return changed

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
    if target is None:
        return None, built.problems
    # What a parent pins for runtimes that this target does not have was never looked at for it.
    pins = {name: target.requirements[name] for name in target.runtimes if name in target.requirements}
    other = {f"requirements.{name}" for name in target.requirements if name not in pins}
    sources = {key: text for key, text in target._sources.items() if key not in other}
    here = target.local and target.profile.arch == _this_arch()
    changed = target.model_copy(update={"local": here, "requirements": pins})
    changed._sources, changed.profile._sources = sources, _below("profile.", sources)
    return changed, (*built.problems, *_unusable(changed))


def _unusable(target: Target) -> Iterator[Problem]:
    """Runtimes that the target names and says too little of."""
    for name in target.runtimes:
        key, own = f"requirements.{name}", PACKAGES[name]
        if name not in target.requirements:
            yield Problem(key, "is missing", f"`runtimes` names {name}: say what to install for it")
        elif own and not set(own) & target.requirements[name].keys():
            yield Problem(key, f"does not pin {' or '.join(own)}", "the version of the runtime itself")
        if name == "tensorrt" and target.profile.tensorrt is None:
            yield Problem("profile.tensorrt", "is missing", "`runtimes` names tensorrt: say which one")


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
