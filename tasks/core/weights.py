"""Sample weights made to suit a head."""

import numpy as np

CLASS_WEIGHTS = ("none", "balanced")


def class_weighted(weights: np.ndarray, labels: np.ndarray, how: str) -> np.ndarray:
    """Weigh the classes against each other.

    Args:
        weights: (N,) sample weights, at least zero, some above.
        labels: (N,) int, at least zero.
        how: "none" changes nothing; "balanced" multiplies each class's weights by one factor, so that
            every class with weight weighs the same in all and the sum of all weights stays.

    Returns:
        (N,) float64.
    """
    if how not in CLASS_WEIGHTS:
        raise ValueError(f'Class weight "{how}": there are {" and ".join(CLASS_WEIGHTS)}.')
    if how == "none":
        return weights.astype(np.float64)
    held = np.bincount(labels, weights)  # (C,)
    present = held > 0
    factor = np.zeros(len(held))
    factor[present] = held.sum() / (present.sum() * held[present])
    balanced: np.ndarray = weights * factor[labels]
    return balanced
