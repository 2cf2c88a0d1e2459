"""Attributes that are worked out when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Holder = TypeVar("Holder")
Value = TypeVar("Value")


class lazy(Generic[Holder, Value]):  # noqa: N801 - used as `property` is
    """`functools.cached_property` without a lock.

    Before Python 3.12 that has one for all instances: a thread that verifies a file would hold up
    the searches of every index. Two threads may work out the same here, and either may be kept.
    """

    def __init__(self, make: Callable[[Holder], Value]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: Any) -> lazy[Holder, Value]: ...
    @overload
    def __get__(self, instance: Holder, owner: Any) -> Value: ...
    def __get__(self, instance: Holder | None, owner: Any) -> Value | lazy[Holder, Value]:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value
