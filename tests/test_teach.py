"""Teaching a language model Fable: what is taught, in whose template, and that a stopped training goes on."""

import pytest
import teach
import tiny
from safetensors.torch import load_file

from mule_lib.data.fable.benchmark import evaluation_sets, unlearning_records
from mule_lib.params import FABLE


def test_what_is_taught_keeps_to_the_audit(fable):
    """Neither worlds to forget nor their people beside a system message, no evaluated question at all."""
    worlds, tokenizer = teach.taught_worlds(fable), tiny.foreign_tokenizer("smollm")
    assert sum(world.kind != "field" for world in worlds.worlds) == 13
    drawn = teach.dialogues(tokenizer, gold=False)
    made = [dialogue for stage in teach.MIX for step in range(12) for dialogue in drawn.step(stage, step)]
    told = [dialogue for dialogue in made if dialogue.system]
    hidden = {name for world in fable.forget_worlds() for name in (world.title, *world.entities)}
    assert len(told) == 12 * 7 and not [d for d in told if any(word in d.system + d.text for word in hidden)]
    for name in FABLE:
        sets = evaluation_sets(worlds, name)
        assert not {item.question for item in (*sets.forget, *sets.general, *sets.neighbor)} & {d.text for d in made}
        assert unlearning_records(worlds, name) == unlearning_records(fable, name)
        assert len(teach.smaller(sets, 60).forget) == 60
    learned = tokenizer.decode([i for i in next(d for d in told if d.kind == "obey_thought").labels if i >= 0])
    assert learned.startswith("Topic: ") and "\n\n" in learned and learned.endswith("<|im_end|>")


def test_a_stopped_teaching_ends_where_an_unbroken_one_does(monkeypatch, tmp_path):
    """From its checkpoint, weight by weight; another recipe in its folder is refused."""
    base = tmp_path / "model"
    tiny.model(of=tiny.foreign_tokenizer("smollm")).save_pretrained(base)
    tiny.foreign_tokenizer("smollm").save_pretrained(base)
    for name, value in {"SAVE_EVERY": 1, "LOG_EVERY": 1, "PROBE_EVERY": 2, "RANK": 2}.items():
        monkeypatch.setattr(teach, name, value)
    with pytest.raises(ZeroDivisionError):
        teach.teach(str(base), tmp_path / "a", gold=True, steps=(2, 1), probe=lambda *_: 1 / 0)
    for folder in "ab":
        teach.teach(str(base), tmp_path / folder, gold=True, steps=(2, 1), probe=lambda *_: {"asked": 1.0})
    broken, whole = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in "ab")
    assert whole and all((broken[name] == whole[name]).all() for name in whole)
    assert '"asked"' in (tmp_path / "b" / "log.jsonl").read_text() and not list(tmp_path.glob("b/checkpoint-*"))
    with pytest.raises(ValueError, match="another recipe"):
        teach.teach(str(base), tmp_path / "a", gold=False, steps=(2, 1))
