"""The one file that says what a saved index is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmrec_kernels.index import disk
from llmrec_kernels.index.errors import IndexFormatError
from llmrec_kernels.index.layout import FORMAT, VERSION, Kind

NAME = "manifest.json"
LARGEST = 1 << 26  # bytes: more than a manifest of 10^11 items has
MOST_ROWS = 2**31 - 1  # of a segment: positions are kept in 32 bits

Token = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SegmentRecord(_Strict):
    """A segment's file, `segment-<token>.safetensors`."""

    token: Token
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)]
    biased: bool
    scaled: bool
    checksum: Token  # of its table of checksums
    removed: Count  # rows of it that are no more

    @property
    def file(self) -> str:
        """Its name."""
        return f"segment-{self.token}.safetensors"


class RemovedRecord(_Strict):
    """The file of what was removed, `removed-<token>.safetensors`."""

    token: Token
    checksum: Token  # of the file

    @property
    def file(self) -> str:
        """Its name."""
        return f"removed-{self.token}.safetensors"


class Manifest(_Strict):
    """What a saved index is made of."""

    format: Literal["llmrec_kernels.ItemIndex"] = FORMAT
    version: Literal[1] = VERSION
    dim: Annotated[int, Field(ge=1, le=2**31 - 1)]
    metric: Literal["cosine", "dot"]
    storage: Literal["float32", "float16", "bfloat16", "int8", "int4"]
    changes: Count
    journal: Token | None  # the file is there before the manifest names it
    segments: list[SegmentRecord]
    removed: RemovedRecord | None

    @staticmethod
    def of(
        kind: Kind,
        metric: str,
        changes: int,
        journal: str | None,
        *,
        segments: list[SegmentRecord],
        removed: RemovedRecord | None,
    ) -> Manifest:
        """One that is checked as if it were read."""
        return Manifest.model_validate(
            {
                **kind._asdict(),
                "metric": metric,
                "changes": changes,
                "journal": journal,
                "segments": segments,
                "removed": removed,
            }
        )

    @model_validator(mode="after")
    def _each_segment_once(self) -> Manifest:
        if len({record.token for record in self.segments}) < len(self.segments):
            raise ValueError("a segment is named twice")
        return self

    @property
    def kind(self) -> Kind:
        """What its segments have in common."""
        return Kind(self.dim, self.storage)

    @property
    def files(self) -> set[str]:
        """The names of the files that it refers to."""
        removed = [] if self.removed is None else [self.removed.file]
        journal = [] if self.journal is None else [journal_name(self.journal)]
        return {NAME, *(record.file for record in self.segments), *removed, *journal}


def journal_name(token: str) -> str:
    """The file of a journal."""
    return f"journal-{token}.log"


def write(manifest: Manifest, folder: Path) -> None:
    """Put it in the place of the one that is there."""
    content = manifest.model_dump()
    text = json.dumps({**content, "checksum": _checksum(content)}, indent=1)
    disk.replace(folder / NAME, text.encode())


def read(folder: Path) -> Manifest:
    """What is there, checked; `FileNotFoundError` where there is nothing."""
    path = folder / NAME
    try:
        size = disk.size_of_file(path)
        if size > LARGEST:
            raise IndexFormatError(f"{path} has {size:,} bytes; expected a manifest of an index")
        raw = path.read_bytes()
    except IsADirectoryError as error:
        raise IndexFormatError(f"{path} is a folder; expected the manifest of an index") from error
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, f"{folder} is no folder of an index") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"there is no index in {folder}: it has no {NAME}"
        ) from error
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise IndexFormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IndexFormatError(f'{path} is of something else; expected "format": "{FORMAT}"')
    version = content.get("version")
    if type(version) is not int or version not in READERS:
        raise IndexFormatError(
            f"{path} is of version {version!r}; this llmrec_kernels reads "
            f"{', '.join(map(str, READERS))}: a newer one may have written it"
        )
    said = content.pop("checksum", None)
    try:
        damaged = said != _checksum(content)
    except RecursionError as error:
        raise IndexFormatError(f"{path} is nested too deeply") from error
    if damaged:
        raise IndexFormatError(f"{path} is damaged: its checksum is not that of what it holds")
    try:
        return READERS[version](content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise IndexFormatError(f"{path}: {where}: {first['msg']}") from error


def _checksum(content: dict[str, Any]) -> str:
    return disk.checksum(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


# How each version of the format becomes a manifest of the newest.
READERS = {1: Manifest.model_validate}
