"""The manifest of a bundle, and how it is read when the bundle comes from elsewhere."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from edgekit.cost import Cost, cost_from_dict
from edgekit.errors import BadInput, clean, first_line

if TYPE_CHECKING:
    from edgekit.target import Target

SCHEMA = "edgekit.bundle/1"
FILE = "manifest.json"
MOST_BYTES = 4_000_000
LARGEST_INTEGER = 10**15
LONGEST_BUNDLE_NAME = 100
LONGEST_NAME = 255


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds control characters")
    return text


def file_name(text: str) -> str:
    """A path that stays inside the bundle on every system."""
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r'[\\:*?"<>|]', text):
        raise ValueError("is not a plain path inside the bundle")
    if any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise ValueError("is longer than systems allow")
    return text


def _bundle_name(text: str) -> str:
    if text in (".", "..") or re.search(r"[\\/]", text):
        raise ValueError("cannot be the name of a folder")
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(_printable)]
Word = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_printable)]
FileName = Annotated[Word, AfterValidator(file_name)]
BundleName = Annotated[Word, Field(max_length=LONGEST_BUNDLE_NAME), AfterValidator(_bundle_name)]
Size = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Axis = Size | Word
Json = dict[str, JsonValue]
_COST = TypeAdapter(Cost)
CostDict = Annotated[Json, Field(max_length=20)]


class Record(BaseModel):
    """Frozen, and nothing unknown is let through."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Tensor(Record):
    """One input or output.

    Attributes:
        shape: a word is the name of a dynamic axis.
        dtype: numpy's name, "float32".
        range: lowest and highest value seen, of an input on real data, of an output on the golden samples;
            None where no value is finite.
    """

    name: Word
    shape: Annotated[list[Axis], Field(max_length=32)]
    dtype: Word
    range: tuple[float, float] | None = None


class Runtime(Record):
    """What executes the artifact.

    Attributes:
        options: how its device half is asked to open the artifact.
    """

    name: Word
    version: Word
    threads: Annotated[int, Field(ge=1, le=1024)]
    options: Annotated[Json, Field(max_length=100)] = {}


class DeviceIdentity(Record):
    """The device that the bundle was built for.

    Attributes:
        board: how the name begins that the system gives the board; empty where it gives none.
        python: versions that the requirements exist for.
        local: whether the build machine counted as such a device.
        clock_mhz: highest clock of its cores; 0 where the bundle does not say.
        memory_mb: of the board, millions of bytes; 0 where the bundle does not say.
    """

    target: Word
    profile: Word
    soc: Text = ""
    core: Text = ""
    board: Text = ""
    arch: Word
    cores: Annotated[int, Field(ge=1, le=100_000)]
    python: Annotated[list[Word], Field(max_length=100)] = []
    local: bool = False
    clock_mhz: Annotated[float, Field(ge=0)] = 0
    memory_mb: Annotated[float, Field(ge=0)] = 0


def identity_of(target: Target) -> DeviceIdentity:
    """The device that a target means."""
    profile = target.profile
    return DeviceIdentity(
        target=target.name,
        profile=profile.name,
        soc=profile.soc,
        core=profile.core,
        board=profile.board,
        arch=profile.arch,
        cores=profile.cores,
        python=list(target.python),
        local=target.local,
        clock_mhz=profile.clock_mhz,
        memory_mb=profile.memory_mb,
    )


class Golden(Record):
    """The samples that every device re-checks; `min_snr_db` must be reached by each output of each."""

    file: FileName
    samples: Annotated[int, Field(ge=1, le=10_000)]
    min_snr_db: float


class File(Record):
    """What a file of the bundle must be."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Size


def _check_cost(field: str, data: Json) -> None:
    """Refuse what `cost_from_dict` would not read back as numbers with their origin."""
    try:
        cost_from_dict(cast(dict[str, dict[str, Any]], data))
        _COST.validate_json(json.dumps(data), strict=True)
    except (TypeError, AttributeError, ValidationError) as error:
        raise ValueError(f"`{field}` is not a cost") from error


def _refuse_unprintable(field: str, data: JsonValue | Mapping[str, JsonValue]) -> None:
    """Text of a bundle is shown in terminals: no control sequence may reach them."""
    if isinstance(data, str) and not data.isprintable():
        raise ValueError(f"`{field}` holds control characters")
    if isinstance(data, Mapping):
        for key, value in data.items():
            _refuse_unprintable(field, key)
            _refuse_unprintable(field, value)
    elif isinstance(data, list):
        for value in data:
            _refuse_unprintable(field, value)


class Manifest(Record):
    """What a bundle says about itself: everything but its own digest.

    Attributes:
        edgekit: the version that made it.
        artifact: the model's main file; `beside`: its others.
        recipe: replayable by `--recipe`.
        cost: on the target; `here`: what was measured on the build machine; `budget`: the limits. All three
            as `edgekit.cost.Cost.as_dict` writes them.
        quality: `edgekit.result.Quality` as plain data.
        versions: of the libraries that made the artifact.
        requirements: the packages to install on the device, exact versions.
        files: every other file of the bundle.
    """

    schema_: Literal["edgekit.bundle/1"] = Field(alias="schema")
    name: BundleName
    edgekit: Word
    runtime: Runtime
    device: DeviceIdentity
    artifact: FileName
    beside: Annotated[list[FileName], Field(max_length=100)] = []
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1000)]
    outputs: Annotated[list[Tensor], Field(min_length=1, max_length=1000)]
    recipe: Json
    cost: CostDict
    here: CostDict
    budget: CostDict
    quality: Json | None
    versions: dict[Word, Word]
    requirements: dict[Word, Word]
    golden: Golden
    files: Annotated[dict[FileName, File], Field(max_length=1000)]

    @model_validator(mode="after")
    def _hangs_together(self) -> Manifest:
        for name in (self.artifact, *self.beside, self.golden.file):
            if name not in self.files:
                raise ValueError(f"`{name}` is not among the files")
        if FILE in self.files:
            raise ValueError(f"`{FILE}` cannot hold its own digest")
        for field in ("cost", "here", "budget"):
            _check_cost(field, getattr(self, field))
        for field in ("recipe", "cost", "here", "budget", "quality"):
            _refuse_unprintable(field, getattr(self, field))
        _refuse_unprintable("runtime.options", self.runtime.options)
        return self


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON with sorted keys and a newline at the end: the same record, the same bytes."""
    data = manifest.model_dump(mode="json", by_alias=True)
    return (json.dumps(data, sort_keys=True, indent=2, allow_nan=False) + "\n").encode("ascii")


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The manifest in `content`, from whoever wrote it.

    Args:
        content: JSON text.
        where: the file's name for the message.

    Raises:
        BadInput: anything is wrong with it.
    """
    if len(content) > MOST_BYTES:
        raise BadInput(f"{len(content)} bytes, a manifest has at most {MOST_BYTES}", where=where)
    try:
        data = json.loads(content, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        what = f"not valid JSON ({first_line(error)})"
        raise BadInput(what, where=where, todo="copy the bundle again") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = repr(data.get("schema"))[:60] if isinstance(data, dict) else type(data).__name__
        todo = "build it again with this edgekit, or use the edgekit that made it"
        raise BadInput(f"schema is {found}, must be {SCHEMA!r}", where=where, todo=todo)
    try:
        return Manifest.model_validate_json(content)
    except (ValidationError, RecursionError) as error:
        raise BadInput(first_complaint(error), where=where, todo="copy or build the bundle again") from error


def first_complaint(error: ValidationError | RecursionError) -> str:
    """What is wrong first, with the key's path, as one printable piece of a line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    shown = f"`{path}`: {message}" if path else message
    return clean(shown, 300)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle directory, which may be anyone's: nothing in it is executed or followed.

    Raises:
        BadInput: there is no such directory or manifest, or anything is wrong with it.
    """
    path, todo = bundle / FILE, "give the folder that `edgekit build` wrote"
    if not bundle.is_dir():
        what = "is a file, not a bundle directory" if bundle.exists() else "no such bundle"
        raise BadInput(what, where=str(bundle), todo=todo)
    if not path.exists() and not path.is_symlink():
        raise BadInput(f"not a bundle: it has no {FILE}", where=str(bundle), todo=todo)
    return parse_manifest(_read_small(path), str(path))


def _read_small(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BadInput("not a plain file", where=str(path), todo="copy the bundle again")
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error


def confine(bundle: Path, name: str) -> Path:
    """The path of the bundle's file `name`, which is a plain file inside the bundle, reached by no link.

    Raises:
        BadInput: it is missing, a link or something else than a file, or one of its folders is a link.
    """
    path = bundle
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            raise BadInput(f"`{name}` is reached by a link", where=str(bundle), todo="copy the bundle again")
    if not path.is_file():
        raise BadInput(f"`{name}` is missing or no file", where=str(bundle), todo="copy the bundle again")
    return path
