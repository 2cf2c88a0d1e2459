"""How an operator enters torch: schema, reference, fake kernel and cost in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from llmrec_kernels import cost
from llmrec_kernels._library import library


def define(
    name: str,
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    formula: cost.Formula,
    differentiable: bool = False,
) -> None:
    """Define `llmrec::name`, and `llmrec::<name>_reference` that never leaves plain torch.

    The reference is the composite kernel, so that the op exists with no compiled code; the
    extension's kernels override it on their devices.

    Parameters
    ----------
    name
        The operator's name, with its overload after a dot where it has one.
    schema
        Arguments and results, as `torch.library` writes them.
    reference, fake
        The readable implementation, and the one that computes shapes alone.
    formula
        What a call costs.
    differentiable
        Whether `torch.library.register_autograd` follows. Where it does not, the op passes
        through autograd and its result needs no gradient.
    """
    for suffix in ("", "_reference"):
        enter(name, suffix, schema, reference, fake, formula, differentiable)


def enter(
    name: str,
    suffix: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    formula: cost.Formula,
    differentiable: bool,
) -> None:
    """Define one more operator of this schema: `define` says what the arguments are."""
    base, _, overload = name.partition(".")
    full = base + suffix + (f".{overload}" if overload else "")
    library.define(full + schema)
    library.impl(full, _plain(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(f"llmrec::{full}", fake, lib=library)
    if not differentiable:
        library.impl(full, torch.library.fallthrough_kernel, "Autograd")
    if not overload:
        cost.register(getattr(torch.ops.llmrec, base + suffix), formula)


def first_order_only(name: str) -> None:
    """Refuse, in words, to differentiate a gradient: it would be dropped in silence otherwise."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(f"{name} has no second derivative (create_graph=True)")

    for suffix in ("", "_reference"):
        torch.library.register_autograd(f"llmrec::{name}{suffix}", refuse, lib=library)


def _plain(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference without gradients, and without autocast, which would round inside it."""

    @functools.wraps(reference)
    def run(*arguments: Any) -> Any:
        device = next(a.device.type for a in arguments if isinstance(a, torch.Tensor))
        with torch.no_grad(), torch.autocast(device, enabled=False):
            return reference(*arguments)

    return run
