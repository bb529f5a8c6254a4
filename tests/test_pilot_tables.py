"""Tables and figures of the pilot study from synthetic gradients whose cosines are known."""

import numpy as np
import pytest

from mule_lib import pilot_tables as tables


def _cosines(shared, *, batches=6, size=400, noise=0.3, seed=0):
    """[1, 3, B, 3, B] of unit vectors that share `shared` of their direction, with noise from batch to batch."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=size), rng.normal(size=(3, size))
    mean = shared * common + (1 - shared) * own
    vectors = (mean[:, None] + noise * rng.normal(size=(3, batches, size))).reshape(3 * batches, size)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (unit @ unit.T).reshape(1, 3, batches, 3, batches)


@pytest.fixture(scope="module")
def measured():
    return {
        name: {
            "raw": {0: _cosines(0.0, seed=i), 10: _cosines(0.3, seed=i)},
            "standardized": {0: _cosines(0.9, seed=i), 10: _cosines(0.7, seed=i)},
        }
        for i, name in enumerate(("books", "cyber"))
    }


def test_means_leave_out_equal_batches(measured):
    """The estimate is the mean over pairs of different batches: for one objective, without the ones of the diagonal."""
    table = tables.tidy(measured).set_index(["benchmark", "step", "format", "objective_a", "objective_b"])
    cosines = measured["books"]["raw"][0]
    off = ~np.eye(6, dtype=bool)
    for (i, a), (j, b) in [((0, "obj1"), (0, "obj1")), ((0, "obj1"), (2, "obj3"))]:
        line = table.loc[("books", 0, "raw", a, b)]
        assert line["cosine"] == pytest.approx(cosines[0, i, :, j, :][off].mean())
        assert line["low"] < line["cosine"] < line["high"] and line["batches"] == 6
    assert len(table) == 2 * 2 * 2 * 9


def test_interval_covers_the_true_cosine():
    """In most of 60 repetitions the 95 % interval of two independent directions holds their true cosine."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 300))
    truth, hits = a @ b / np.sqrt((a @ a + 300) * (b @ b + 300)), 0  # noise of variance 1 adds its size to each norm
    for _ in range(60):
        vectors = np.stack([center + rng.normal(size=(8, 300)) for center in (a, b, b)]).reshape(24, 300)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        draws = tables._means((unit @ unit.T).reshape(1, 3, 8, 3, 8)[:, 0, :, 1, :], seed=0)
        low, high = np.nanquantile(draws[1:], [0.025, 0.975])
        hits += low <= truth <= high
    assert hits >= 50


def test_gains_are_paired(measured):
    """Standardized minus raw; the same cosines on both sides give exactly 0."""
    change = tables.gains(measured)
    table = tables.tidy(measured).set_index(["benchmark", "step", "objective_a", "objective_b", "format"])["cosine"]
    line = change.iloc[1]
    both = [
        table[(*line[["benchmark", "step", "objective_a", "objective_b"]], form)] for form in ("standardized", "raw")
    ]
    assert line["gain"] == pytest.approx(both[0] - both[1])
    assert (tables.pairs(change)["low"] > 0).all()
    same = {"books": {form: {0: _cosines(0.5)} for form in ("raw", "standardized")}}
    assert (tables.gains(same)[["gain", "low", "high"]] == 0).all(axis=None)
    assert tables.gains({"muse_books": {"standardized": {0: _cosines(0.5)}}}).empty


def test_share_of_the_ceiling_takes_the_noise_away():
    """Directions that are the same but for noise have a share near 1, whatever the noise."""
    for noise in (0.3, 3.0):
        table = tables.tidy({"books": {"standardized": {0: _cosines(1.0, noise=noise, size=4000)}}})
        shares = tables.of_ceiling(table)["share"]
        assert shares.between(0.9, 1.1).all()
    assert table["cosine"].max() < 0.5


def test_by_batch_holds_every_cosine_once(measured):
    table = tables.by_batch({"books": measured["books"]})
    assert (table["training"] == 0).all()
    assert len(table) == 4 * (18 * 17 // 2)
    line = table.iloc[40]
    cosines = measured["books"][line["format"]][line["step"]]
    objectives = [int(line[name][-1]) - 1 for name in ("objective_a", "objective_b")]
    assert line["cosine"] == pytest.approx(
        cosines[0, objectives[0], line["batch_a"], objectives[1], line["batch_b"]], abs=1e-6
    )


def test_words_follow_the_numbers(measured):
    """Counts in the text are those of the table, in both directions."""
    table, change = tables.tidy(measured), tables.gains(measured)
    said = tables.verdicts(table, change).splitlines()
    assert "6 of 6 near zero" in said[0] and "6 of 6 above 0.5" in said[0] and "raises 6 of 6 and lowers 0" in said[0]
    turned = {name: {"raw": f["standardized"], "standardized": f["raw"]} for name, f in measured.items()}
    said = tables.verdicts(tables.tidy(turned), tables.gains(turned)).splitlines()
    assert "0 of 6 near zero" in said[0] and "0 of 6 above 0.5" in said[0] and "raises 0 of 6 and lowers 6" in said[0]
    assert "raises 6 of 6" in tables.finding(table, change)
    plain = tables.change_finding(table, change)
    assert plain.startswith("Before training: raw formats") and ". After 10 steps: " in plain and "*" not in plain


def test_spread_between_trainings_widens_the_interval():
    """Three trainings that differ are wider than one; three equal ones are not."""
    ones = [_cosines(shared) for shared in (0.2, 0.5, 0.8)]
    widths = {}
    for name, stacked in {"one": ones[1:2], "equal": ones[1:2] * 3, "different": ones}.items():
        table = tables.tidy({"books": {"standardized": {5: np.concatenate(stacked)}}})
        line = tables.pairs(table).iloc[0]
        widths[name] = line["high"] - line["low"]
        assert line["seeds"] == len(stacked)
        assert line["cosine"] == pytest.approx(
            np.mean([one[0, 0, :, 1, :][~np.eye(6, dtype=bool)].mean() for one in stacked])
        )
    assert widths["equal"] == pytest.approx(widths["one"], rel=0.1)
    assert widths["different"] > 2 * widths["one"]


def test_two_batches_give_no_interval():
    with pytest.raises(ValueError, match="measure at least 3"):
        tables.tidy({"books": {"raw": {0: _cosines(0.5, batches=2)}}})
