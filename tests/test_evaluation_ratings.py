"""evaluate_ratings(): errors of all ratings, intervals over users, and answers that are none."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import compare_paired, evaluate_ratings, random_split


def predicts(function):
    return SimpleNamespace(predict=function)


TEST = pd.DataFrame(
    {"user": ["b", "a", "b"], "item": [7, 7, 8], "rating": [4.0, 1.0, 2.0]}, index=[5, 3, 9]
)


def test_errors_are_those_of_scikit_learn_on_movielens():
    train, test = random_split(movielens_100k().interactions, seed=1)
    means, mean = train.groupby("item").rating.mean(), train.rating.mean()
    predicted = test.item.map(means).fillna(mean).to_numpy()
    report = evaluate_ratings(
        predicts(lambda users, items: pd.Series(items).map(means).fillna(mean)), test
    )
    squared = sklearn.metrics.root_mean_squared_error(test.rating, predicted)
    absolute = sklearn.metrics.mean_absolute_error(test.rating, predicted)
    assert report["RMSE"] == pytest.approx(squared)
    assert report["MAE"] == pytest.approx(absolute)
    assert (report.n_ratings, report.n_users) == (len(test), test.user.nunique())
    assert 1.0 < report["RMSE"] < 1.05  # of item means
    table = report.to_pandas()
    assert (table.low < table["mean"]).all()
    assert (table["mean"] < table.high).all()
    assert (table.high - table.low).between(0.01, 0.06).all()
    worse = evaluate_ratings(predicts(lambda users, items: np.full(len(users), mean)), test)
    paired = compare_paired(report, worse, "RMSE")
    assert paired.high < 0
    assert paired.p < 0.001
    assert paired.wins > paired.losses


def test_the_model_is_asked_for_each_row_in_the_order_of_test():
    asked = []
    evaluate_ratings(predicts(lambda users, items: asked.append((users, items)) or [0, 0, 0]), TEST)
    assert [one.tolist() for one in asked[0]] == [["b", "a", "b"], [7, 7, 8]]


def test_each_rating_counts_the_same():
    report = evaluate_ratings(predicts(lambda users, items: [3, 3, 3]), TEST)
    assert report["MAE"] == pytest.approx(4 / 3)
    assert report["RMSE"] == pytest.approx(np.sqrt((1 + 4 + 1) / 3))
    assert report.per_user.loc["b", "ratings"] == 2
    assert str(report) == "RMSE 1.4142 | MAE 1.3333 | 3 ratings of 2 users"


def test_one_user_has_an_error_and_no_interval():
    report = evaluate_ratings(predicts(lambda users, items: [3]), TEST[:1])
    assert report["RMSE"] == 1
    assert np.isnan(report.interval("RMSE")).all()


@pytest.mark.parametrize(
    ("answer", "test", "message"),
    [
        ([3, 3], TEST, r"predicts an array of shape \[2\]; expected 3 ratings"),
        ([3, np.nan, 3], TEST, "the model predicts nan for user a and item 7; expected a finite"),
        ([], TEST[:0], "test has no rows"),
        ([3, 3, 3], TEST[["user", "item"]], "test has no column rating"),
        ([3, 3, 3], TEST.assign(rating=[1, None, 2]), "test has no rating in row 1"),
        ([3, 3, 3], TEST.assign(rating=[1, np.inf, 2]), "a rating that is not finite"),
    ],
)
def test_what_has_no_error_is_refused(answer, test, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ratings(predicts(lambda users, items: answer), test)


def test_ratings_that_are_text_are_refused():
    with pytest.raises(TypeError, match="test has rating 'good' in row 1; expected a number"):
        evaluate_ratings(
            predicts(lambda users, items: [3, 3, 3]), TEST.assign(rating=[1, "good", 2])
        )
