"""A network, its optimiser and one step of them.

A step takes `accumulate` batches. The loss of each is a mean, so it counts by its share of the
step's examples: the gradient is that of one batch as large, also where the last batch is shorter.

Steps that are too long can leave weights that are finite and lost. So the loss of the very first
batch, with what was drawn for it, is worked out anew when an epoch is done: weights with which it
is much worse than before the first step are no good ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import xxhash
from torch import Tensor, nn

from llmrec_kernels.training.checkpoint import Same
from llmrec_kernels.training.interrupt import Interrupt
from llmrec_kernels.training.options import Training
from llmrec_kernels.training.processes import processes
from llmrec_kernels.training.task import Task

_WORSE = 10.0  # times the size of the first loss, and one more: so much worse is no learning
_MANY = 1 << 20  # parameters from which on the fused AdamW, 3 times as fast, pays for its threads


class Step(NamedTuple):
    """What came of a step."""

    loss: float  # the mean over its examples
    norm: float  # of the gradient, before it is clipped
    interrupted: bool  # whether a process was asked to stop

    @property
    def finite(self) -> bool:
        """Whether the weights were changed by it."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Learner:
    """A task's network with its optimiser."""

    def __init__(
        self, task: Task, training: Training, groups: list[dict[str, Any]] | None = None
    ) -> None:
        self.task = task
        self.training = training
        self.network = task.network
        self.parameters = _trained(task.network)
        self.device = _device(self.parameters)
        self.processes = processes(self.device)
        self.precision = _precision(training.precision, self.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters if groups is None else _checked(groups, self.parameters),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=_fused(self.parameters),
        )
        self._own_settings = [
            [group["lr"], group["weight_decay"]]
            for group in ([] if groups is None else self.optimizer.param_groups)
        ]

    def order(self, epoch: int) -> Tensor:
        """The examples of an epoch in their order, [size]; the same for one seed."""
        generator = torch.Generator().manual_seed(seed_of(self.training.seed, "order", epoch))
        return torch.randperm(self.task.size, generator=generator)

    def step(self, examples: Tensor, epoch: int, number: int, pressed: Interrupt) -> Step:
        """Learn from some examples, [b]; what is not finite changes nothing."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for turn, batch in enumerate(examples.split(self.training.batch_size)):
            part = self.processes.part(batch)
            if len(part):
                # A seed for each batch, not a generator that goes on: whatever runs in between,
                # and wherever a training goes on from, the same batch draws the same numbers.
                self._seed(epoch, number, turn, self.processes.rank)
                loss += self._learn(part, len(part) / len(examples))
        loss, asked = self.processes.summed([loss, float(pressed.asked)])
        self.processes.sum_gradients(self.parameters)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.training.clip))
        step = Step(loss, norm, asked > 0)
        if step.finite:
            self.optimizer.step()
        return step

    def _learn(self, examples: Tensor, share: float) -> float:
        """Add to the gradient that of the mean loss of examples, and give the loss, by share."""
        with self.casting():
            mean = _scalar(self.task.loss(examples))
        if not mean.requires_grad:
            raise ValueError("the task's loss depends on no parameter that is trained")
        (mean * share).backward()
        return float(mean.detach()) * share

    def first_loss(self) -> float:
        """The loss of this process's part of the very first batch, as it is now."""
        buffers = dict(self.network.named_buffers())
        kept = {name: one.clone() for name, one in self.changing().items() if name in buffers}
        self._seed(0, 0, 0, self.processes.rank)
        with torch.no_grad(), self.casting():
            part = self.processes.part(self.order(0)[: self.training.batch_size])
            loss = float(_scalar(self.task.loss(part)))
            for name, one in kept.items():
                buffers[name].copy_(one)
        return loss

    def lost(self, first: float) -> str | None:
        """Why the weights are no good, by what `first_loss` was before the first step."""
        if not all(bool(one.isfinite().all()) for one in self.parameters):
            return "weights are NaN or infinite"
        now = self.first_loss()
        if now <= first + _WORSE * (abs(first) + 1):
            return None
        return f"the loss of the first batch, {first:.4g} before it was learned from, is {now:.4g}"

    def validate(self) -> float | None:
        """The task's own validation, in eval mode."""
        self.network.eval()
        with torch.no_grad(), self.casting():
            value = self.task.validate()
        self.network.train()
        return None if value is None else float(value)

    def casting(self) -> contextlib.AbstractContextManager[Any]:
        """Products in bfloat16, where that is the precision."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def changing(self) -> dict[str, Tensor]:
        """The tensors of the network that training changes: trained parameters, and buffers."""
        frozen = self._frozen()
        return {name: one for name, one in self.network.state_dict().items() if name not in frozen}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put these values into the network."""
        for name, one in self.changing().items():
            one.copy_(tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, of the network and the optimiser, by name."""
        found = {f"network.{name}": one for name, one in self.changing().items()}
        names = {id(one): name for name, one in self.network.named_parameters()}
        for parameter, values in self.optimizer.state.items():
            for key, value in values.items():
                found[f"optimizer.{key}.{names[id(parameter)]}"] = value
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.put({name: tensors[f"network.{name}"] for name in self.changing()})
        names = {id(one): name for name, one in self.network.named_parameters()}
        numbered = self.optimizer.state_dict()
        places = [one for group in self.optimizer.param_groups for one in group["params"]]
        for place, parameter in enumerate(places):
            values = {
                key: tensors[f"optimizer.{key}.{names[id(parameter)]}"].clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{names[id(parameter)]}" in tensors
            }
            if values:  # none where a parameter has had no gradient yet
                numbered["state"][place] = values
        self.optimizer.load_state_dict(numbered)

    def same(self) -> Same:
        """What a checkpoint must have alike with this."""
        training = self.training
        always = dict(self.task.identity()) | {
            "weights that are not trained": self._digest(),
            "task.size": self.task.size,
            "training.batch_size": training.batch_size,
            "training.accumulate": training.accumulate,
            "training.seed": training.seed,
        }
        changeable = {
            "training.learning_rate": training.learning_rate,
            "training.weight_decay": training.weight_decay,
            "training.clip": training.clip,
            "training.precision": self.precision,
            "parameter_groups": self._own_settings,
        }
        return Same(always, changeable)

    def _frozen(self) -> set[str]:
        named = self.network.named_parameters(remove_duplicate=False)
        return {name for name, one in named if not one.requires_grad}

    def _digest(self) -> str:
        """A checksum of the weights that are not trained."""
        frozen, state = self._frozen(), xxhash.xxh3_64()
        for name, one in self.network.state_dict().items():
            if name in frozen:
                state.update(name.encode())
                state.update(one.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return state.hexdigest()

    def _seed(self, *counts: int) -> None:
        seed = seed_of(self.training.seed, "batch", *counts)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)
        elif self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)


def seed_of(*parts: int | str) -> int:
    """A seed of 64 bits that no other parts share."""
    return xxhash.xxh3_64_intdigest(repr(parts).encode())


@contextlib.contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Give the caller's random numbers back as they were, and draw nothing by chance meanwhile.

    On CPUs the gradient of `vectors[places]` is added up by all threads at once, each sum in the
    order in which they come, unless torch is told to be deterministic.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _deterministic(device):
        yield


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    before = torch.get_deterministic_debug_mode()
    if device.type != "cpu" or before:
        yield
        return
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False  # with NaN, to find faults
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        settings.fill_uninitialized_memory = fills


def _scalar(loss: Tensor) -> Tensor:
    if loss.dim():
        raise ValueError(f"the task's loss has shape {list(loss.shape)}; expected a scalar")
    return loss


def _trained(network: nn.Module) -> list[nn.Parameter]:
    found = [one for one in network.parameters() if one.requires_grad]
    if not found:
        raise ValueError("the network has no parameter that requires a gradient")
    return found


def _device(parameters: list[nn.Parameter]) -> torch.device:
    """Where the work is: heads may be on the CPU above a language model that is not."""
    devices = [one.device for one in parameters]
    return next((one for one in devices if one.type != "cpu"), devices[0])


def _checked(groups: list[dict[str, Any]], trained: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups for the optimiser that have each trained parameter once."""
    listed = [dict(group, params=list(group["params"])) for group in groups]
    count = [id(one) for group in listed for one in group["params"]]
    if sorted(count) != sorted(id(one) for one in trained):
        raise ValueError(
            f"parameter_groups have {len(count)} parameters; expected the {len(trained)} of the "
            "network that require a gradient, each once"
        )
    return listed


def _fused(parameters: list[nn.Parameter]) -> bool:
    """Whether the fused AdamW is the faster one: not where threads cost more than the numbers."""
    kind = parameters[0].device.type
    return kind == "cuda" or (kind == "cpu" and sum(one.numel() for one in parameters) >= _MANY)


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    return "bfloat16" if _has_bfloat16(device) else "float32"


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not public yet
        return any(getattr(torch.cpu, test, lambda: False)() for test in tests)
    return False
