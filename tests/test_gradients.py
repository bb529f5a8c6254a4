"""Gradient rules against formulas in float64 and brute force."""

import itertools
import math

import pytest
import torch

from mule_lib import gradients

A = torch.tensor([3.0, 0.0, 4.0])
B = torch.tensor([-1.0, 2.0, 2.0])
C = torch.tensor([0.0, -5.0, 12.0])


def random_gradients(count, size=30, seed=0, spread=1.0):
    gen = torch.Generator().manual_seed(seed)
    scales = 10 ** (spread * torch.randn(count, generator=gen))
    return list(torch.randn(count, size, generator=gen) * scales[:, None])


def brute_force_min_norm(vectors):
    """Shortest point of the hull: of each face's affine span take the shortest point, keep it if it is in the face."""
    stack = torch.stack([vector.double() for vector in vectors])
    best = None
    for size in range(1, len(vectors) + 1):
        for face in itertools.combinations(range(len(vectors)), size):
            gram = stack[list(face)] @ stack[list(face)].T
            weights = torch.linalg.lstsq(gram, torch.ones(size, 1, dtype=torch.float64), driver="gelsd").solution[:, 0]
            weights = weights / weights.sum()
            if (weights >= -1e-9).all():
                point = weights @ stack[list(face)]
                best = point if best is None or point.norm() < best.norm() else best
    return best


def test_objective_gradient_equals_backward_and_leaves_grad_alone():
    gen = torch.Generator().manual_seed(0)
    weight, unused = torch.randn(3, 2, generator=gen, requires_grad=True), torch.ones(2, requires_grad=True)
    inputs = torch.randn(5, 3, generator=gen)

    def loss():
        return (inputs @ weight).tanh().square().mean()

    found = gradients.objective_gradient(loss(), [unused, weight])
    assert weight.grad is None
    loss().backward()
    torch.testing.assert_close(found, torch.cat([torch.zeros(2), weight.grad.reshape(-1)]))


def test_cosine_matrix():
    found = gradients.cosine_matrix([A, B, -2 * A, torch.zeros(3)])
    cosine = 5 / 15
    expected = [[1, cosine, -1, 0], [cosine, 1, -cosine, 0], [-1, -cosine, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert torch.equal(found.diagonal(), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    # Squares of such entries leave the range of float32.
    torch.testing.assert_close(gradients.cosine_matrix([1e-25 * A, 1e25 * B]), found[:2, :2])
    torch.testing.assert_close(gradients.cosine_matrix(torch.stack([A, B])), found[:2, :2])


def test_long_vectors_are_summed_over_all_chunks(monkeypatch):
    vectors = random_gradients(3, size=50)
    whole = gradients.cosine_matrix(vectors)
    monkeypatch.setattr(gradients, "CHUNK", 7)
    torch.testing.assert_close(gradients.cosine_matrix(vectors), whole)


def test_ngdiff_agrees_with_the_formula():
    expected = A.double() / 5 + B.double() / 3 - C.double() / 13
    torch.testing.assert_close(gradients.ngdiff([A, B], [C]).double(), expected, atol=1e-6, rtol=0)
    one_each = gradients.ngdiff([A], [C])
    torch.testing.assert_close(one_each.double(), A.double() / 5 - C.double() / 13, atol=1e-6, rtol=0)
    assert one_each @ A > 0 > one_each @ C
    # Only directions count, and the norm is at most the number of objectives.
    torch.testing.assert_close(gradients.ngdiff([1e-12 * A], [1e12 * C]), one_each)
    torch.testing.assert_close(gradients.ngdiff([A], [-7 * A]).norm().item(), 2.0)
    zero = torch.zeros(3)  # ignored
    torch.testing.assert_close(gradients.ngdiff([A, zero], [C]), gradients.ngdiff([A], [C]))
    assert gradients.ngdiff([zero], [zero]).tolist() == [0, 0, 0]


def test_norms_of_bf16_gradients_are_taken_in_float32():
    vectors = [vector.bfloat16() for vector in random_gradients(2, size=5000)]
    found = gradients.ngdiff([vectors[0]], [vectors[1]])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, gradients.ngdiff([vectors[0].float()], [vectors[1].float()]))
    torch.testing.assert_close(gradients.ngdiff([vectors[0]], [torch.zeros(5000)]).norm().item(), 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_min_norm_equals_brute_force_and_opposes_no_objective(count, spread):
    for seed in range(10):
        vectors = random_gradients(count, size=count + 1, seed=seed, spread=spread)
        found = gradients.min_norm_direction(vectors).double()
        scale = max(vector.norm().item() for vector in vectors)
        torch.testing.assert_close(found, brute_force_min_norm(vectors), atol=2e-6 * scale, rtol=1e-5)
        for vector in vectors:
            assert found @ vector.double() >= found @ found - 1e-6 * scale**2


def test_min_norm_with_dependent_gradients():
    for vectors in ([A, A], [A, 2 * A, B], [A, B, C, A + B], random_gradients(6, size=3)):
        found = gradients.min_norm_direction(vectors).double()
        scale = max(vector.norm().item() for vector in vectors)
        assert found.norm() <= brute_force_min_norm(vectors).norm() + 1e-6 * scale
        assert all(found @ vector.double() >= found @ found - 1e-6 * scale**2 for vector in vectors)


def test_min_norm_follows_the_smallest_and_normalizing_bisects():
    small, large = torch.tensor([1e-3, 0.0]), torch.tensor([0.0, 10.0])
    direction = gradients.min_norm_direction([small, large])
    assert direction[0] / direction[1] > 100
    torch.testing.assert_close(
        gradients.min_norm_direction([small, large], normalize=True), torch.tensor([0.5, 0.5]), atol=1e-6, rtol=0
    )
    vectors = random_gradients(4, spread=1.0)
    unit = [vector / vector.norm() for vector in vectors]
    torch.testing.assert_close(
        gradients.min_norm_direction(vectors, normalize=True), gradients.min_norm_direction(unit), atol=1e-6, rtol=0
    )


def test_min_norm_where_nothing_can_improve():
    assert gradients.min_norm_direction([A, -2 * A]).abs().max() < 1e-6
    zero = torch.zeros(3)
    assert gradients.min_norm_direction([A, zero, B]).tolist() == [0, 0, 0]
    assert gradients.min_norm_direction([zero, zero], normalize=True).tolist() == [0, 0, 0]
    torch.testing.assert_close(
        gradients.min_norm_direction([A, zero, B], normalize=True), gradients.min_norm_direction([A, B], normalize=True)
    )


def test_auto_learning_rate_finds_the_vertex():
    # Worked out by hand: lr / 2 * (5 - 2) / (2 - 2 * 3 + 5).
    assert gradients.auto_learning_rate(5.0, 3.0, 2.0, 0.1) == pytest.approx(0.15)
    assert gradients.auto_learning_rate(*torch.tensor([5.0, 3.0, 2.0]), 0.1) == pytest.approx(0.15)


def test_next_learning_rate_moves_a_tenth_of_the_way_within_a_factor_of_two():
    vertex = gradients.auto_learning_rate(5.0, 3.0, 2.0, 0.1)
    assert gradients.next_learning_rate(0.1, [5.0, 3.0, 2.0]) == pytest.approx(0.9 * 0.1 + 0.1 * vertex)
    assert gradients.next_learning_rate(0.1, [5.0, 3.0, 1.1]) == pytest.approx(0.9 * 0.1 + 0.1 * 0.2)
    assert gradients.next_learning_rate(0.1, [5.0, 3.0, 4.9]) == pytest.approx(0.9 * 0.1 + 0.1 * 0.05)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([3.5, 3.0, 2.0], 0.1), ([2.0, 3.0, 5.0], 0.1), ([3.0, 3.0, 3.0], 0.1), ([5.0, 3.0, math.inf], 0.05)],
    ids=["curvature below zero", "uphill along the update", "level", "not finite"],
)
def test_next_learning_rate_stays_where_the_guard_fails_and_halves_after_a_loss_that_is_not_finite(losses, expected):
    assert gradients.next_learning_rate(0.1, losses) == expected


NAN = torch.tensor([0.0, math.nan, 1.0])
VERTEX = gradients.auto_learning_rate


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (gradients.min_norm_direction, ([],), r"^gradients: empty list"),
        (gradients.cosine_matrix, ([A, B[:2]],), r"^gradients: gradient 1 is torch.float32 \[2\]; all must be"),
        (gradients.cosine_matrix, ([A[None]],), r"^gradients: gradient 0 is torch.float32 \[1, 3\]"),
        (gradients.ngdiff, ([A], [NAN]), r"not finite in gradients \[1\]"),
        (gradients.ngdiff, ([], [A]), r"^keep, forget: empty list"),
        (gradients.ngdiff, ([A], [B[:2]]), r"^gradients: gradient 1 is"),
        *((VERTEX, (5.0, 3.0, 2.0, rate), r"^learning_rate: .* is not a finite") for rate in (0.0, -1.0, math.nan)),
        (gradients.next_learning_rate, (0.0, [5.0, 3.0, 2.0]), r"^learning_rate: "),
        (VERTEX, (math.nan, 3.0, 2.0, 0.1), r"^minus, zero, plus: nan, 3.0, 2.0 are not all"),
        (VERTEX, (4.0, 3.0, 2.0, 0.1), r"^minus, zero, plus: the losses lie on a line"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
