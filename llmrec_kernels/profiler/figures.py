"""A number with what makes it worth reading: its unit, where it comes from, and its interval."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

Quality = Literal["measured", "integrated", "estimated", "modelled", "unavailable"]


class Model(BaseModel):
    """What a report is made of: fixed once it is made, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(Model):
    """One number of a report.

    Parameters
    ----------
    value
        The number, in `unit`; None where it is not known, and never 0 for that.
    unit
        Such as "J" or "g CO2e".
    quality
        `measured` by a counter; `integrated` from samples; `estimated` from what the machine is
        known to take; `modelled` from a datasheet, for hardware that is not here; `unavailable`.
    method
        How, in a few words; of an unavailable figure the reason.
    low, high
        Where the true number can be; None where nothing bounds it.

    Examples
    --------
    >>> print(Figure(value=2.0, unit="J", quality="measured", method="RAPL", low=1.9, high=2.1))
    2 J ±5% (measured)
    >>> print(Figure.unavailable("J", "there is no counter"))
    unavailable: there is no counter
    >>> Figure(value=None, unit="J", quality="measured", method="RAPL")
    Traceback (most recent call last):
    ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Figure
      Value error, value is None; expected a number, or quality 'unavailable' ...
    """

    value: float | None = Field(description="the number in `unit`; null where it is not known")
    unit: str = Field(description="unit of the number")
    quality: Quality = Field(description="where the number comes from")
    method: str = Field(description="how it was found; of an unavailable one the reason")
    low: float | None = Field(default=None, description="the least that it can be")
    high: float | None = Field(default=None, description="the most that it can be")

    @model_validator(mode="after")
    def _null_is_unavailable(self) -> Self:
        if (self.value is None) != (self.quality == "unavailable"):
            raise ValueError(
                f"value is {self.value}; expected a number, or quality 'unavailable' "
                f"and None, and quality is {self.quality!r}"
            )
        if self.value is not None and not (
            (self.low is None or self.low <= self.value)
            and (self.high is None or self.value <= self.high)
        ):
            raise ValueError(f"value is {self.value}; expected {self.low} to {self.high}")
        return self

    @classmethod
    def unavailable(cls, unit: str, reason: str) -> Figure:
        """A figure that there is not, and why."""
        return cls(value=None, unit=unit, quality="unavailable", method=reason)

    @property
    def error(self) -> float | None:
        """Relative bound of the error: the further end of the interval over the value."""
        if self.value is None or self.low is None or self.high is None or self.value == 0:
            return None
        return max(self.high - self.value, self.value - self.low) / abs(self.value)

    def times(self, factor: float, unit: str) -> Figure:
        """The figure in another unit, or of more work.

        Examples
        --------
        >>> energy = Figure(value=7.2e6, unit="J", quality="measured", method="RAPL")
        >>> print(energy.times(1 / 3.6e6, "kWh"))
        2 kWh (measured)
        """
        if self.value is None:
            return self.model_copy(update={"unit": unit})
        return self.model_copy(
            update={
                "value": self.value * factor,
                "low": None if self.low is None else self.low * factor,
                "high": None if self.high is None else self.high * factor,
                "unit": unit,
            }
        )

    def __str__(self) -> str:
        if self.value is None:
            return f"unavailable: {self.method}"
        bound = "" if self.error is None else f" ±{self.error:.0%}"
        return f"{self.value:.4g} {self.unit}{bound} ({self.quality})"
