"""EnergyMonitor: each component's best source alone, an honest label, and nothing left open."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from replayed_energy import Power, ReplayedClock, ReplayedSensor, sampling_threads, ticking

from llmrec_kernels.profiler.energy import EnergyMonitor
from llmrec_kernels.profiler.energy.estimate import usable_cpus
from llmrec_kernels.profiler.energy.rapl import Rapl

STEADY = Power([(1.0, 100.0)])


def counter(clock, watts, **arguments):
    """A counter of steady power with a tick each millisecond."""
    return ReplayedSensor(clock, ticking(Power([(1.0, watts)]), every=0.001), **arguments)


def monitor_of(clock, *sensors, seconds=10.0, device="cpu", **arguments):
    """A monitor after a window of these sensors."""
    monitor = EnergyMonitor(device, sensors=sensors, clock=clock, **arguments)
    with monitor:
        clock.sleep(seconds)
    return monitor


def test_a_machine_without_counters_estimates_and_says_unavailable_and_never_0(tmp_path):
    clock = ReplayedClock()
    monitor = monitor_of(clock, Rapl("cpu", tmp_path), Rapl("dram", tmp_path), seconds=2.0)
    cpu, dram, total = monitor.readings
    assert [reading.component for reading in monitor.readings] == ["cpu", "dram", "total"]
    assert cpu.gross.quality == "estimated"
    assert cpu.gross.value == pytest.approx(2 * 0.74 * usable_cpus())
    assert (cpu.gross.low, cpu.gross.high) == pytest.approx(
        (2 * 0.5 * usable_cpus(), 2 * 8.6 * usable_cpus())
    )
    assert (dram.gross.quality, dram.gross.value, dram.net.value) == ("unavailable", None, None)
    assert total.gross.value == cpu.gross.value
    assert total.gross.method == f"cpu, without dram: {dram.gross.method}"


def test_the_machine_itself_gives_a_figure_for_its_cpu():
    with EnergyMonitor("cpu") as monitor:
        sum(range(10**6))
    cpu = monitor.readings[0]
    assert cpu.gross.value > 0
    assert cpu.gross.low <= cpu.gross.value <= cpu.gross.high
    assert cpu.window_seconds > 0


@given(
    idle=st.floats(0.0, 500.0),
    span=st.floats(0.1, 500.0),
    used=st.floats(0.0, 5.0),
    seconds=st.floats(0.1, 100.0),
)
def test_an_estimate_lies_between_idle_and_full_and_grows_with_use(idle, span, used, seconds):
    clock = ReplayedClock()
    full = idle + span
    with EnergyMonitor("cpu", sensors=[], clock=clock, cpu_watts=(idle, full)) as monitor:
        clock.sleep(seconds)
        clock.cpu_time += used * usable_cpus() * seconds
    cpu = monitor.readings[0]
    load = min(1.0, used)
    assert cpu.gross.value == pytest.approx((idle + load * span) * seconds)
    assert (cpu.gross.low, cpu.gross.high) == pytest.approx((idle * seconds, full * seconds))
    assert cpu.net.value == pytest.approx(load * span * seconds, abs=1e-6)
    assert (cpu.net.low, cpu.net.high) == pytest.approx((0.0, span * seconds), abs=1e-6)


def test_an_estimate_names_its_source_and_the_utilisation():
    clock = ReplayedClock()
    with EnergyMonitor("cpu", sensors=[], clock=clock) as default:
        clock.sleep(1.0)
        clock.cpu_time += 0.5 * usable_cpus()
    given_watts = monitor_of(clock, cpu_watts=(10, 65))
    cpus = usable_cpus()
    assert default.readings[0].gross.method == (
        f"{0.74 * cpus:.3g} W idle to {3.5 * cpus:.3g} W full (Cloud Carbon Footprint's average of "
        f"AWS, 2021), 50% utilisation of {cpus} CPUs"
    )
    assert given_watts.readings[0].gross.method.startswith("10 W idle to 65 W full (cpu_watts), 0%")


def test_the_first_source_that_works_gives_the_figure_alone():
    clock = ReplayedClock()
    monitor = monitor_of(clock, counter(clock, 50.0), counter(clock, 70.0, method="another"))
    cpu = monitor.readings[0]
    assert (cpu.gross.method, cpu.gross.quality) == ("replayed counter", "measured")
    assert cpu.gross.value == pytest.approx(500.0, rel=0.01)


def test_the_next_source_serves_where_one_fails_and_the_note_says_why():
    clock = ReplayedClock()
    first = counter(clock, 50.0, fails=(5.0, "unplugged"))
    monitor = monitor_of(clock, first, counter(clock, 70.0, method="another"))
    cpu = monitor.readings[0]
    assert cpu.gross.method == "another"
    assert cpu.gross.value == pytest.approx(700.0, rel=0.01)
    assert cpu.notes == ["replayed counter: unplugged"]


def test_the_total_adds_what_is_known_and_is_as_good_as_its_worst_part():
    clock = ReplayedClock()
    dram = counter(clock, 5.0, component="dram")
    gpu = ReplayedSensor(
        clock, lambda moment: [200.0 + moment % 0.1], component="gpu", unit="W", method="meter"
    )
    both = monitor_of(clock, counter(clock, 50.0), dram).readings[-1]
    assert (both.component, both.gross.quality, both.gross.method) == (
        "total",
        "measured",
        "cpu + dram",
    )
    assert both.gross.value == pytest.approx(550.0, rel=0.01)
    assert both.gross.low <= 550.0 <= both.gross.high
    three = monitor_of(clock, counter(clock, 50.0), dram, gpu, device="cuda").readings[-1]
    assert three.gross.quality == "integrated"
    assert three.gross.value == pytest.approx(2550.0, rel=0.01)
    estimated = monitor_of(clock, dram, gpu, device="cuda").readings[-1]
    assert estimated.gross.quality == "estimated"


def test_readings_come_in_the_order_cpu_dram_gpu_total():
    clock = ReplayedClock()
    gpu = counter(clock, 1.0, component="gpu")
    order = [r.component for r in monitor_of(clock, gpu, device="cuda").readings]
    assert order == ["cpu", "dram", "gpu", "total"]
    assert [r.component for r in monitor_of(clock, gpu).readings] == ["cpu", "dram", "total"]
    assert gpu.opened == 1  # for the first alone


def test_net_is_gross_without_what_the_idle_machine_took():
    clock = ReplayedClock()
    power = Power([(4.0, 20.0), (1.0, 100.0)])
    sensor = ReplayedSensor(clock, ticking(power, every=0.001))
    cpu = monitor_of(clock, sensor, seconds=10.0, idle_seconds=4.0).readings[0]
    assert cpu.gross.value == pytest.approx(1000.0, rel=0.01)
    assert cpu.net.value == pytest.approx(800.0, rel=0.02)
    assert cpu.net.low <= 800.0 <= cpu.net.high
    assert cpu.net.method == "replayed counter, without 20 W of the idle machine"
    assert cpu.window_seconds == pytest.approx(10.0)


def test_without_an_idle_window_net_is_unavailable_and_says_why():
    clock = ReplayedClock()
    net = monitor_of(clock, counter(clock, 50.0)).readings[0].net
    assert (net.value, net.method) == (None, "no idle window was measured")


def test_an_idle_window_that_failed_gives_no_net_but_its_reason():
    clock = ReplayedClock()
    sensor = ReplayedSensor(clock, lambda moment: [0.0 if moment < 0.5 else 50.0 * moment])
    cpu = monitor_of(clock, sensor, idle_seconds=0.02).readings[0]
    assert cpu.gross.value == pytest.approx(500.0, rel=0.01)
    assert cpu.net.method.startswith("in the idle window: no tick")


def test_net_below_0_is_left_as_it_is_with_its_interval():
    clock = ReplayedClock()
    power = Power([(2.0, 60.0), (1.0, 50.0)])
    sensor = ReplayedSensor(clock, ticking(power, every=0.001))
    net = monitor_of(clock, sensor, seconds=4.0, idle_seconds=2.0).readings[0].net
    assert net.value == pytest.approx(-40.0, rel=0.1)
    assert net.low <= -40.0 <= net.high


def test_work_that_raises_leaves_no_reading_and_no_handle():
    clock = ReplayedClock()
    sensor = counter(clock, 50.0)
    monitor = EnergyMonitor("cpu", sensors=[sensor], clock=clock)
    with monitor:
        clock.sleep(1.0)
    assert monitor.readings
    with pytest.raises(KeyError, match="in the work"), monitor:
        raise KeyError("in the work")
    assert monitor.readings == []
    assert not sensor.is_open


def test_no_thread_outlives_the_window():
    def work(monitor):
        with monitor:
            assert len(sampling_threads()) == 1
            raise KeyError

    with EnergyMonitor("cpu"):
        assert len(sampling_threads()) == 1
    assert sampling_threads() == []
    with pytest.raises(KeyError):
        work(EnergyMonitor("cpu"))
    assert sampling_threads() == []


def test_a_window_of_no_length_is_refused_and_lets_go_of_the_sensors():
    clock = ReplayedClock()
    sensor = counter(clock, 50.0)
    monitor = EnergyMonitor("cpu", sensors=[sensor], clock=clock)
    with pytest.raises(ValueError, match="the window is 0 s long; expected more than 0"), monitor:
        pass
    assert monitor.readings == []
    assert not sensor.is_open


def test_a_failure_while_it_opens_lets_go_of_the_sensors():
    clock = ReplayedClock()
    sensor, broken = counter(clock, 50.0), counter(clock, 50.0)

    def interrupt():
        raise KeyboardInterrupt

    broken.open = interrupt
    monitor = EnergyMonitor("cpu", sensors=[sensor, broken], clock=clock)
    with pytest.raises(KeyboardInterrupt):
        monitor.__enter__()
    assert not sensor.is_open
    sensor.open()  # as if the first had never been
    assert sensor.opened == 2


def test_entered_again_it_measures_a_new_window():
    clock = ReplayedClock()
    sensor = counter(clock, 50.0)
    monitor = EnergyMonitor("cpu", sensors=[sensor], clock=clock)
    found = []
    for seconds in (1.0, 3.0):
        with monitor:
            assert monitor.readings == []
            clock.sleep(seconds)
        found.append(monitor.readings[0].gross.value)
    assert found == pytest.approx([50.0, 150.0], rel=0.05)
    assert (sensor.opened, sensor.is_open) == (2, False)


def test_entered_while_it_is_open_it_refuses_and_stays_open():
    monitor = EnergyMonitor("cpu")
    refused = pytest.raises(RuntimeError, match="is open; expected another one inside it")
    with monitor, refused:
        monitor.__enter__()
    assert monitor.readings


def test_one_monitor_within_another_measures_its_own_window():
    with EnergyMonitor("cpu") as outer:
        sum(range(10**5))
        with EnergyMonitor("cpu") as inner:
            sum(range(10**5))
        sum(range(10**5))
    assert outer.readings[0].window_seconds > inner.readings[0].window_seconds
    assert outer.readings[0].gross.high > inner.readings[0].gross.high
    assert sampling_threads() == []


def test_notes_of_a_sensor_are_asked_for_while_it_is_open():
    clock = ReplayedClock()
    monitor = monitor_of(clock, counter(clock, 50.0, note="shared"))
    assert monitor.readings[0].notes == ["shared"]


def test_the_work_of_a_gpu_is_waited_for_at_both_ends(monkeypatch):
    clock = ReplayedClock()
    waits = []

    def wait(device):
        waits.append((str(device), clock.time))
        clock.sleep(1.0)  # what was queued

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    gpu = counter(clock, 300.0, component="gpu")
    reading = monitor_of(clock, gpu, seconds=2.0, device="cuda:1").readings[2]
    assert waits == [("cuda:1", 0.0), ("cuda:1", 3.0)]
    # The second before the window is not in it, and the one at its end is.
    assert reading.window_seconds == pytest.approx(3.0)
    assert reading.gross.value == pytest.approx(900.0, rel=0.05)


def test_no_device_means_the_gpu_that_torch_computes_on(monkeypatch):
    assert [r.component for r in monitor_of(ReplayedClock(), device=None).readings] == [
        "cpu",
        "dram",
        "total",
    ]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    readings = monitor_of(ReplayedClock(), device=None).readings
    assert readings[2].gross.method == "estimate: gpu_watts is not given"


def test_printing_gives_a_line_for_each_component_and_then_the_notes():
    clock = ReplayedClock()
    monitor = monitor_of(clock, counter(clock, 50.0, note="shared"), cpu_watts=(1, 2))
    text = str(monitor)
    assert [line.split()[0] for line in text.splitlines()] == [
        "component",
        "cpu",
        "dram",
        "total",
        "cpu:",
        "cpu:",
        "total:",
    ]
    assert f"cpu         {monitor.readings[0].gross} " in text
    assert "dram        unavailable" in text
    assert "cpu: shared" in text
    assert "cpu: net is unavailable: no idle window was measured" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cpu_watts": (30, 10)}, r"cpu_watts is \(30, 10\); expected \(idle, full\) in watts"),
        ({"cpu_watts": (-1, 10)}, "cpu_watts is .*; expected"),
        ({"cpu_watts": (0, 0)}, "cpu_watts is .* and full above 0"),
        ({"cpu_watts": (1, math.inf)}, "cpu_watts is .*; expected .* finite"),
        ({"gpu_watts": (math.nan, 10)}, "gpu_watts is .*; expected"),
        ({"gpu_watts": (1, 2, 3)}, r"gpu_watts is \(1, 2, 3\); expected"),
        ({"idle_seconds": -1}, "idle_seconds is -1; expected 0 or more, and finite"),
        ({"idle_seconds": math.nan}, "idle_seconds is nan; expected"),
        ({"device": "meta"}, "device is 'meta'; expected 'cpu', 'cuda' or 'cuda:<index>'"),
        ({"device": "toaster"}, "device is 'toaster'; expected"),
    ],
)
def test_bad_arguments_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        EnergyMonitor(**arguments)
