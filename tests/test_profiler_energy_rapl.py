"""RAPL's zones: which count, how they unroll, and what is said where they cannot be read.

The zones are folders as powercap shows them, with counters that the tests move.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replayed_energy import ReplayedClock, write_zone

from llmrec_kernels.profiler.energy import EnergyMonitor
from llmrec_kernels.profiler.energy.rapl import Rapl
from llmrec_kernels.profiler.energy.sensor import SensorError


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so that it steps down for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def server(root):
    """Two sockets with all zones that there are, each at its own number of joules."""
    zones = {
        "intel-rapl:0": ("package-0", 100),
        "intel-rapl:0:0": ("core", 1_000),
        "intel-rapl:0:1": ("uncore", 2_000),
        "intel-rapl:0:2": ("dram", 7),
        "intel-rapl:1": ("package-1", 30),
        "intel-rapl:1:0": ("dram", 8),
        "intel-rapl:2": ("psys", 90_000),
        "intel-rapl-mmio:0": ("package-0", 100),
    }
    return {
        zone: write_zone(root, zone, name, microjoules=joules * 10**6)
        for zone, (name, joules) in zones.items()
    }


def opened(component, root):
    sensor = Rapl(component, root)
    sensor.open()
    return sensor


def test_packages_count_once_and_neither_what_is_in_them_nor_what_they_are_in(tmp_path):
    server(tmp_path)
    assert opened("cpu", tmp_path).read() == (100.0, 30.0)


def test_dram_is_a_component_of_its_own(tmp_path):
    server(tmp_path)
    assert opened("dram", tmp_path).read() == (7.0, 8.0)


def test_a_package_that_is_cut_into_dies_counts_each(tmp_path):
    for die in (0, 1):
        write_zone(tmp_path, f"intel-rapl:{die}", f"package-0-die-{die}", microjoules=5 * 10**6)
    assert opened("cpu", tmp_path).read() == (5.0, 5.0)


def test_a_counter_that_wraps_around_goes_on(tmp_path):
    counter = write_zone(
        tmp_path, "intel-rapl:0", "package-0", microjoules=900_000, wraps_at=1_000_000
    )
    sensor = opened("cpu", tmp_path)
    (before,) = sensor.read()
    counter.write_text("300000\n")
    (after,) = sensor.read()
    assert after - before == pytest.approx(0.4)
    assert sensor.read() == (after,)


@given(
    wraps_at=st.integers(10, 10**12),
    steps=st.lists(st.floats(0.0, 1.0, exclude_max=True), max_size=10),
    start=st.floats(0.0, 1.0, exclude_max=True),
)
def test_a_counter_never_falls_however_often_it_wraps(wraps_at, steps, start):
    with tempfile.TemporaryDirectory() as root:
        true = int(start * wraps_at)
        counter = write_zone(
            Path(root), "intel-rapl:0", "package-0", microjoules=true, wraps_at=wraps_at
        )
        sensor = opened("cpu", Path(root))
        for step in steps:
            true += int(step * wraps_at)
            counter.write_text(str(true % wraps_at))
            assert sensor.read() == (true / 1e6,)


def test_each_socket_wraps_by_itself(tmp_path):
    first = write_zone(tmp_path, "intel-rapl:0", "package-0", microjoules=9, wraps_at=10)
    write_zone(tmp_path, "intel-rapl:1", "package-1", microjoules=9, wraps_at=1000)
    sensor = opened("cpu", tmp_path)
    first.write_text("2")
    assert sensor.read() == pytest.approx((12e-6, 9e-6))


@pytest.mark.parametrize("present", [True, False])
def test_a_missing_domain_is_named_with_what_may_be_the_cause(tmp_path, present):
    if present:
        write_zone(tmp_path, "intel-rapl:0", "package-0")
    with pytest.raises(SensorError, match=f"{tmp_path} has no dram zone: the processor has no"):
        Rapl("dram", tmp_path / "." if present else tmp_path).open()


def test_denied_permission_says_how_to_get_it(public):
    server(public)["intel-rapl:1"].chmod(0o400 if os.geteuid() == 0 else 0)
    with ordinary_user():
        with pytest.raises(SensorError) as caught:
            opened("cpu", public)
        assert opened("dram", public).read() == (7.0, 8.0)
    assert str(caught.value) == (
        f"no permission to read {public}/intel-rapl:1/energy_uj: since Linux 5.10 only root may "
        f"(CVE-2020-8694); until the next boot `sudo chmod a+r {public}/intel-rapl:*/*energy*_uj` "
        "lets everyone"
    )


def test_the_command_that_it_names_helps(public):
    for file in server(public).values():
        for each in (file, file.parent / "max_energy_range_uj"):
            each.chmod(0o400 if os.geteuid() == 0 else 0)
    with ordinary_user(), pytest.raises(SensorError) as caught:
        opened("cpu", public)
    command = str(caught.value).split("`")[1].removeprefix("sudo ")
    assert os.system(command) == 0
    with ordinary_user():
        assert opened("cpu", public).read() == (100.0, 30.0)


def test_without_permission_the_monitor_estimates_and_says_why(public):
    for file in server(public).values():
        file.chmod(0o400 if os.geteuid() == 0 else 0)
    clock = ReplayedClock()
    sensors = [Rapl("cpu", public), Rapl("dram", public)]
    monitor = EnergyMonitor("cpu", sensors=sensors, clock=clock, cpu_watts=(10, 30))
    with ordinary_user(), monitor:
        clock.sleep(2.0)
    cpu, dram, total = monitor.readings
    assert (cpu.gross.quality, cpu.gross.value) == ("estimated", 20.0)
    assert cpu.notes[0].startswith("RAPL package: no permission to read ")
    assert dram.gross.value is None
    assert dram.gross.method.startswith("RAPL dram: no permission to read ")
    assert (total.gross.quality, total.gross.value) == ("estimated", 20.0)


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_what_is_no_number_is_refused(tmp_path, file):
    write_zone(tmp_path, "intel-rapl:0", "package-0")
    (tmp_path / "intel-rapl:0" / file).write_text("-1\n")
    with pytest.raises(SensorError, match=rf"{file} holds '-1'; expected microjoules"):
        opened("cpu", tmp_path)


def test_a_counter_that_vanishes_midway_is_told(tmp_path):
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0")
    sensor = opened("cpu", tmp_path)
    counter.unlink()
    with pytest.raises(SensorError, match="energy_uj cannot be read: No such file or directory"):
        sensor.read()


def test_a_window_over_a_wrap_around_is_measured(tmp_path):
    clock = ReplayedClock()
    wraps_at = 262_143_328_850
    counter = write_zone(
        tmp_path, "intel-rapl:0", "package-0", microjoules=wraps_at - 10**7, wraps_at=wraps_at
    )

    class MovedRapl(Rapl):
        """The zone's file moves with the replayed clock: 50 W, in ticks of a millisecond."""

        def read(self) -> tuple[float, ...]:
            microjoules = wraps_at - 10**7 + int(clock.time * 1000) * 50_000
            counter.write_text(str(microjoules % wraps_at))
            return super().read()

    with EnergyMonitor("cpu", sensors=[MovedRapl("cpu", tmp_path)], clock=clock) as monitor:
        clock.sleep(4.0)
    figure = monitor.readings[0].gross
    assert figure.quality == "measured"
    assert figure.value == pytest.approx(200.0, rel=0.01)
    assert figure.low <= 200.0 <= figure.high
