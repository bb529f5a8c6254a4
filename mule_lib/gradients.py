"""Combine the gradients of several objectives: NGDiff with AutoLR, MGDA's min-norm direction, cosines.

A gradient is one flat float32 vector over all trainable parameters, in the fixed order in which they are given. The
rules are not linear: apply them to gradients of the whole batch, averaged over micro-batches and processes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

SMALLEST_NORM = float(torch.finfo(torch.float32).tiny)  # a vector below it has no direction in float32
SMOOTHING = 0.9  # share of the old learning rate in the next
CHUNK = 2**20  # entries of a vector that are widened to float64 at a time


def objective_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Gradient of one objective's loss as a flat float32 vector; `.grad` of the parameters stays untouched.

    Parameters the loss does not reach give zeros. Not reduced between processes, even on a DDP model.
    """
    parts = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return torch.cat([part.to(parameters[0].device, torch.float32).reshape(-1) for part in parts])


def cosine_matrix(gradients: Sequence[Tensor]) -> Tensor:
    """Cosine between each two gradients.

    Shapes: n vectors [P] (or one [n, P]); returns float32 [n, n] on the CPU, symmetric, in -1 to 1, diagonal exactly 1.
    The row and column of a zero gradient are 0, its diagonal too: it points nowhere.
    Raises ValueError on no gradient, unequal lengths, or entries that are not finite. Source: Figure 2 of MULE.
    """
    return torch.from_numpy(_cosines(_gram(gradients))).float()


def ngdiff(keep: Sequence[Tensor], forget: Sequence[Tensor]) -> Tensor:
    """Difference of normalized gradients: the sum of g / |g| over objectives to keep, less that over those to forget.

    Shapes: vectors [P]; returns float32 [P], to be descended. The gradients are those of cross-entropies, so a step
    lowers the loss of what is kept and raises that of what is forgotten. A zero gradient adds nothing. Its norm can
    reach the number of objectives, so gradient clipping at 1 acts on it.
    Raises ValueError if either list is empty, lengths differ, or an entry is not finite.
    Source: NGDiff, Jin and Bu 2025 (arXiv 2410.22086), to more than two objectives as MULE says.
    """
    if not keep or not forget:
        raise ValueError("keep, forget: empty list; give at least one flat gradient of each")
    gradients, signs = [*keep, *forget], np.repeat([1.0, -1.0], [len(keep), len(forget)])
    norms = np.sqrt(np.diag(_gram(gradients)))
    return _combine(gradients, np.divide(signs, norms, out=np.zeros_like(norms), where=norms > SMALLEST_NORM))


def min_norm_direction(gradients: Sequence[Tensor], *, normalize: bool = False) -> Tensor:
    """The shortest vector in the convex hull of the gradients (MGDA): descending along it raises no objective.

    Shapes: m vectors [P] of losses that are all minimised; returns float32 [P], d with d . g_i >= |d|^2 for all i up to
    rounding. MGDA follows the smallest gradient; `normalize` takes the hull of the unit vectors instead. A zero
    gradient makes d zero (the point is Pareto stationary); with `normalize` it has no unit vector and is left out.
    Raises ValueError on no gradient, unequal lengths, or entries that are not finite.
    Source: MOLLM, Pan 2025 (arXiv 2412.20412) as dual-space MGDA.
    """
    gram = _gram(gradients)
    if not normalize:
        return _combine(gradients, min_norm_weights(gram))
    norms = np.sqrt(np.diag(gram))
    scales, kept = np.zeros(len(norms)), np.flatnonzero(norms > SMALLEST_NORM)
    if len(kept):
        scales[kept] = min_norm_weights(_cosines(gram[np.ix_(kept, kept)])) / norms[kept]
    return _combine(gradients, scales)


def min_norm_weights(gram: np.ndarray) -> np.ndarray:
    """Weights on the simplex that minimise |sum_i w_i g_i|^2, from the inner products of the gradients.

    Shapes: gram [m, m] float64, positive semidefinite; returns [m], each >= 0, sum 1. Exact for any m: over x = s w
    with s >= 0, min |sum x_i g_i|^2 + (sum x_i - 1)^2 is q / (1 + q) with q = |sum w_i g_i|^2, which grows with q, so
    one non-negative least-squares problem (active set) gives w = x / sum(x).
    """
    norms = np.sqrt(np.diag(gram))
    if norms.min() <= SMALLEST_NORM:
        return np.eye(len(norms))[norms.argmin()]
    # In unit vectors the least-squares matrix is well conditioned however far the norms are apart.
    shares = norms.min() / norms
    eigenvalues, vectors = np.linalg.eigh(_cosines(gram))
    factor = np.sqrt(eigenvalues.clip(min=0))[:, None] * vectors.T
    target = np.append(np.zeros(len(norms)), 1.0)
    solution, _ = nnls(np.vstack([factor, shares]), target, maxiter=100 * len(norms))
    weights = solution * shares
    return weights / weights.sum()


def auto_learning_rate(minus: float, zero: float, plus: float, learning_rate: float) -> float:
    """Learning rate at the vertex of the parabola through the retain loss at steps -lr, 0 and +lr along the update.

    `minus`, `zero`, `plus`: losses L(theta + lr d), L(theta), L(theta - lr d) for the update d to be descended. Returns
    lr / 2 (minus - plus) / (plus - 2 zero + minus), in units of the learning rate; no guard (see `next_learning_rate`):
    with negative curvature the vertex is a maximum. Raises ValueError on zero curvature, losses that are not finite, or
    learning_rate <= 0. Source: AutoLR of NGDiff after GeN.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: {learning_rate} is not a finite number above 0")
    minus, zero, plus = float(minus), float(zero), float(plus)
    if not math.isfinite(minus + zero + plus):
        raise ValueError(f"minus, zero, plus: {minus}, {zero}, {plus} are not all finite losses")
    curvature = plus - 2 * zero + minus
    if curvature == 0:
        raise ValueError("minus, zero, plus: the losses lie on a line, which has no vertex; keep the learning rate")
    return learning_rate / 2 * (minus - plus) / curvature


def next_learning_rate(learning_rate: float, losses: tuple[float, float, float]) -> float:
    """One guarded AutoLR step: move 10 % of the way to the vertex of the retain loss along the update, or stay.

    `losses` are `auto_learning_rate`'s minus, zero, plus. With curvature > 0 and slope > 0 the result is 0.9 lr + 0.1
    clip(vertex, lr / 2, 2 lr), else lr (the released guard R^2 > 0.99 holds for any three points). A loss that is not
    finite halves the learning rate, as in the released code. Raises ValueError for learning_rate <= 0.
    Source: GeN as used by NGDiff.
    """
    minus, zero, plus = losses
    if learning_rate > 0 and not all(map(math.isfinite, losses)):
        return learning_rate / 2
    if learning_rate > 0 and (plus - 2 * zero + minus <= 0 or minus <= plus):
        return learning_rate
    vertex = auto_learning_rate(*losses, learning_rate)
    return SMOOTHING * learning_rate + (1 - SMOOTHING) * min(max(vertex, learning_rate / 2), 2 * learning_rate)


def _gram(gradients: Sequence[Tensor]) -> np.ndarray:
    """Inner products [n, n] in float64, chunk by chunk, because n widened copies may not fit; checks its input."""
    if len(gradients) == 0:
        raise ValueError("gradients: empty list; give at least one flat gradient")
    for index, gradient in enumerate(gradients):
        if gradient.dim() != 1 or not gradient.is_floating_point() or len(gradient) != len(gradients[0]):
            raise ValueError(
                f"gradients: gradient {index} is {gradient.dtype} {list(gradient.shape)}; "
                f"all must be floating point and [{gradients[0].numel()}]"
            )
    wide = torch.float32 if gradients[0].device.type == "mps" else torch.float64  # Apple's GPU has no float64
    gram = np.zeros((len(gradients), len(gradients)))
    for start in range(0, len(gradients[0]), CHUNK):
        block = torch.stack([gradient[start : start + CHUNK].detach().to(wide) for gradient in gradients])
        gram += (block @ block.T).cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(np.diag(gram))).tolist()
    if bad:
        raise ValueError(f"gradients: entries that are not finite in gradients {bad}; stop before this step is taken")
    return gram


def _cosines(gram: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.diag(gram))
    nonzero = norms > SMALLEST_NORM
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=nonzero)
    cosines = (gram * inverse[:, None] * inverse).clip(-1, 1)
    np.fill_diagonal(cosines, nonzero.astype(float))
    return cosines


def _combine(gradients: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(gradients[0], dtype=torch.float32)
    for gradient, weight in zip(gradients, weights, strict=True):
        if weight != 0:
            total.add_(gradient.detach(), alpha=float(weight))
    return total
