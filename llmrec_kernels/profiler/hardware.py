"""What GPUs can do at most, by their datasheets: for GPUs that are not here.

The figures are in `hardware.csv`, as they are printed: dense peaks, tensor cores accumulating in
float32 where they take floats. Each row names the pages that print them, and what is doubtful.
Whatever a device says of itself wins over its row.
"""

from __future__ import annotations

import csv
import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import Field

from llmrec_kernels.profiler.figures import Model
from llmrec_kernels.profiler.report import Kind

_PEAKS: dict[Kind, str] = {
    "float32": "fp32_tflops",
    "tf32": "tf32_tflops",
    "bfloat16": "bf16_tflops",
    "float16": "fp16_tflops",
    "int8": "int8_tops",
    "fp8": "fp8_tflops",
}
_VENDOR = "nvidia "  # older drivers say "A100-SXM4-40GB", newer ones "NVIDIA A100-SXM4-40GB"


class Hardware(Model):
    """One GPU's row of `hardware.csv`, in SI units.

    Parameters
    ----------
    name
        Such as "H100-SXM".
    driver_names
        What the driver, and so `torch.cuda.get_device_name`, calls it.
    compute_capability
        Major and minor, as `torch.cuda.get_device_capability` gives them.
    multiprocessors
        How many there are.
    memory
        Kind of the main memory, such as "HBM3".
    bandwidth
        Bytes per second of the main memory.
    peaks
        Dense operations per second by kind of arithmetic; a kind without figure is absent.
    l2_bytes
        Bytes of the second-level cache.
    watts
        Thermal design power.
    source
        Titles and addresses of the pages that print these figures.
    doubt
        What of them is doubtful; None: nothing.

    Examples
    --------
    >>> h100 = gpu("H100-SXM")
    >>> h100.bandwidth, h100.peaks["bfloat16"], h100.watts
    (3350000000000.0, 989000000000000.0, 700.0)
    """

    name: str
    driver_names: tuple[str, ...]
    compute_capability: tuple[int, int]
    multiprocessors: int = Field(gt=0)
    memory: str
    bandwidth: float = Field(gt=0, description="bytes per second")
    peaks: dict[Kind, float] = Field(description="dense operations per second")
    l2_bytes: int = Field(gt=0)
    watts: float = Field(gt=0)
    source: str
    doubt: str | None


@functools.cache
def gpus() -> Mapping[str, Hardware]:
    """All rows by name.

    Examples
    --------
    >>> sorted(gpus())[:3]
    ['A10', 'A100-40-SXM', 'A100-80-PCIe']
    """
    return {row["name"]: _hardware(row) for row in read_table("hardware.csv")}


def gpu(name: str) -> Hardware:
    """The row of this name, in capitals or not.

    Raises
    ------
    ValueError
        There is no such row; the nearest names are given.

    Examples
    --------
    >>> gpu("l40s").memory
    'GDDR6'
    >>> gpu("H10")
    Traceback (most recent call last):
    ...
    ValueError: gpu is 'H10'; there is no such row in the table; nearest: H100-PCIe, H100-SXM
    """
    return find("gpu", name, gpus())


def named_by_driver(device_name: str) -> Hardware | None:
    """The row of a device by what its driver calls it, or None where the table has none.

    Parameters
    ----------
    device_name
        As `torch.cuda.get_device_name` gives it, with or without "NVIDIA ". The whole name
        counts: an A10G is no A10, and a slice of an A100 (MIG) is no A100.

    Examples
    --------
    >>> named_by_driver("NVIDIA H100 80GB HBM3").name
    'H100-SXM'
    >>> named_by_driver("NVIDIA A10G") is None
    True
    """
    wanted = device_name.casefold().removeprefix(_VENDOR)
    for row in gpus().values():
        if any(wanted == each.casefold().removeprefix(_VENDOR) for each in row.driver_names):
            return row
    return None


class Named(Protocol):
    """A row of a table that is looked up."""

    @property
    def name(self) -> str:
        """What it is called besides its key."""


Row = TypeVar("Row", bound=Named)


def find(argument: str, key: str, rows: Mapping[str, Row]) -> Row:
    """The row of a key, in capitals or not; an unknown one is refused with the nearest keys."""
    wanted = key.casefold()
    for each, row in rows.items():
        if each.casefold() == wanted:
            return row
    keys = {row.name.casefold(): each for each, row in rows.items()}
    keys |= {each.casefold(): each for each in rows}
    alike = [text for text in keys if wanted in text]
    alike = alike or difflib.get_close_matches(wanted, keys, cutoff=0)
    nearest = list(dict.fromkeys(keys[text] for text in alike))[:4]
    raise ValueError(
        f"{argument} is {key!r}; there is no such row in the table; nearest: {', '.join(nearest)}"
    )


def read_table(file: str) -> list[dict[str, str]]:
    """The rows of a table that comes with the profiler, as they are printed."""
    with (Path(__file__).parent / file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def _hardware(row: dict[str, str]) -> Hardware:
    major, minor = row["compute_capability"].split(".")
    return Hardware(
        name=row["name"],
        driver_names=tuple(row["driver_name"].split("; ")),
        compute_capability=(int(major), int(minor)),
        multiprocessors=int(row["sm_count"]),
        memory=row["memory"],
        bandwidth=float(row["memory_bandwidth_gbs"] + "e9"),
        peaks={kind: float(row[column] + "e12") for kind, column in _PEAKS.items() if row[column]},
        l2_bytes=int(row["l2_mb"]) * 2**20,  # of caches, datasheets print MiB and write MB
        watts=float(row["tdp_w"]),
        source=row["source"],
        doubt=row["doubt"] or None,
    )
