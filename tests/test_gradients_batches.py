"""Micro-batches and data-parallel processes give the combined gradient of the joint batch, ragged answers included."""

import json
import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mule_lib import gradients, losses

VOCABULARY = 11
OBJECTIVES = ("keep", "neighbour", "forget")
RULES = {
    "ngdiff": lambda g: gradients.ngdiff([g["keep"], g["neighbour"]], [g["forget"]]),
    "min_norm": lambda g: gradients.min_norm_direction(list(g.values())),
    "sum": lambda g: gradients.plain_sum(list(g.values())),
}


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, VOCABULARY))


def make_batches():
    """Per objective 4 rows of 8 ids and labels; answers have 1 to 7 tokens, so equal shares hold unequal counts."""
    gen = torch.Generator().manual_seed(1)
    batches = {}
    for objective in OBJECTIVES:
        ids = torch.randint(0, VOCABULARY, (4, 8), generator=gen)
        prompt = torch.tensor([7, 1, 5, 2])
        batches[objective] = ids, ids.masked_fill(torch.arange(8) < prompt[:, None], -100)
    return batches


def token_gradient(model, ids, labels):
    """Gradient of the token mean of these rows, and the number of tokens it is the mean of."""
    loss = losses.cross_entropy(model(ids), labels)
    return gradients.objective_gradient(loss, list(model.parameters())), int(losses.answer_lengths(labels).sum())


def whole_batch_directions(model):
    whole = {name: token_gradient(model, *batch)[0] for name, batch in make_batches().items()}
    return {name: rule(whole) for name, rule in RULES.items()}


def share_of_micro_batches(model, batch, rows):
    """Accumulated gradient over micro-batches of one row each, and the token count of all of them."""
    pairs = [token_gradient(model, batch[0][row : row + 1], batch[1][row : row + 1]) for row in rows]
    vectors, counts = zip(*pairs, strict=True)
    return gradients.weighted_mean(vectors, counts), sum(counts)


def test_accumulated_micro_batches_equal_the_larger_batch():
    model = make_model()
    accumulated = {name: share_of_micro_batches(model, batch, range(4))[0] for name, batch in make_batches().items()}
    for name, expected in whole_batch_directions(model).items():
        torch.testing.assert_close(RULES[name](accumulated), expected, atol=1e-6, rtol=1e-5)


def test_equal_weights_would_not_do():
    model = make_model()
    batch = make_batches()["keep"]
    vectors = [token_gradient(model, batch[0][r : r + 1], batch[1][r : r + 1])[0] for r in range(4)]
    unweighted = gradients.weighted_mean(vectors, [1.0] * 4)
    assert (unweighted - token_gradient(model, *batch)[0]).abs().max() > 1e-3


def test_losses_that_average_rows_are_weighted_by_rows():
    model = make_model()
    ids, labels = make_batches()["forget"]
    parameters = list(model.parameters())

    def gradient(rows):
        return gradients.objective_gradient(losses.simnpo(model(ids[rows]), labels[rows], beta=1.0), parameters)

    parts = gradients.weighted_mean((gradient(rows) for rows in ([0], [1, 2, 3])), (1, 3))
    torch.testing.assert_close(parts, gradient([0, 1, 2, 3]), atol=1e-6, rtol=1e-5)


def worker(rank, rendezvous, answers):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(make_model())
    rows = [[0, 1], [2, 3]][rank]
    local, reduced = {}, {}
    for name, batch in make_batches().items():
        local[name], count = share_of_micro_batches(model, batch, rows)
        reduced[name] = gradients.all_reduce_mean(local[name], weight=count)
    try:
        gradients.all_reduce_mean(torch.ones(2), weight=0.0)
        refusal = ""
    except ValueError as error:
        refusal = str(error)
    found = {
        "reduced": {name: rule(reduced).tolist() for name, rule in RULES.items()},
        "local": {name: rule(local).tolist() for name, rule in RULES.items()},
        "uneven": gradients.all_reduce_mean(torch.full((2,), float(rank)), weight=[1.0, 3.0][rank]).tolist(),
        "unweighted": gradients.all_reduce_mean(torch.full((2,), float(rank))).tolist(),
        "refusal": refusal,
    }
    (answers / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    # Results are on disk; a gloo thread that still holds a tensor would abort an interpreter that shuts down in order.
    os._exit(0)


def test_two_processes_equal_one(tmp_path):
    mp.spawn(worker, args=(tmp_path / "rendezvous", tmp_path), nprocs=2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name, expected in whole_batch_directions(make_model()).items():
        for found in ranks:
            torch.testing.assert_close(torch.tensor(found["reduced"][name]), expected, atol=1e-6, rtol=1e-5)
        # The wrapper alone reduces nothing for autograd.grad: this is what the helper is for.
        assert (torch.tensor(ranks[0]["local"][name]) - torch.tensor(ranks[1]["local"][name])).abs().max() > 1e-3
    assert ranks[0]["reduced"] == ranks[1]["reduced"]
    for found in ranks:
        assert found["uneven"] == [0.75, 0.75]
        assert found["unweighted"] == [0.5, 0.5]
        assert found["refusal"].startswith("weight: the sum over all processes is 0")


def test_one_process_needs_no_reduction():
    vector = torch.tensor([1.0, 2.0])
    assert gradients.all_reduce_mean(vector, weight=5) is vector


def test_bad_weights_are_refused():
    vector = torch.ones(2)
    for weights in ([1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match=r"^weights: (more|fewer) weights than gradients; give one per gradient$"):
            gradients.weighted_mean([vector, vector], weights)
    with pytest.raises(ValueError, match=r"^weights: sum is 0"):
        gradients.weighted_mean([vector, vector], [0, 0])
    with pytest.raises(ValueError, match=r"^weights: sum is 0"):
        gradients.weighted_mean([], [])
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match=r"^weight: .* is not a finite number of 0 or more$"):
            gradients.weighted_mean([vector], [bad])
        with pytest.raises(ValueError, match=r"^weight: "):
            gradients.all_reduce_mean(vector, weight=bad)
