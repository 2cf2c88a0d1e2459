"""Profiles under differential privacy: clipped sums with Gaussian noise.

A profile here is a sum over the items of a history, weight times vector, in which no item counts
more than a length of `clip`. Of two histories that differ in one item, added or removed, the sums
therefore differ by at most `clip`. To the sum comes noise from N(0, sigma^2 I); then no one who
sees the result can tell the two histories apart: whatever set S of results one looks at,

    P(result in S | one history) <= e^epsilon P(result in S | the other) + delta.

With m = clip / sigma this holds exactly where

    Phi(m / 2 - epsilon / m) - e^epsilon Phi(-m / 2 - epsilon / m) <= delta,

Phi being the normal distribution function (Balle and Wang, "Improving the Gaussian Mechanism for
Differential Privacy", ICML 2018, theorem 8). It holds for every epsilon, and sigma is smaller than
the classical clip sqrt(2 ln(1.25 / delta)) / epsilon, which is proven for epsilon < 1 only. Of n
results with noise of their own the mean tells as much as all of them, and it is one result with
noise of sigma / sqrt(n): that is what n releases of a profile cost.

What the guarantee does not cover. The weight of an item must not depend on the other items (as it
does where weights are divided by their sum). Where one item may be replaced by another, sums
differ by 2 clip. Items left out because a user has seen them are seen in the answer, noise or not.
And numbers on a computer are no real numbers: that the last bits of a noisy number can betray the
number before it (Mironov, "On significance of the least significant bits for differential
privacy", CCS 2012) is not dealt with here; show ranks or rounded scores to strangers.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.ops import checks

SHORTEST_SECRET = 16  # bytes: 128 bits are beyond guessing
# The noise has 53 bits, and no value beyond 8.5 sigma; that is nothing beside a delta from here.
SMALLEST_DELTA = 1e-12


def delta_of(sigma: float, epsilon: float, clip: float = 1.0) -> float:
    """The smallest delta that holds with an epsilon, for noise of a given size.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise in each dimension.
    epsilon : float
        At least 0.
    clip : float
        The length by which one item can change the sum, in the unit of sigma.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of its range.

    Examples
    --------
    >>> round(delta_of(sigma=1.0, epsilon=1.0), 4)
    0.1269
    """
    ratio = _positive("clip", clip) / _positive("sigma", sigma)
    epsilon = checks.finite_number("epsilon", epsilon)
    if epsilon < 0:
        raise ValueError(f"epsilon is {epsilon}; expected at least 0")
    return _delta(ratio, epsilon)


def epsilon_of(sigma: float, delta: float, clip: float = 1.0) -> float:
    """The smallest epsilon that holds with a delta, for noise of a given size.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise in each dimension.
    delta : float
        From 1e-12, below 1.
    clip : float
        The length by which one item can change the sum, in the unit of sigma.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of its range.

    Examples
    --------
    >>> round(epsilon_of(sigma=3.73, delta=1e-5), 2)
    1.0
    """
    ratio = _positive("clip", clip) / _positive("sigma", sigma)
    delta = _probability(delta)
    if _delta(ratio, 0.0) <= delta:
        return 0.0
    return _smallest(lambda epsilon: _delta(ratio, epsilon) <= delta)


def sigma_of(epsilon: float, delta: float, clip: float = 1.0) -> float:
    """The least noise with which an epsilon and a delta hold.

    Parameters
    ----------
    epsilon : float
        Above 0. Small is private: at 1 a result is at most e times as likely with an item as
        without it, but for `delta`.
    delta : float
        From 1e-12, below 1. The probability with which epsilon may fail; well below one over the
        number of users.
    clip : float
        The length by which one item can change the sum.

    Returns
    -------
    float
        Standard deviation in each dimension, in the unit of `clip`.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of its range.

    Examples
    --------
    >>> round(sigma_of(epsilon=1.0, delta=1e-5), 2)
    3.73
    >>> round(math.sqrt(2 * math.log(1.25 / 1e-5)), 2)  # the classical mechanism
    4.84
    """
    epsilon, clip = _positive("epsilon", epsilon), _positive("clip", clip)
    delta = _probability(delta)
    return clip * _smallest(lambda sigma: _delta(1.0 / sigma, epsilon) <= delta)


class GaussianProfile:
    """Sums of clipped vectors with noise that hides each single item of a history.

    The noise is a function of a secret, a key and the sum itself. The same history with the same
    key thus gets the same answer again, and asking twice reveals nothing new; another history,
    another key or another `sigma` gets noise of its own, and is one more release (`spent`). Two
    answers that are equal do tell that nothing changed between them: where that matters too,
    publish at fixed times, with the time in the key.

    Parameters
    ----------
    epsilon : float
        Above 0.
    delta : float
        From 1e-12, below 1.
    clip : float
        The length to which each item's contribution is cut.
    secret : bytes, optional
        At least 16 random bytes, for answers that are the same after a restart. Who knows it can
        take the noise away again: keep it as a password, and not beside the model. By default the
        operating system draws one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range.

    Examples
    --------
    >>> private = GaussianProfile(epsilon=1.0, delta=1e-5, secret=bytes(16))
    >>> round(private.sigma, 2)
    3.73
    >>> round(private.spent(releases=4), 2)
    2.15
    >>> history = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> once, again = (private.release(history, [1.0, 0.5], key=b"ann") for _ in range(2))
    >>> once.shape, torch.equal(once, again)
    (torch.Size([2]), True)
    """

    def __init__(
        self, epsilon: float, delta: float, *, clip: float = 1.0, secret: bytes | None = None
    ) -> None:
        self.sigma = sigma_of(epsilon, delta, clip)
        self.epsilon, self.delta, self.clip = float(epsilon), float(delta), float(clip)
        if secret is None:
            secret = secrets.token_bytes(32)
        if not isinstance(secret, bytes):
            raise TypeError(f"secret is a {type(secret).__name__}; expected bytes")
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(
                f"secret has {len(secret)} bytes; expected at least {SHORTEST_SECRET}, such as "
                "secrets.token_bytes(32)"
            )
        self._secret = secret

    def __repr__(self) -> str:
        return (
            f"GaussianProfile(epsilon={self.epsilon}, delta={self.delta}, clip={self.clip}, "
            f"sigma={self.sigma:.4g})"
        )

    def spent(self, releases: int) -> float:
        """The epsilon, at the same delta, of several releases of one user's profile together.

        Parameters
        ----------
        releases : int
            At least 1; the same answer given again is none.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If it is no integer of at least 1.

        Examples
        --------
        >>> private = GaussianProfile(epsilon=0.5, delta=1e-6)
        >>> [round(private.spent(n), 2) for n in (1, 10, 100)]
        [0.5, 1.73, 6.26]
        """
        releases = checks.positive_int("releases", releases)
        return epsilon_of(self.sigma / math.sqrt(releases), self.delta, self.clip)

    def release(self, vectors: Any, weights: Any, key: bytes) -> Tensor:
        """A noisy profile of one history.

        Parameters
        ----------
        vectors : array, [m, d]
            Of the items; without any the result is noise alone.
        weights : list or array, [m]
            Each may depend on its own item, such as on its rating, and on no other.
        key : bytes
            Whose profile it is, and for which purpose or time.

        Returns
        -------
        Tensor, [d] float32
            The sum of weight times vector, each cut to a length of `clip`, and noise.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or shape, or a number is not finite.

        Examples
        --------
        >>> private = GaussianProfile(epsilon=1e5, delta=0.5, secret=bytes(16))  # hardly any noise
        >>> private.release(torch.tensor([[30.0, 40.0]]), [1.0], key=b"ann").round(decimals=1)
        tensor([0.6000, 0.8000])
        """
        rows = checks.float_array("vectors", vectors, "[m, d]").detach().cpu().double()
        scale = torch.as_tensor(weights, dtype=torch.float64, device="cpu")
        if scale.shape != rows.shape[:1]:
            raise ValueError(
                f"weights has shape {list(scale.shape)}; expected [{rows.shape[0]}], one for each "
                "vector"
            )
        parts = rows * scale[:, None]
        _finite("vectors times weights", parts)
        lengths = parts.norm(dim=1, keepdim=True)
        return self.noisy((parts * (self.clip / lengths).clamp(max=1.0)).sum(0)[None], [key])[0]

    def noisy(self, sums: Any, keys: Sequence[bytes]) -> Tensor:
        """Noisy profiles of many histories, of sums that the caller made.

        Parameters
        ----------
        sums : array, [B, d]
            Each of contributions of a length of at most `clip`: with vectors of length 1 and
            weights of at most `clip`, a plain weighted sum. Not divided by anything that depends
            on the history.
        keys : sequence of bytes, [B]
            Whose each is.

        Returns
        -------
        Tensor, [B, d] float32

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or shape, or a number is not finite.

        Examples
        --------
        >>> private = GaussianProfile(epsilon=1.0, delta=1e-5, secret=bytes(16))
        >>> both = private.noisy(torch.zeros(2, 3), [b"ann", b"bob"])
        >>> torch.equal(both[:1], private.noisy(torch.zeros(1, 3), [b"ann"]))
        True
        """
        rows = checks.float_array("sums", sums, "[B, d]").detach().cpu().float()
        _finite("sums", rows)
        if isinstance(keys, bytes | str):
            raise TypeError(f"keys is {keys!r}; expected a list of bytes, one for each sum")
        for entry, key in enumerate(keys):
            if not isinstance(key, bytes):
                raise TypeError(f"keys holds {key!r} at entry {entry}; expected bytes")
        if len(keys) != rows.shape[0]:
            raise ValueError(f"keys has {len(keys)} entries; expected {rows.shape[0]}, as sums has")
        noise = self._noise((rows + 0.0).numpy(), keys)  # -0.0 is the same sum as 0.0
        return (rows.double() + self.sigma * torch.from_numpy(noise)).float()

    def _noise(self, sums: NDArray[np.float32], keys: Sequence[bytes]) -> NDArray[np.float64]:
        """From N(0, 1), [B, d], by Box and Muller's rule of the bits of SHAKE-256.

        A cryptographic stream: to know the noise of some answers helps with no other. The sum is
        in it so that two sums never share noise, which their difference would be free of, and
        sigma so that no two sizes do.
        """
        count, dim = sums.shape
        pairs = (dim + 1) // 2
        start = self._secret + struct.pack("<d", self.sigma)
        streams = [
            hashlib.shake_256(
                start + struct.pack("<q", len(key)) + key + row.astype("<f4").tobytes()
            ).digest(16 * pairs)
            for row, key in zip(sums, keys, strict=True)
        ]
        bits = np.frombuffer(b"".join(streams), dtype="<u8").reshape(count, 2, pairs)
        uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
        radius = np.sqrt(-2.0 * np.log(1.0 - uniform[:, 0]))
        angle = 2.0 * np.pi * uniform[:, 1]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :dim]


def _delta(ratio: float, epsilon: float) -> float:
    """The formula above for m = `ratio`, in logarithms: neither part may overflow or vanish."""
    ends = [ratio / 2 - epsilon / ratio, -ratio / 2 - epsilon / ratio]
    upper, lower = torch.special.log_ndtr(torch.tensor(ends, dtype=torch.float64)).tolist()
    if math.isinf(upper):
        return 0.0
    return -math.exp(upper) * math.expm1(min(epsilon + lower - upper, 0.0))


def _smallest(holds: Callable[[float], bool]) -> float:
    """The smallest positive number for which something holds that holds for all larger ones."""
    low = high = 1.0
    while not holds(high):
        high *= 2.0
    while holds(low):
        low /= 2.0
    while low < (middle := (low + high) / 2.0) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _positive(name: str, value: Any) -> float:
    number = checks.finite_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} is {number}; expected more than 0")
    return number


def _probability(delta: Any) -> float:
    number = checks.finite_number("delta", delta)
    if not SMALLEST_DELTA <= number < 1:
        raise ValueError(f"delta is {number}; expected at least {SMALLEST_DELTA} and less than 1")
    return number


def _finite(name: str, rows: Tensor) -> None:
    bad = ~rows.isfinite().all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"{name} holds NaN or Inf in row {row}; expected finite numbers")
