"""`mule compare` and `mule list` on small run folders."""

import pytest

from mule_lib.compare import CompareError, compare, listing
from mule_lib.data import files
from mule_lib.paper import METRICS
from mule_lib.run_folder import written_whole


def _run(folder, *, steps, forget, n=20):
    told = {"params": {"steps": steps, "seed": 0}, "code": {"mule_lib/trainer.py": f"hash{steps}"}, "model": "m"}
    values = {metric: [float(i < forget if metric == "forget" else 1) for i in range(n)] for metric in METRICS}
    metrics = {metric: 100 * sum(v) / n for metric, v in values.items()}
    with written_whole(folder) as draft:
        files.write_json(draft / "values.json", values)
        files.write_json(draft / "provenance.json", {"identity": told})
        files.write_json(
            draft / "metrics.json",
            {
                "benchmark": "books", "row": "mule", "seed": 0, "identity": f"print{steps}", "metrics": metrics,
                "details": {"forget": {"refusal_rate": 1 - forget / n, "by_family": {}}}, "timing": {"seconds": 9.0},
            },
        )  # fmt: skip
    return folder


def test_compare_names_settings_and_numbers_that_differ(tmp_path):
    """A changed parameter, changed code, changed metrics with a paired interval and changed rates; nothing else."""
    one = _run(tmp_path / "a", steps=40, forget=4)
    other = _run(tmp_path / "b", steps=80, forget=14)
    lines = "\n".join(compare(one, other))
    assert "settings: 2 differ" in lines
    assert "params.steps: 40 | 80" in lines and "code.mule_lib/trainer.py: 'hash40' | 'hash80'" in lines
    assert "forget: 20.0 | 70.0  +50.0 [" in lines and "general: 100.0 | 100.0  +0.0 [+0.0, +0.0]" in lines
    assert "forget.refusal_rate: 0.800 | 0.300" in lines and "seed:" not in lines


def test_equal_runs_compare_equal(tmp_path):
    """All settings agree and every difference is zero."""
    lines = compare(_run(tmp_path / "a", steps=1, forget=4), _run(tmp_path / "b", steps=1, forget=4))
    assert "settings: all agree" in lines
    assert [line for line in lines if "+0.0 [+0.0, +0.0]" in line] == lines[-5:]


def test_other_items_are_not_paired(tmp_path):
    """Different numbers of items have no paired interval, and it is said."""
    lines = "\n".join(compare(_run(tmp_path / "a", steps=1, forget=4), _run(tmp_path / "b", steps=1, forget=4, n=10)))
    assert "other items: 20 and 10" in lines


def test_a_folder_that_is_no_run_is_named(tmp_path):
    """One line that says what a run folder has."""
    with pytest.raises(CompareError, match=r"no run lies there; a run folder has metrics.json and provenance.json"):
        compare(tmp_path, tmp_path)


def test_list_has_a_line_per_run_and_no_drafts(tmp_path):
    """Hidden drafts and other folders are passed over; lines are sorted."""
    _run(tmp_path / "runs" / "b", steps=1, forget=4)
    _run(tmp_path / "runs" / "a", steps=2, forget=10)
    _run(tmp_path / "runs" / ".a@host.1.draft", steps=2, forget=10)
    (tmp_path / "tables").mkdir()
    lines = list(listing(tmp_path))
    assert [line.split()[0] for line in lines] == ["runs/a", "runs/b"]
    assert "forget  50.0" in lines[0] and lines[0].endswith("print2")
