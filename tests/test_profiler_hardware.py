"""The datasheets' figures are possible ones, dense ones, and found by any of a GPU's names."""

import pytest

from llmrec_kernels.profiler.hardware import Hardware, gpu, gpus, named_by_driver

ROWS = pytest.mark.parametrize("row", gpus().values(), ids=gpus().keys())

# Slowest and fastest gigabits a second of a pin, narrowest and widest bus in bits.
MEMORIES = {
    "HBM2": (1.6, 2.5, 4096, 5120),
    "HBM2e": (2.8, 3.6, 5120, 6144),
    "HBM3": (5.2, 6.4, 5120, 6144),
    "HBM3e": (6.2, 9.6, 6144, 8192),
    "GDDR6": (10, 18, 192, 384),
    "GDDR6X": (19, 24, 192, 384),
    "GDDR7": (28, 32, 192, 512),
}
# Of a multiprocessor, by compute capability: float32 lanes, and float16 operations of its tensor
# cores in a cycle, accumulated in float32. CUDA C++ Programming Guide, arithmetic instructions.
LANES = {
    (7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128,
    (8, 9): 128, (9, 0): 128, (10, 0): 128, (12, 0): 128,
}  # fmt: skip
TENSOR = {
    (7, 0): 1024, (7, 5): 1024, (8, 0): 2048, (8, 6): 1024,
    (8, 9): 1024, (9, 0): 4096, (10, 0): 8192, (12, 0): 1024,
}  # fmt: skip


def geforce(row: Hardware) -> bool:
    """Whether its tensor cores run at half their rate when they accumulate floats in float32."""
    return row.name.startswith("RTX-")


def clock(row: Hardware) -> float:
    """Hz at which its lanes, a multiply-add each in a cycle, give its float32 peak."""
    return row.peaks["float32"] / (2 * LANES[row.compute_capability] * row.multiprocessors)


def test_the_figures_are_in_si_units() -> None:
    found = gpu("A100-40-SXM")
    assert found.bandwidth == 1555e9
    assert found.peaks == {
        "float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12, "float16": 312e12, "int8": 624e12,
    }  # fmt: skip
    # What cudaGetDeviceProperties says of this GPU.
    assert found.l2_bytes == 41_943_040
    assert (found.multiprocessors, found.compute_capability) == (108, (8, 0))
    assert (found.watts, found.memory, found.doubt) == (400, "HBM2", None)


def test_a_kind_that_a_gpu_has_no_cores_for_is_absent() -> None:
    assert set(gpu("T4").peaks) == {"float32", "float16", "int8"}
    assert set(gpu("V100-PCIe").peaks) == {"float32", "float16", "int8"}
    assert "fp8" not in gpu("A10").peaks
    assert gpu("H100-PCIe").peaks["fp8"] == 1513e12


@ROWS
def test_bandwidth_is_one_that_its_memory_can_have(row: Hardware) -> None:
    slowest, fastest, narrowest, widest = MEMORIES[row.memory]
    assert slowest * narrowest / 8 <= row.bandwidth / 1e9 <= fastest * widest / 8


@ROWS
def test_float32_is_all_lanes_at_a_plausible_clock(row: Hardware) -> None:
    assert 1.3e9 < clock(row) < 2.6e9


@ROWS
def test_float16_is_dense_at_nearly_the_same_clock(row: Hardware) -> None:
    rate = TENSOR[row.compute_capability] / (2 if geforce(row) else 1)
    # Hopper and Blackwell run their tensor cores up to a tenth slower than their lanes.
    assert 0.9 <= row.peaks["float16"] / (rate * row.multiprocessors) / clock(row) < 1.02


@ROWS
def test_the_tensor_cores_peaks_are_in_their_ratios(row: Hardware) -> None:
    half = row.peaks["float16"]
    if row.compute_capability == (7, 0):  # no int8 in its tensor cores: dp4a does four at once
        assert row.peaks["int8"] == pytest.approx(4 * row.peaks["float32"], rel=0.02)
    else:  # and integers are accumulated at the full rate
        assert row.peaks["int8"] == pytest.approx((4 if geforce(row) else 2) * half, rel=0.02)
    if row.compute_capability >= (8, 0):
        assert row.peaks["bfloat16"] == half
        assert row.peaks["tf32"] == pytest.approx(half / 2, rel=0.02)


@ROWS
def test_fp8_is_there_from_ada_on_and_as_fast_as_int8_where_floats_accumulate_at_full_rate(
    row: Hardware,
) -> None:
    if row.compute_capability < (8, 9):
        assert "fp8" not in row.peaks
    else:
        assert row.peaks["fp8"] == pytest.approx(
            row.peaks["int8"] / (2 if geforce(row) else 1), rel=0.005
        )


@ROWS
def test_watts_and_cache_are_plausible(row: Hardware) -> None:
    assert 70 <= row.watts <= 1000
    assert 4 * 2**20 <= row.l2_bytes <= 128 * 2**20
    assert 4e9 < row.peaks["float32"] / row.watts < 5e11


@ROWS
def test_every_row_names_a_page_and_is_filed_under_its_name(row: Hardware) -> None:
    assert "https://" in row.source
    assert gpus()[row.name] is row


def test_no_two_rows_share_a_name_of_the_driver() -> None:
    names = [name for row in gpus().values() for name in row.driver_names]
    assert len(set(names)) == len(names) >= len(gpus())


@pytest.mark.parametrize(
    ("device_name", "name"),
    [
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100-SXM2"),
        ("Tesla V100-PCIE-16GB", "V100-PCIe"),
        ("NVIDIA A10", "A10"),
        ("A100-SXM4-40GB", "A100-40-SXM"),  # a driver of 2020
        ("NVIDIA A100-SXM4-80GB", "A100-80-SXM"),
        ("NVIDIA A100 80GB PCIe", "A100-80-PCIe"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("NVIDIA H200", "H200-SXM"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 5090", "RTX-5090"),
    ],
)
def test_a_gpu_is_found_by_what_its_driver_calls_it(device_name: str, name: str) -> None:
    assert named_by_driver(device_name) == gpu(name)


@pytest.mark.parametrize(
    "device_name",
    [
        "NVIDIA A10G",
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA L40",
        "NVIDIA H100 NVL",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA",
        "",
    ],
)
def test_a_gpu_that_only_sounds_like_a_row_is_not_found(device_name: str) -> None:
    assert named_by_driver(device_name) is None


def test_a_name_is_found_in_capitals_or_not() -> None:
    assert gpu("h100-sxm") is gpu("H100-SXM") is gpus()["H100-SXM"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("h100", "H100-PCIe, H100-SXM"),
        ("A100", "A100-40-SXM, A100-80-SXM, A100-80-PCIe"),
        ("4090", "RTX-4090"),
        ("L40", "L40S"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_contain_it(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match="gpu is") as refusal:
        gpu(name)
    assert str(refusal.value) == (
        f"gpu is {name!r}; there is no such row in the table; nearest: {nearest}"
    )


def test_a_misspelt_name_is_refused_with_the_nearest_first() -> None:
    with pytest.raises(ValueError, match=r"gpu is 'RTX4090'; .* nearest: RTX-4090, "):
        gpu("RTX4090")
    with pytest.raises(ValueError, match=r"gpu is 'H200SXM'; .* nearest: H200-SXM, H100-SXM"):
        gpu("H200SXM")
