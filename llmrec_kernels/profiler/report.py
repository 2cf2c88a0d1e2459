"""What a profile says, field by field: the schema of its JSON.

The published schema, `report-1.schema.json`, is made from these classes (`files.py`). A change
that old readers would misread raises `SCHEMA_VERSION`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from llmrec_kernels.profiler.figures import Figure, Model

SCHEMA_VERSION: Final = 1
Kind = Literal["float64", "float32", "tf32", "bfloat16", "float16", "int8", "fp8"]


class Gpu(Model):
    """A GPU as it says of itself."""

    name: str
    uuid: str | None = Field(description="its identity; null where the driver does not tell")
    compute_capability: str
    memory_bytes: int
    driver: str | None
    sm_mhz: float | None = Field(description="clock of the multiprocessors after the run, MHz")
    memory_mhz: float | None
    celsius: float | None
    mig: bool | None = Field(description="a slice of a GPU (MIG); null where it is not known")
    shared: bool | None = Field(description="other processes compute on it; null: not known")
    throttles: list[str] | None = Field(
        default=None, description="what holds its clocks down; null: it does not tell"
    )


class Environment(Model):
    """The machine and the software that a figure depends on."""

    fingerprint: str = Field(description="of the hardware and its limits; roofs are kept under it")
    cpu: str
    machine: str = Field(description="such as x86_64")
    logical_cpus: int = Field(description="that this process may use")
    threads: int = Field(description="torch's, at the time")
    level: str | None = Field(description="instruction set of the CPU kernels; null: no extension")
    memory_bytes: int | None
    load_average: float | None = Field(description="of the last minute, at the start")
    cpu_mhz: float | None = Field(description="clock after the run; null where it is not told")
    gpu: Gpu | None
    package: str = Field(description="version of llmrec_kernels")
    commit: str | None = Field(description="of a checkout, '+' where it was changed; else null")
    python: str
    torch: str
    cuda: str | None = Field(description="CUDA version of torch's build; null: none")
    triton: str | None
    platform: str
    created: str = Field(description="when the profile began: ISO 8601, UTC")


class Timing(Model):
    """Seconds of one call, over samples."""

    clock: Literal["wall", "cuda events"] = Field(
        description="wall: from call to result; cuda events: the GPU's own"
    )
    n: int = Field(description="samples", ge=1)
    calls_per_sample: int = Field(description="a short call is repeated in a sample", ge=1)
    median: float = Field(description="seconds of a call", gt=0)
    low: float = Field(description="bootstrap 95% interval of the median, seconds")
    high: float
    p5: float
    q1: float = Field(description="first quartile, seconds")
    q3: float
    p95: float
    minimum: float


class Work(Model):
    """Compulsory work of one call: what its definition asks for, not what a kernel does."""

    flops: int = Field(description="floating-point operations; a multiply-add is two", ge=0)
    int_ops: int = Field(description="integer operations, counted likewise", ge=0)
    bytes_read: int = Field(description="compulsory bytes read", ge=0)
    bytes_written: int = Field(description="compulsory bytes written", ge=0)
    measured_bytes: int | None = Field(
        description="bytes moved, by a hardware counter; null where there is none"
    )


class Op(Model):
    """The calls of one operator in one call of what is profiled."""

    name: str
    calls: int
    seconds: float = Field(description="of all calls, in the pass that counts, which is slower")
    work: Work
    kind: Kind = Field(description="arithmetic whose peak bounds it")
    counted: bool = Field(description="false: its operations have no formula, and are not in flops")
    rows: int | None = Field(description="rows that a lookup names; null: not a lookup")
    unique_rows: int | None = Field(description="how many of them differ")
    least_seconds: float = Field(description="by the roofs: operations or bytes, the slower")


class Ceiling(Model):
    """The most operations or bytes a second."""

    per_second: float = Field(description="operations or bytes a second", gt=0)
    source: str = Field(description="measured here, or the datasheet's row")
    repeatability: float | None = Field(
        description="relative difference of repeated measurements; null: not measured here"
    )


class Roofline(Model):
    """Where the work stands under the roofs."""

    bandwidth: Ceiling = Field(description="from main memory")
    cached_bandwidth: Ceiling | None = Field(
        description="of a buffer as large as the bytes of the work, where that fits a cache"
    )
    peaks: dict[Kind, Ceiling] = Field(description="operations a second by kind of arithmetic")
    kind: Kind = Field(description="arithmetic of most operations: its peak is the ceiling")
    intensity: float | None = Field(description="operations per byte; null: no bytes")
    attained: float = Field(description="operations a second")
    attained_bytes: float = Field(description="compulsory bytes a second")
    least_seconds: float = Field(description="a call's least time by the roofs")
    share: float = Field(description="least_seconds over the median: 1 is the roof")
    bound: Literal["memory", "cache", "compute", "none"]
    modelled: bool = Field(description="the roofs are a datasheet's, or the time is")
    explanation: str | None = Field(description="where the share is above 1, why; else null")


class Energy(Model):
    """Energy of one call by component, and of all."""

    component: str = Field(description="cpu, dram, gpu, or total: those that are known, added")
    gross: Figure = Field(description="joules of a call")
    net: Figure = Field(description="joules of a call without what the idle machine takes")
    calls: int = Field(description="calls in the window")
    window_seconds: float


class Assumption(Model):
    """A number that costs rest on and that nobody measured here."""

    name: str
    value: float
    unit: str
    source: str
    year: int | None


class Costs(Model):
    """What an amount of work costs."""

    amount: str = Field(description="such as '1 query', '1,000,000 queries' or 'a day'")
    units: float = Field(description="units of work in the amount")
    seconds: float = Field(description="of this device, one call after the other")
    energy: Figure = Field(description="kWh, with the overhead of the data centre")
    carbon: Figure = Field(description="g CO2e")
    energy_money: Figure = Field(description="USD for the energy; unavailable without a price")
    instance_money: Figure = Field(
        description="USD for the time of the machine; its price includes energy: do not add"
    )


class Prediction(Model):
    """The same work on a GPU that is not here: the least it can take, modelled."""

    gpu: str
    seconds: float = Field(description="least time of a call: modelled")
    bound: Literal["memory", "compute", "none"]
    kind: Kind = Field(description="arithmetic that bounds it, or would")
    unsupported: str | None = Field(description="why this GPU cannot do it so; null: it can")
    doubt: str | None = Field(description="what is doubtful of the datasheet's row")
    energy: Figure = Field(description="joules of a call: TDP times time")
    costs: list[Costs]


class Report(Model):
    """One profile.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> report = profiler.profile(lambda: sum(range(1000)), min_time=0.01)
    >>> report.time.n >= 10
    True
    """

    schema_version: Literal[1] = Field(description="of this format")
    name: str = Field(description="what was profiled")
    device: str = Field(description="cpu or cuda:<index>")
    units: float = Field(description="units of work in a call", gt=0)
    unit: str = Field(description="such as query")
    cache: Literal["cold", "hot"] = Field(
        description="cold: the caches were emptied before each call"
    )
    environment: Environment
    time: Timing
    kernel_time: Timing | None = Field(description="of the GPU alone; null on the CPU")
    work: Work
    ops: list[Op] = Field(description="by operator, the slowest first")
    uncounted: dict[str, int] = Field(
        description="operators whose operations have no formula, and their calls"
    )
    roofline: Roofline | None = Field(description="null where no roof is known")
    energy: list[Energy]
    costs: list[Costs]
    assumptions: list[Assumption]
    predictions: list[Prediction]
    warnings: list[str] = Field(description="what makes the figures worth less")

    def __str__(self) -> str:
        from llmrec_kernels.profiler.terminal import table

        return table(self)

    def to_json(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all; `read` reads it again."""
        from llmrec_kernels.profiler.files import write_json

        write_json(self, path)

    def to_csv(self, path: str | Path) -> None:
        """Write one line: name, device, time, work, roofline, energy, cost and labels."""
        from llmrec_kernels.profiler.files import write_csv

        write_csv([self], path)

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs nothing else, on the disk or from a network."""
        from llmrec_kernels.profiler.html import write_html

        write_html([self], path)


class Bench(Model):
    """The profiles of one run of `llmrec-kernels bench`."""

    schema_version: Literal[1]
    complete: bool = Field(description="false: the run broke off")
    environment: Environment
    reports: list[Report]
    left_out: dict[str, str] = Field(description="cells that did not run, and why")
