"""The one error of learning."""

from __future__ import annotations

from stream_hash.errors import UsageError


class UnlearnableError(UsageError, ValueError):
    """Nothing can be learned from these items, labels or parameters.

    A ValueError as well: that is what callers of scikit-learn's estimators expect.
    """
