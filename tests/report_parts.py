"""What sample reports (`reports.py`) are put together from."""

from __future__ import annotations

from typing import Any

from llmrec_kernels.profiler.figures import Figure, Quality
from llmrec_kernels.profiler.report import (
    Ceiling,
    Costs,
    Energy,
    Environment,
    Gpu,
    Kind,
    Op,
    Timing,
    Work,
)

NO_PRICE = "no price was given: usd_per_kwh=..."
H100 = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-00000000-0000-0000-0000-000000000000",
    compute_capability="9.0",
    memory_bytes=85_000_000_000,
    driver="575.57.08",
    sm_mhz=1980.0,
    memory_mhz=2619.0,
    celsius=41.0,
    mig=False,
    shared=None,
)


def environment(gpu: Gpu | None = None, **changes: Any) -> Environment:
    """A server with or without a GPU."""
    known = {
        "fingerprint": "3f9a1c" if gpu is None else "b27e44",
        "cpu": "AMD EPYC 7R13 Processor" if gpu is None else "Intel(R) Xeon(R) Platinum 8480C",
        "machine": "x86_64",
        "logical_cpus": 16,
        "threads": 16,
        "level": "avx2",
        "memory_bytes": 128 * 2**30,
        "load_average": 0.4,
        "cpu_mhz": None,
        "gpu": gpu,
        "package": "0.1.0",
        "commit": "da1e3c5+",
        "python": "3.12.4",
        "torch": "2.13.0",
        "cuda": None if gpu is None else "13.0",
        "triton": None if gpu is None else "3.7.1",
        "platform": "Linux-6.8-x86_64",
        "created": "2031-05-04T10:20:30Z",
    }
    return Environment.model_validate(known | changes)


def timing(median: float, clock: str = "wall") -> Timing:
    """Samples that spread by a few percent around a median in seconds."""
    return Timing(
        clock=clock,
        n=120,
        calls_per_sample=1,
        median=median,
        low=median * 0.9951,
        high=median * 1.0072,
        p5=median * 0.97,
        q1=median * 0.985,
        q3=median * 1.02,
        p95=median * 1.11,
        minimum=median * 0.96,
    )


def op(
    name: str,
    seconds: float,
    flops: int = 0,
    read: int = 0,
    *,
    int_ops: int = 0,
    kind: Kind = "float32",
    counted: bool = True,
    rows: int | None = None,
) -> Op:
    """An operator that ran once; of the rows that it looked up three quarters differ."""
    work = Work(
        flops=flops,
        int_ops=int_ops,
        bytes_read=read,
        bytes_written=read // 1000,
        measured_bytes=None,
    )
    return Op(
        name=name,
        calls=1,
        seconds=seconds,
        work=work,
        kind=kind,
        counted=counted,
        rows=rows,
        unique_rows=None if rows is None else rows * 3 // 4,
        least_seconds=seconds * 0.7,
    )


def figure(value: float, unit: str, quality: Quality, spread: float = 0.02) -> Figure:
    """A figure between a share below and a share above."""
    return Figure(
        value=value,
        unit=unit,
        quality=quality,
        method={"measured": "NVML energy counter", "estimated": "TDP and utilisation"}.get(
            quality, "TDP times least time"
        ),
        low=value * (1 - spread),
        high=value * (1 + spread),
    )


def energy(component: str, gross: Figure, net: Figure | None = None) -> Energy:
    """Joules of a call in a window of ten seconds."""
    idle = Figure.unavailable("J", "no idle window was measured")
    return Energy(
        component=component, gross=gross, net=net or idle, calls=8000, window_seconds=10.0
    )


def costs(seconds: float, joules: Figure, units: float, *, hourly: float | None) -> list[Costs]:
    """What one query, a million and a day cost, at `hourly` USD."""
    found = []
    for amount, count in (("1 query", 1.0), ("1,000,000 queries", 1e6), ("a day", 5e8)):
        calls = count / units
        kwh = joules.times(calls * 1.15 / 3.6e6, "kWh")
        machine = Figure.unavailable("USD", "no price was given: usd_per_hour=...")
        if hourly is not None:
            quality = "modelled" if joules.quality == "modelled" else "measured"
            price = seconds * calls / 3600 * hourly
            machine = Figure(value=price, unit="USD", quality=quality, method="time at a price")
        found.append(
            Costs(
                amount=amount,
                units=count,
                seconds=seconds * calls,
                energy=kwh,
                carbon=kwh.times(56.0, "g CO2e"),
                energy_money=Figure.unavailable("USD", NO_PRICE),
                instance_money=machine,
            )
        )
    return found


def ceiling(per_second: float, source: str = "measured here") -> Ceiling:
    """A roof, repeated where it was measured here."""
    here = source == "measured here"
    return Ceiling(per_second=per_second, source=source, repeatability=0.012 if here else None)
