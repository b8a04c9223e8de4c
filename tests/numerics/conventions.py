"""scikit-learn's own checks of an estimator, as parameters of a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator


def checks_of(estimators: Sequence[Any]) -> pytest.MarkDecorator:
    """Every check of every estimator, but for the one of array libraries, which needs a switch of SciPy's set
    before it is imported and which we do not claim to keep.
    """
    pairs = [
        pytest.param(estimator, check, id=f"{type(estimator).__name__}{number}-{_name(check)}")
        for number, one in enumerate(estimators)
        for estimator, check in estimator_checks_generator(one)
        if "array_api" not in _name(check)
    ]
    assert len(pairs) > 30 * len(estimators)
    return pytest.mark.parametrize(("estimator", "check"), pairs)


def _name(check: Callable[..., Any]) -> str:
    return str(getattr(check, "func", check).__name__)
