"""NVML's sensors over a replayed library: which one serves, what marks it, that it is let go."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from replayed_energy import Power, ReplayedClock, ReplayedNvml, ReplayedNvmlError

from llmrec_kernels.profiler.energy import EnergyMonitor
from llmrec_kernels.profiler.energy.nvml import NvmlEnergy, NvmlPower, gpu_state
from llmrec_kernels.profiler.energy.sensor import SensorError

GPU = torch.device("cuda", 0)
NOT_SUPPORTED = ReplayedNvmlError(ReplayedNvml.NVML_ERROR_NOT_SUPPORTED)
LOST = ReplayedNvmlError(15)


@pytest.fixture
def replay(monkeypatch):
    """Puts a replayed library in the place of pynvml, and a GPU in that of torch's."""

    def put(nvml: ReplayedNvml) -> ReplayedNvml:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="replayed")
        )
        return nvml

    return put


def opened(sensor_type):
    sensor = sensor_type(GPU)
    sensor.open()
    return sensor


def test_the_counter_is_in_joules(replay):
    nvml = replay(ReplayedNvml(energy=1_234_567))
    sensor = opened(NvmlEnergy)
    assert sensor.read() == (1234.567,)
    sensor.close()
    assert nvml.sessions == 0


def test_instant_power_is_preferred_and_in_watts(replay):
    replay(ReplayedNvml(instant_power=123_456, power=7))
    sensor = opened(NvmlPower)
    assert (sensor.method, sensor.read()) == ("NVML instant power", (123.456,))


def test_without_instant_power_the_usual_one_serves_and_says_what_it_is(replay):
    replay(ReplayedNvml(instant_power=NOT_SUPPORTED, power=65_432))
    sensor = opened(NvmlPower)
    assert sensor.read() == (65.432,)
    assert sensor.method == "NVML power, since Ampere the average of a second"


def test_a_gpu_without_a_counter_says_so_and_holds_nothing(replay):
    nvml = replay(ReplayedNvml(energy=NOT_SUPPORTED))
    with pytest.raises(SensorError, match="nvmlDeviceGetTotalEnergyConsumption: error 3"):
        opened(NvmlEnergy)
    assert (nvml.started, nvml.sessions) == (1, 0)


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (None, "NVML needs `pip install nvidia-ml-py`"),
        (ReplayedNvml(starts=ReplayedNvmlError(12)), "NVML does not start: error 12"),
        (ReplayedNvml(uuid="another"), "nvmlDeviceGetHandleByUUID: error 6"),
    ],
)
def test_a_library_that_is_missing_does_not_start_or_has_not_the_gpu_is_a_reason(
    replay, nvml, reason
):
    replay(nvml)
    with pytest.raises(SensorError) as caught:
        opened(NvmlEnergy)
    assert str(caught.value) == reason
    assert nvml is None or nvml.sessions == 0


@pytest.mark.parametrize("reason", [AssertionError("no CUDA in this build\nat all"), RuntimeError])
def test_a_gpu_that_torch_does_not_know_is_a_reason(replay, monkeypatch, reason):
    nvml = replay(ReplayedNvml())

    def refuse(device):
        raise reason

    monkeypatch.setattr(torch.cuda, "get_device_properties", refuse)
    with pytest.raises(SensorError, match=r"^torch does not know cuda:0: no (CUDA in|reason)"):
        opened(NvmlEnergy)
    assert nvml.started == 0


def test_a_slice_is_measured_as_the_whole_gpu_and_marked(replay):
    replay(ReplayedNvml(slices=True, energy=5000))
    sensor = opened(NvmlEnergy)
    assert sensor.read() == (5.0,)
    assert sensor.notes() == ["MIG: the energy is that of the whole GPU, and not of the slice"]


def test_a_gpu_in_mig_mode_is_marked(replay):
    replay(ReplayedNvml(mig_mode=(1, 1)))
    assert [note[:4] for note in opened(NvmlEnergy).notes()] == ["MIG:"]


def test_a_gpu_with_processes_of_others_is_marked(replay):
    replay(ReplayedNvml(processes=(os.getpid(), os.getpid() + 1)))
    assert opened(NvmlEnergy).notes() == [
        "shared: other processes compute on the GPU, and their energy is in it"
    ]


@pytest.mark.parametrize("process", [os.getpid(), os.getpid() + 1], ids=["own", "perhaps"])
def test_a_gpu_of_ones_own_or_perhaps_has_no_notes(replay, process):
    replay(ReplayedNvml(processes=(process,), mig_mode=NOT_SUPPORTED))
    assert opened(NvmlEnergy).notes() == []


@pytest.mark.parametrize(
    ("processes", "shared"),
    [
        ((), False),
        ((os.getpid(),), False),
        ((os.getpid(), os.getpid() + 1), True),
        ((os.getpid() + 1, os.getpid() + 2), True),
        ((os.getpid() + 1,), None),  # this process by its number outside of a container, perhaps
        (NOT_SUPPORTED, None),
    ],
)
def test_whether_others_compute_is_yes_no_or_not_known(replay, processes, shared):
    replay(ReplayedNvml(processes=processes))
    assert gpu_state(0)["shared"] is shared


@pytest.mark.parametrize(
    ("mode", "mig"), [((0, 1), False), ((1, 0), True), (NOT_SUPPORTED, False), (LOST, None)]
)
def test_whether_it_is_cut_into_slices_is_yes_no_or_not_known(replay, mode, mig):
    replay(ReplayedNvml(mig_mode=mode))
    assert gpu_state(0)["mig"] is mig


def test_the_state_is_what_the_gpu_tells(replay):
    nvml = replay(ReplayedNvml(throttles=0x1 | 0x4 | 0x40))
    assert gpu_state(0) == {
        "uuid": "replayed",
        "driver": "580.65.06",
        "sm_mhz": 1980,
        "memory_mhz": 2619,
        "celsius": 41,
        "mig": False,
        "shared": False,
        "throttles": ["power cap", "hardware thermal slowdown"],
    }
    assert (nvml.started, nvml.sessions) == (1, 0)


def test_the_newer_name_of_the_throttle_reasons_comes_first(replay):
    nvml = replay(ReplayedNvml(throttles=0x80))
    nvml.nvmlDeviceGetCurrentClocksEventReasons = lambda handle: 0x20
    assert gpu_state(0)["throttles"] == ["software thermal slowdown"]


def test_what_the_gpu_does_not_tell_is_none(replay):
    nvml = replay(
        ReplayedNvml(
            clocks=LOST, celsius=LOST, throttles=LOST, processes=LOST, mig_mode=LOST, driver=LOST
        )
    )
    state = gpu_state(0)
    assert state.pop("uuid") == "replayed"
    assert set(state.values()) == {None}
    assert nvml.sessions == 0


def test_without_a_gpu_the_state_is_not_known():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert set(gpu_state(0).values()) == {None}


def measured(nvml, clock, seconds=10.0, **arguments):
    with EnergyMonitor("cuda", clock=clock, cpu_watts=(1, 2), **arguments) as monitor:
        clock.sleep(seconds)
    assert nvml.sessions == 0
    (gpu,) = (reading for reading in monitor.readings if reading.component == "gpu")
    return gpu


def counted(clock, watts, stops=float("inf")):
    """A counter of millijoules with a tick each 0.1 s, until it stops."""
    return lambda: int(watts * 1000 * (min(clock.time, stops) // 0.1) * 0.1)


def test_the_counter_gives_the_figure_and_no_other_source_is_in_it(replay):
    clock = ReplayedClock()
    nvml = replay(ReplayedNvml(energy=counted(clock, 300.0), power=1, instant_power=1))
    gpu = measured(nvml, clock, gpu_watts=(20, 350))
    assert (gpu.gross.quality, gpu.gross.method) == ("measured", "NVML energy counter")
    assert gpu.gross.value == pytest.approx(3000.0, rel=0.01)
    assert gpu.gross.error < 0.02
    assert gpu.notes == []
    assert nvml.started == 2  # the counter and the power


def test_a_gpu_older_than_the_counter_has_its_power_integrated(replay):
    clock = ReplayedClock()
    power = Power([(4.0, 100.0), (1.0, 300.0)])
    nvml = replay(
        ReplayedNvml(energy=NOT_SUPPORTED, instant_power=lambda: power.watts(clock.time) * 1000)
    )
    gpu = measured(nvml, clock)
    assert gpu.gross.quality == "integrated"
    assert gpu.gross.value == pytest.approx(4 * 100 + 6 * 300, rel=0.01)
    assert gpu.gross.method.startswith("NVML instant power, ")
    assert gpu.notes[0] == ("NVML energy counter: nvmlDeviceGetTotalEnergyConsumption: error 3")


def test_a_counter_that_stalls_leaves_the_figure_to_the_power(replay):
    clock = ReplayedClock()
    nvml = replay(
        ReplayedNvml(
            energy=counted(clock, 300.0, stops=4.0),
            instant_power=lambda: 250_000 + int(clock.time),
        )
    )
    gpu = measured(nvml, clock)
    assert gpu.gross.quality == "integrated"
    assert gpu.gross.value == pytest.approx(2500.0, rel=0.001)
    assert gpu.notes[-1] == "NVML energy counter: the counter stalls: no tick in 1 s"


def test_a_gpu_that_is_lost_midway_leaves_the_estimate_and_every_handle_is_released(replay):
    clock = ReplayedClock()

    def energy():
        if clock.time > 5.0:
            raise LOST
        return int(clock.time * 1e6)

    nvml = replay(ReplayedNvml(energy=energy, instant_power=energy))
    gpu = measured(nvml, clock, gpu_watts=(20, 350))
    assert (gpu.gross.quality, gpu.gross.value) == ("estimated", 1850.0)
    assert (gpu.gross.low, gpu.gross.high) == (200.0, 3500.0)
    assert [note.split(": ", 1)[1] for note in gpu.notes] == [
        "nvmlDeviceGetTotalEnergyConsumption: error 15",
        "nvmlDeviceGetFieldValues: error 15",
    ]
    assert (nvml.started, nvml.sessions) == (2, 0)


def test_every_handle_is_released_when_the_work_raises(replay):
    clock = ReplayedClock()
    nvml = replay(ReplayedNvml(energy=counted(clock, 300.0)))

    def work():
        with EnergyMonitor("cuda", clock=clock):
            assert nvml.sessions == 2
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert (nvml.started, nvml.sessions) == (2, 0)


def test_without_sensors_and_watts_a_gpu_has_no_figure_and_not_0(replay):
    nvml = replay(None)
    clock = ReplayedClock()
    with EnergyMonitor("cuda", clock=clock) as monitor:
        clock.sleep(1.0)
    gpu, total = monitor.readings[-2:]
    assert nvml is None
    assert gpu.gross.value is None
    assert gpu.gross.method == (
        "NVML energy counter: NVML needs `pip install nvidia-ml-py`; "
        "NVML power: NVML needs `pip install nvidia-ml-py`; estimate: gpu_watts is not given"
    )
    assert "gpu: NVML" in total.gross.method


def test_the_replay_has_the_names_and_numbers_of_the_library():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for name in dir(ReplayedNvml):
        if name.startswith("NVML_"):
            assert getattr(pynvml, name) == getattr(ReplayedNvml, name)
        elif name.startswith("nvml"):
            assert callable(getattr(pynvml, name))
    assert callable(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    assert pynvml.NVMLError(3).value == pynvml.NVML_ERROR_NOT_SUPPORTED
