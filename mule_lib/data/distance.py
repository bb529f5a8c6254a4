"""How far apart the objectives' corpora are: the proxy A-distance (the divergence of Eq. 2).

The divergence of Eq. 2 is between each objective and the mixture of all; it is convex, so the mean of the pairwise
distances bounds it from above. Pairs are measured here because a matrix of them can be read.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import pandas as pd

from mule_lib import prompts
from mule_lib.data.records import REFUSED, Record
from mule_lib.prompts import OBJECTIVES

FEATURES = ("words", "hidden")
READS = ("question", "question and prefix")
ROLES = ("all", "to refuse")
FOLDS = 5
# What one number per pair is read from: what the model makes of the questions, all roles together. An attacker's prefix
# stands before one objective's answers only, in every format, so it would hide what the format changes.
MAIN = {"features": "hidden", "reads": "question", "roles": "all"}
COLUMNS = "features reads roles format objective_a objective_b distance low high n repeats".split()


def proxy_a_distance(
    left,
    right,
    groups: tuple[Sequence, Sequence],
    *,
    bootstrap: Callable[..., Any],
    repeats: int = 3,
    folds: int = FOLDS,
    seed: int = 0,
) -> Any:
    """2 (1 - 2 err) of a linear classifier that tells two corpora apart, on texts it was not trained on.

    left [n, d] and right [m, d] are features, dense or sparse; `groups` name each text's fact, so that no fact is in
    both the training and the held-out part. err weighs both corpora alike: 2 means always told apart, 0 that the
    classifier guesses; chance can take it a little below 0. The interval is that of `bootstrap` (give
    `evaluate.intervals.bootstrap_interval`, of a room below) over texts and `repeats` partitions into folds.
    Raises ValueError for fewer facts than folds in a corpus.
    Source: Ben-David 2006 (cited at MULE Eq. 2), the error of a logistic regression in place of the best hypothesis.
    """
    from scipy.sparse import issparse, vstack
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = vstack([left, right]).tocsr() if issparse(left) else np.concatenate([left, right])
    labels, facts = np.repeat([0, 1], [left.shape[0], right.shape[0]]), np.asarray([*groups[0], *groups[1]])
    fewest = min(len(set(groups[0])), len(set(groups[1])))
    if fewest < folds:
        raise ValueError(f"groups: {fewest} facts in a corpus cannot be held out in {folds} folds; give more records")
    # A constant feature, or one that few texts have, would be blown up by scaling: sparse counts stay as they are.
    scale = [] if issparse(features) else [StandardScaler()]
    judge = make_pipeline(*scale, LogisticRegression(class_weight="balanced", C=0.1 if scale else 1.0, max_iter=200))
    parts = (StratifiedGroupKFold(folds, shuffle=True, random_state=seed + i) for i in range(repeats))
    wrong = np.stack([cross_val_predict(judge, features, labels, groups=facts, cv=part) != labels for part in parts])
    # Both corpora weigh one half of the mean.
    error = bootstrap(wrong * (len(labels) / (2 * np.bincount(labels)[labels])), seed=seed)
    return error._replace(estimate=2 - 4 * error.estimate, low=2 - 4 * error.high, high=2 - 4 * error.low)


def distances(
    corpora: Mapping[str, Sequence[Record]],
    model,
    tokenizer,
    *,
    bootstrap: Callable[..., Any],
    repeats: int = 3,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Distances between each two objectives, in each format of `corpora` (format to records), as a tidy table.

    An objective against itself is the floor: its facts divided into two random halves. Columns are `COLUMNS`;
    `MAIN` selects one line per format and pair; the others rest on one partition. `n` counts texts of both corpora. A
    corpus of fewer facts than `FOLDS` is held out in as many folds as it has facts; one of a single fact has no line.
    """
    lines = []
    for (form, records), what, reads, roles in product(corpora.items(), FEATURES, READS, ROLES):
        used, prefix = [r for r in records if roles == "all" or r.role in REFUSED], reads != "question"
        if what == "words":
            table = word_counts([f"{r.question} {r.prefix or ''}" if prefix else r.question for r in used])
        else:
            table = mean_hidden_states(model, tokenizer, used, prefix=prefix, batch_size=batch_size)
        often = repeats if (what, reads, roles) == tuple(MAIN.values()) else 1
        for a, b in combinations_with_replacement(OBJECTIVES, 2):
            sides = _sides(used, a, b, seed)
            facts = tuple([used[i].source for i in side] for side in sides)
            folds = min(FOLDS, *(len(set(side)) for side in facts))
            if folds < 2 or (prefix and "obj3" not in (a, b)):
                continue  # nothing could be held out, or nothing has a prefix
            left, right = (table[side] for side in sides)
            found = proxy_a_distance(left, right, facts, bootstrap=bootstrap, repeats=often, folds=folds, seed=seed)
            lines += [(what, reads, roles, form, *pair, *found) for pair in dict.fromkeys([(a, b), (b, a)])]
    return pd.DataFrame(lines, columns=COLUMNS)


def main_lines(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table of distances that `MAIN` selects."""
    keep = np.logical_and.reduce([table[column] == value for column, value in MAIN.items()])
    return table[keep].reset_index(drop=True)


def word_counts(texts: Sequence[str]):
    """Which words and pairs of words each text holds, as a sparse 0/1 matrix [n, d]."""
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\w+|[^\w\s]").fit_transform(texts)


def mean_hidden_states(
    model, tokenizer, records: Sequence[Record], *, prefix: bool, batch_size: int = 64
) -> np.ndarray:
    """The model's last hidden states, averaged over the student's context of each record; float32 [n, H].

    The context is the rendered question, with the attacker's prefix in the assistant's turn when `prefix`. Give a model
    in evaluation mode (`models.frozen`).
    """
    import torch

    contexts = [prompts.render(tokenizer, r.question, prefix=r.prefix if prefix else None).input_ids for r in records]
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    means = np.zeros((len(contexts), model.config.hidden_size), np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(contexts[i]) for i in rows], batch_first=True)
        lengths = torch.tensor([len(contexts[i]) for i in rows])[:, None]
        mask = (torch.arange(ids.shape[1]) < lengths).long().to(model.device)
        with torch.no_grad():
            states = model.base_model(input_ids=ids.to(model.device), attention_mask=mask, use_cache=False)
        hidden, weight = states.last_hidden_state.float(), mask.unsqueeze(2)
        means[rows] = ((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy()
    return means


def _sides(records: Sequence[Record], a: str, b: str, seed: int) -> list[list[int]]:
    """Rows of the two corpora; of one objective, its facts are dealt out to two halves."""
    if a != b:
        return [[i for i, r in enumerate(records) if r.objective == objective] for objective in (a, b)]
    facts = sorted({r.source for r in records if r.objective == a})
    half = set(np.random.default_rng([seed, len(facts)]).permutation(facts)[::2])
    own = [i for i, r in enumerate(records) if r.objective == a]
    return [[i for i in own if (records[i].source in half) == left] for left in (True, False)]
