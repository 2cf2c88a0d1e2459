"""How much memory there is to have."""

from __future__ import annotations

from pathlib import Path

import torch


def free(device: str) -> int | None:
    """Bytes that this process can still have; None where the system does not tell.

    Parameters
    ----------
    device
        "cpu" or "cuda:<index>".
    """
    if device != "cpu":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
