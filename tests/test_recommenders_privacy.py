"""Noisy profiles: the guarantee against integrals, against the classical one, and under attack."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.recommenders.privacy import (
    GaussianProfile,
    delta_of,
    epsilon_of,
    sigma_of,
)

SECRET = b"sixteen bytes or more"
EPSILONS = st.floats(0.01, 20)
DELTAS = st.floats(-11, -1).map(lambda power: 10**power)


def integrated_delta(sigma, epsilon, clip=1.0, releases=1):
    """What P gives to the results where it is above e^epsilon Q, less e^epsilon times Q's part.

    P and Q are the distributions with and without an item along the one direction in which they
    differ; n releases differ along it by sqrt(n) times as much.
    """
    shift = math.sqrt(releases) * clip

    def excess(x):
        p = scipy.stats.norm.pdf(x, shift, sigma)
        return p - math.exp(epsilon) * scipy.stats.norm.pdf(x, 0.0, sigma)

    crossing = shift / 2 + epsilon * sigma**2 / shift
    end = max(crossing, shift) + 12 * sigma
    return scipy.integrate.quad(excess, crossing, end, epsabs=1e-16, epsrel=1e-10, limit=500)[0]


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2, 0.3])
@pytest.mark.parametrize("clip", [1.0, 2.5])
def test_sigma_is_the_least_that_the_integral_allows(epsilon, delta, clip):
    sigma = sigma_of(epsilon, delta, clip)
    assert integrated_delta(sigma, epsilon, clip) == pytest.approx(delta, rel=1e-5)
    assert integrated_delta(sigma * 0.999, epsilon, clip) > delta


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 4.0])
def test_delta_is_the_integral(sigma, epsilon):
    assert delta_of(sigma, epsilon, 1.5) == pytest.approx(
        integrated_delta(sigma, epsilon, 1.5), rel=1e-6, abs=1e-15
    )


@given(EPSILONS, DELTAS, st.floats(0.01, 100))
def test_sigma_epsilon_and_delta_say_the_same(epsilon, delta, clip):
    sigma = sigma_of(epsilon, delta, clip)
    assert epsilon_of(sigma, delta, clip) == pytest.approx(epsilon, rel=1e-6)
    assert delta_of(sigma, epsilon, clip) == pytest.approx(delta, rel=1e-6)


@given(st.floats(0.001, 0.999), DELTAS)
def test_the_classical_mechanism_is_an_upper_bound(epsilon, delta):
    classical = math.sqrt(2 * math.log(1.25 / delta)) / epsilon  # Dwork and Roth, theorem A.1
    assert sigma_of(epsilon, delta) <= classical


@given(EPSILONS, DELTAS)
def test_less_noise_is_never_as_private(epsilon, delta):
    sigma = sigma_of(epsilon, delta)
    assert sigma_of(epsilon * 1.01, delta) < sigma
    assert sigma_of(epsilon, delta * 1.01) < sigma


def test_noise_that_hides_all_but_delta_costs_no_epsilon():
    sigma = 100.0  # delta at epsilon 0 is 2 Phi(1 / 200) - 1
    floor = 2 * scipy.stats.norm.cdf(1 / 200) - 1
    assert epsilon_of(sigma, floor * 1.0001) == 0.0
    assert epsilon_of(sigma, floor * 0.9999) > 0.0


@pytest.mark.parametrize("releases", [1, 2, 30])
def test_releases_cost_what_their_joint_distribution_says(releases):
    private = GaussianProfile(0.7, 1e-6, clip=3.0)
    spent = private.spent(releases)
    joint = integrated_delta(private.sigma, spent, clip=3.0, releases=releases)
    assert joint == pytest.approx(1e-6, rel=1e-5)


def test_extreme_demands_have_an_answer():
    for epsilon, delta in ((1e-8, 1e-12), (1e6, 1e-12), (1e6, 0.999), (1e-8, 0.999)):
        sigma = sigma_of(epsilon, delta)
        assert 0 < sigma < math.inf
        assert delta_of(sigma, epsilon) == pytest.approx(delta, rel=1e-3)
    assert delta_of(1e-3, 1e9) == 0.0
    assert delta_of(1e-3, 0.0) == pytest.approx(1.0)


def released(private, history, n, name):
    keys = [f"{name} {i}".encode() for i in range(n)]
    return private.noisy(torch.tensor(history).sum(0).expand(n, -1), keys).double().numpy()


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.05), (1.0, 0.01), (2.0, 0.1)])
def test_an_attacker_who_knows_all_but_one_item_gains_what_is_promised_and_no_more(epsilon, delta):
    n = 60_000
    private = GaussianProfile(epsilon, delta, secret=SECRET)
    rest = [[0.6, 0.0, 0.8, 0.0], [0.0, 1.0, 0.0, 0.0]]
    one = [0.5, 0.5, 0.5, 0.5]  # the item in question, of length 1
    # The likelihood ratio, the best test there is (Neyman and Pearson), grows along the item.
    without = released(private, rest, n, "without") @ one
    with_it = released(private, [*rest, one], n, "with") @ one
    start = np.sum(np.array(rest) @ one)
    gains = []
    for here, there, sign in ((with_it, without, 1), (without, with_it, -1)):
        for threshold in start + np.linspace(-1, 3, 41) * private.sigma:
            p, q = (np.mean(sign * (side - threshold) > 0) for side in (here, there))
            error = np.sqrt((p * (1 - p) + math.exp(2 * epsilon) * q * (1 - q)) / n)
            gains.append((p - math.exp(epsilon) * q - delta) / max(error, 1 / n))
    # Of 82 tests the largest of N(0, 1) is above 4 once in 400 times; the best test reaches delta.
    assert -4 < max(gains) < 4


def test_noise_is_normal_in_every_dimension_and_independent():
    private = GaussianProfile(1.0, 1e-5, secret=SECRET)
    noise = private.noisy(torch.zeros(4000, 7), [str(i).encode() for i in range(4000)])
    noise = noise.double().numpy() / private.sigma
    for column in noise.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(noise.T) - np.eye(7)).max() < 5 / math.sqrt(4000)
    later = np.abs(np.corrcoef(noise[:-1].T, noise[1:].T)[:7, 7:])
    assert later.max() < 5 / math.sqrt(4000)


NO_NOISE = {"epsilon": 1e9, "delta": 0.5, "secret": SECRET}  # sigma is 2e-5


@given(
    st.lists(
        st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-2, 2)), min_size=1, max_size=6
    ),
    st.floats(0.1, 4),
)
def test_each_contribution_is_cut_to_the_clip(history, clip):
    wanted = np.zeros(2)
    for x, y, weight in history:
        part = weight * np.array([x, y])
        length = np.linalg.norm(part)
        wanted += part * min(1.0, clip / length) if length > 0 else part
    private = GaussianProfile(**NO_NOISE, clip=clip)
    vectors = np.array([[x, y] for x, y, _ in history])
    got = private.release(vectors, [weight for *_, weight in history], b"")
    np.testing.assert_allclose(got, wanted, atol=2e-3 * clip)


def test_the_profile_of_an_empty_history_is_noise_alone():
    private = GaussianProfile(1.0, 1e-5, secret=SECRET)
    empty = private.release(torch.empty(0, 5), [], b"ann")
    assert torch.equal(empty, private.noisy(torch.zeros(1, 5), [b"ann"])[0])
    assert empty.abs().min() > 0


def test_one_history_and_many_get_the_same_noise():
    private = GaussianProfile(1.0, 1e-5, secret=SECRET)
    vectors = torch.tensor([[0.0, 0.5], [0.25, 0.0]])
    alone = private.release(vectors, [1.0, 2.0], b"ann")
    sums = torch.tensor([[9.0, 9.0], [0.5, 0.5]])
    assert torch.equal(private.noisy(sums, [b"bob", b"ann"])[1], alone)


def test_asking_twice_reveals_nothing_new_also_after_a_restart():
    sums = torch.tensor([[0.5, -0.0]])
    first = GaussianProfile(1.0, 1e-5, secret=SECRET).noisy(sums, [b"ann"])
    again = GaussianProfile(1.0, 1e-5, secret=SECRET).noisy(sums.abs(), [b"ann"])
    assert torch.equal(first, again)


def test_another_key_secret_sigma_or_sum_has_noise_of_its_own():
    sums = torch.tensor([[0.5, 0.25, 1.0]])
    private = GaussianProfile(1.0, 1e-5, secret=SECRET)
    answers = [
        private.noisy(sums, [b"ann"])[0] - sums[0],
        private.noisy(sums, [b"bob"])[0] - sums[0],
        private.noisy(sums * 2, [b"ann"])[0] - sums[0] * 2,
        GaussianProfile(1.0, 1e-5, secret=SECRET[::-1]).noisy(sums, [b"ann"])[0] - sums[0],
        GaussianProfile(1.0, 1e-5).noisy(sums, [b"ann"])[0] - sums[0],
        GaussianProfile(1.0, 1e-5).noisy(sums, [b"ann"])[0] - sums[0],
    ]
    answers = [noise / private.sigma for noise in answers]
    loud = GaussianProfile(0.1, 1e-5, secret=SECRET)
    answers.append((loud.noisy(sums, [b"ann"])[0] - sums[0]) / loud.sigma)
    for place, noise in enumerate(answers):
        for other in answers[:place]:
            assert (noise - other).abs().max() > 1e-2


def test_the_secret_is_not_shown():
    private = GaussianProfile(1.0, 1e-5, secret=SECRET)
    assert repr(private) == "GaussianProfile(epsilon=1.0, delta=1e-05, clip=1.0, sigma=3.731)"


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"epsilon": 0}, ValueError, "epsilon is 0.0; expected more than 0"),
        ({"epsilon": -1}, ValueError, "epsilon is -1.0; expected more than 0"),
        ({"epsilon": math.inf}, ValueError, "epsilon is inf; expected a finite number"),
        ({"epsilon": "1"}, TypeError, "epsilon is '1'; expected a number"),
        ({"delta": 0}, ValueError, "delta is 0.0; expected at least 1e-12 and less than 1"),
        ({"delta": 1}, ValueError, "delta is 1.0; expected at least 1e-12 and less than 1"),
        ({"clip": 0}, ValueError, "clip is 0.0; expected more than 0"),
        ({"secret": "password"}, TypeError, "secret is a str; expected bytes"),
        ({"secret": b"short"}, ValueError, "secret has 5 bytes; expected at least 16"),
    ],
)
def test_options_out_of_range_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        GaussianProfile(**{"epsilon": 1.0, "delta": 1e-5, **arguments})


def test_the_formulas_refuse_what_is_no_number_in_range():
    for call in (lambda: delta_of(0, 1), lambda: epsilon_of(0, 1e-5)):
        with pytest.raises(ValueError, match=r"sigma is 0\.0; expected more than 0"):
            call()
    with pytest.raises(ValueError, match=r"epsilon is -1\.0; expected at least 0"):
        delta_of(1, -1)
    with pytest.raises(ValueError, match=r"delta is 2\.0; expected"):
        epsilon_of(1, 2)
    with pytest.raises(ValueError, match="releases is 0; expected at least 1"):
        GaussianProfile(1, 1e-5).spent(0)


def test_bad_histories_are_refused():
    private = GaussianProfile(1.0, 1e-5)
    with pytest.raises(ValueError, match=r"weights has shape \[1\]; expected \[2\]"):
        private.release(torch.eye(2), [1.0], b"ann")
    with pytest.raises(ValueError, match="vectors times weights holds NaN or Inf in row 1"):
        private.release(torch.eye(2), [1.0, math.nan], b"ann")
    with pytest.raises(ValueError, match="sums holds NaN or Inf in row 0"):
        private.noisy(torch.full((1, 2), torch.inf), [b"ann"])
    with pytest.raises(ValueError, match="keys has 1 entries; expected 2"):
        private.noisy(torch.eye(2), [b"ann"])
    with pytest.raises(TypeError, match="keys holds 'ann' at entry 0; expected bytes"):
        private.noisy(torch.eye(1), ["ann"])
    with pytest.raises(TypeError, match="keys is b'ann'; expected a list of bytes"):
        private.noisy(torch.eye(3), b"ann")
    with pytest.raises(ValueError, match=r"vectors has shape \[2\]; expected \[m, d\]"):
        private.release(torch.ones(2), [1.0], b"ann")
