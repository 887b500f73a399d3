"""Matrix products in single precision at the processor's speed.

torch multiplies float32 matrices on a CPU by MKL, which takes a slower path on processors that are not
Intel's: on an AMD EPYC with AVX-512 it reaches 190 GFLOP/s where oneDNN, which torch also carries,
reaches 440. Both are exact to rounding, and each gives the same bits every time.
"""

import torch
from torch import Tensor


def times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """Multiply `left @ right.T`; (m, k), (n, k) -> (m, n). Fastest where both are contiguous."""
    if left.dtype == torch.float32 and left.numel() and left.device.type == "cpu" and _HAS_ONEDNN:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
        return product
    return left @ right.T


def _has_onednn() -> bool:
    """Whether this torch has oneDNN's product; it stands behind `torch.compile`, without a name of its own."""
    try:
        found = torch.ops.mkldnn._linear_pointwise(torch.ones(2, 3), torch.ones(4, 3), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return bool((found == 3).all())


_HAS_ONEDNN = _has_onednn()
