"""Questions to what users give: is it a DataFrame, is a value missing?"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["is_frame", "is_missing"]


def is_frame(X: Any) -> bool:
    """Return whether ``X`` is a pandas DataFrame, without importing pandas."""
    # who has a DataFrame has imported pandas
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(X, pandas.DataFrame)


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: ``None``, NaN, ``pandas.NA`` or ``NaT``."""
    pandas = sys.modules.get("pandas")
    if value is None or (pandas is not None and (value is pandas.NA or value is pandas.NaT)):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
