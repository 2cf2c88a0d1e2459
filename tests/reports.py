"""Sample reports, for tests of how a report is shown.

The numbers are round and invented; each report has what a test of its name needs.
"""

from __future__ import annotations

from typing import Any

from report_parts import H100, ceiling, costs, energy, environment, figure, op, timing

from llmrec_kernels.profiler.figures import Figure
from llmrec_kernels.profiler.report import (
    Assumption,
    Bench,
    Prediction,
    Report,
    Roofline,
    Work,
)

SCRIPT = "<script>document.title = 'taken'</script>"
IMAGE = '"><img src="x" onerror="document.title = `taken`">'
ESCAPE = "\x1b[31mred\x1b[0m [bold]markup[/bold] :smile: \u202egnp.exe"
LONG = "recommenders.two_tower.encoder.layers.11.attention.output.dense." * 5


def cpu_report(**changes: Any) -> Report:
    """On a CPU: energy is estimated, and memory has no counter."""
    seconds, units = 0.0142, 64.0
    total = figure(0.9, "J", "estimated", 0.6)
    flops, read = 98_304_000_000, 768_196_608
    work = Work(flops=flops, int_ops=0, bytes_read=read, bytes_written=7680, measured_bytes=None)
    known: dict[str, Any] = {
        "schema_version": 1,
        "name": "cosine_topk 1,000,000 x 768 int8",
        "device": "cpu",
        "units": units,
        "unit": "query",
        "cache": "cold",
        "environment": environment(),
        "time": timing(seconds),
        "kernel_time": None,
        "work": work,
        "ops": [
            op("llmrec.cosine_topk", 0.0131, flops, read),
            op("aten.linalg_vector_norm", 0.0007, 98_304, 196_608),
            op("aten.div", 0.0003, 49_152, 400_000),
            op("aten.copy_", 0.0001, 0, 400_000),
            op("aten.sort", 0.0001, 0, 5_120, counted=False),
        ],
        "uncounted": {"aten.sort": 1},
        "roofline": Roofline(
            bandwidth=ceiling(92e9),
            cached_bandwidth=None,
            peaks={"float32": ceiling(1.1e12), "bfloat16": ceiling(1.3e12), "int8": ceiling(8e12)},
            kind="int8",
            intensity=128.0,
            attained=flops / seconds,
            attained_bytes=read / seconds,
            least_seconds=0.0123,
            share=0.0123 / seconds,
            bound="compute",
            modelled=False,
            explanation=None,
        ),
        "energy": [
            energy("cpu", figure(0.9, "J", "estimated", 0.6)),
            energy("dram", Figure.unavailable("J", "RAPL has no dram domain here")),
            energy("total", total),
        ],
        "costs": costs(seconds, total, units, hourly=None),
        "assumptions": [
            Assumption(name="grid FRA", value=56.0, unit="g CO2e/kWh", source="Ember", year=2029),
            Assumption(name="pue", value=1.15, unit="", source="Uptime Institute", year=None),
        ],
        "predictions": [],
        "warnings": ["the load average was 0.4 before the run"],
    }
    return Report.model_validate(known | changes)


def gpu_report(**changes: Any) -> Report:
    """On a GPU: energy is measured by its counter, and the machine has a price."""
    seconds, units = 0.00042, 64.0
    joules = figure(0.21, "J", "measured")
    flops, read = 98_304_000_000, 768_196_608
    known = {
        "device": "cuda:0",
        "environment": environment(H100),
        "time": timing(seconds),
        "kernel_time": timing(0.00036, "cuda events"),
        "ops": [
            op("llmrec.cosine_topk", 0.00036, flops, read, kind="bfloat16"),
            op("llmrec.embedding_bag", 0.00002, 3_000_000, 12_000_000, rows=12_000),
        ],
        "uncounted": {},
        "roofline": Roofline(
            bandwidth=ceiling(2.9e12),
            cached_bandwidth=ceiling(6.5e12),
            peaks={
                "float32": ceiling(62e12),
                "tf32": ceiling(480e12),
                "float16": ceiling(940e12),
                "bfloat16": ceiling(941e12),
                "int8": ceiling(1900e12),
            },
            kind="bfloat16",
            intensity=128.0,
            attained=flops / seconds,
            attained_bytes=read / seconds,
            least_seconds=0.000265,
            share=0.000265 / seconds,
            bound="memory",
            modelled=False,
            explanation=None,
        ),
        "energy": [
            energy("gpu", joules, figure(0.16, "J", "measured", 0.03)),
            energy("total", joules, figure(0.16, "J", "measured", 0.03)),
        ],
        "costs": costs(seconds, joules, units, hourly=2.99),
        "warnings": [],
    }
    return cpu_report(**(known | changes))


def predicted_report() -> Report:
    """With the least that the same work takes on GPUs that are not here."""

    def prediction(gpu: str, seconds: float, watts: float, **changes: Any) -> Prediction:
        joules = figure(seconds * watts, "J", "modelled", 0.0)
        known = {
            "gpu": gpu,
            "seconds": seconds,
            "bound": "memory",
            "kind": "int8",
            "unsupported": None,
            "doubt": None,
            "energy": joules,
            "costs": costs(seconds, joules, 64.0, hourly=2.0),
        }
        return Prediction.model_validate(known | changes)

    return cpu_report(
        predictions=[
            prediction("H100-SXM", 0.00023, 700.0),
            prediction("L4", 0.0026, 72.0, doubt="some pages print sparse peaks"),
            prediction("V100-PCIe", 0.00085, 250.0, unsupported="it has no int8 tensor cores"),
        ]
    )


def modelled_report() -> Report:
    """Under the roofs of a datasheet."""
    roofline = gpu_report().roofline
    assert roofline is not None
    sheet = {
        "bandwidth": ceiling(3.35e12, "hardware.csv, H100-SXM"),
        "peaks": {"bfloat16": ceiling(989e12, "hardware.csv, H100-SXM")},
        "cached_bandwidth": None,
        "modelled": True,
    }
    return gpu_report(roofline=roofline.model_copy(update=sheet))


def report_without_roofline() -> Report:
    """On a machine of which no roof is known; energy and operators were not looked at."""
    return cpu_report(roofline=None, ops=[], uncounted={}, energy=[], costs=[], assumptions=[])


def report_above_the_roof() -> Report:
    """Faster than main memory, and why."""
    roofline = cpu_report().roofline
    assert roofline is not None
    above = {
        "share": 1.31,
        "bound": "memory",
        "explanation": "the items stay in the cache, which is faster than main memory",
        "cached_bandwidth": ceiling(410e9),
    }
    return cpu_report(cache="hot", roofline=roofline.model_copy(update=above))


def hostile_report() -> Report:
    """Names that are markup, that steer a terminal, or that are very long; and many operators."""
    names = [SCRIPT, IMAGE, ESCAPE, LONG, *(f"aten.operator_{i}.{LONG}" for i in range(40))]
    ops = [
        op(name, 0.01 / (i + 1), 10**9 * (i % 7 + 1), 10**7 * (i % 11 + 1))
        for i, name in enumerate(names)
    ]
    return cpu_report(
        name=f"{SCRIPT} {LONG}",
        unit=SCRIPT,
        ops=ops,
        uncounted={IMAGE: 3},
        environment=environment(cpu=f"{IMAGE} {LONG}"),
        warnings=[SCRIPT, LONG, ESCAPE],
        assumptions=[Assumption(name=IMAGE, value=1.0, unit=SCRIPT, source=LONG, year=2030)],
    )


def merged_reports() -> list[Report]:
    """Two runs of the same benchmark cells, on a CPU and on a GPU; one cell ran on one only."""
    found = []
    for make in (cpu_report, gpu_report):
        roofline = make().roofline
        assert roofline is not None
        for items, batch, share in (
            (10**5, 1, 0.31),
            (10**6, 1, 0.78),
            (10**6, 64, 0.64),
            (10**7, 64, 0.81),
        ):
            read, flops = 768 * items, 2 * 768 * items * batch
            least = max(
                read / roofline.bandwidth.per_second,
                flops / roofline.peaks[roofline.kind].per_second,
            )
            changes = {
                "intensity": 2.0 * batch,
                "attained": share * flops / least,
                "attained_bytes": share * read / least,
                "least_seconds": least,
                "share": share,
            }
            found.append(
                make(
                    name=f"cosine_topk {items:,} x 768 int8, k = 10, batch = {batch}",
                    units=float(batch),
                    time=timing(least / share),
                    roofline=roofline.model_copy(update=changes),
                )
            )
    return found[:-1]


def bench() -> Bench:
    """A run of benchmarks as it is kept on the disk."""
    reports = merged_reports()
    return Bench(
        schema_version=1,
        complete=True,
        environment=reports[0].environment,
        reports=reports,
        left_out={"cosine_topk 10,000,000 x 768 int8, 64 queries": "no memory for it"},
    )


def pages() -> dict[str, list[Report]]:
    """What is shown together on a page, by a name for it."""
    return {
        "cpu": [cpu_report()],
        "gpu": [gpu_report()],
        "predicted": [predicted_report()],
        "modelled": [modelled_report()],
        "without roofline": [report_without_roofline()],
        "above the roof": [report_above_the_roof()],
        "hostile": [hostile_report()],
        "merged": bench().reports,
    }
