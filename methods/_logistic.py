"""The linear probe of LP-FT's own code: logistic regression on frozen features, its penalty chosen on ID validation.

AnanyaKumar/transfer_learning@13c3e2b, unlabeled_extrapolation/log_reg_sk.py; solved by scikit-learn, as there.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PENALTIES = tuple(np.logspace(-7, 2, 100).tolist())  # C, the inverse of the L2 weight
ITERATIONS = 200  # of L-BFGS, for each of them

Array = NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """Logits are `weight` @ feature + `bias`."""

    weight: Array  # [K, D]
    bias: Array  # [K]
    c: float
    step: int  # its place among the penalties
    accuracy: float  # on ID validation, in [0, 1]


def sweep(
    train: tuple[Array, Array],
    val: tuple[Array, Array],
    n_classes: int,
    penalties: Sequence[float] = PENALTIES,
    intercept: bool = True,
    heard: Callable[[Probe], None] = lambda probe: None,
) -> Probe:
    """Fit every penalty in turn, each from the solution before it; the first that is most accurate on `val` is kept.

    `train` and `val` are features [N, D] and labels [N]. The features are divided by one standard deviation, and less
    one mean, both over all numbers of `train`; the weights returned take features as they are. Without `intercept`
    nothing is subtracted and the bias is 0. A class that `train` lacks gets zeros. `heard` is told of every penalty.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression  # a second to import, and only this probe needs it

    (features, labels), std = train, float(train[0].std())
    mean = float(features.mean()) if intercept else 0.0
    model: Any = LogisticRegression(warm_start=True, max_iter=ITERATIONS, fit_intercept=intercept)
    best: Probe | None = None
    for step, c in enumerate(penalties):
        model.C = c
        with warnings.catch_warnings():  # weak penalties use all their iterations, as in the official code
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((features - mean) / std, labels)
        accuracy = float((model.predict((val[0] - mean) / std) == val[1]).mean())
        weight, bias = _whole(model, n_classes)
        found = Probe(weight / std, bias - weight.sum(axis=1) * (mean / std), c, step, accuracy)
        heard(found)
        if best is None or accuracy > best.accuracy:
            best = found
    if best is None:
        raise ValueError("no penalty to try")
    return best


def _whole(model: Any, n_classes: int) -> tuple[Array, Array]:
    """Weights [K, D] and bias [K] of all classes; of two classes, half of their difference each."""
    weight, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights, all_biases = np.zeros((n_classes, weight.shape[1])), np.zeros(n_classes)
    all_weights[model.classes_], all_biases[model.classes_] = weight, bias
    return all_weights, all_biases
