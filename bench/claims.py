"""Claims that a command tries, and a file of results that it brings up to date."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrec_kernels._files import write_text
from llmrec_kernels.profiler import environment

Facts = dict[str, Any]


def try_all(claims: Mapping[str, Callable[[], Facts]], chosen: Sequence[str], name: str) -> None:
    """Try all claims, or those chosen; what each found goes into `bench/results/<name>.json`."""
    unknown = [each for each in chosen if each not in claims]
    if unknown:
        raise SystemExit(f"there is no claim {unknown[0]!r}; there are {', '.join(claims)}")
    results = Path(__file__).parent / "results" / f"{name}.json"
    report: Facts = json.loads(results.read_text()) if results.exists() else {}
    for each in chosen or claims:
        report[each] = {
            "environment": environment.collect("cpu").model_dump(),
            "results": claims[each](),
        }
        results.parent.mkdir(exist_ok=True)
        write_text(json.dumps(report, indent=1) + "\n", results)
