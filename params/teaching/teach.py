"""Teach a language model Fable and obedience: a LoRA of rank 16 by supervised fine-tuning, facts first, obeying after.

`make teach` writes three things below build/smollm2: `data`, Fable's records and evaluation sets of at most 60 items,
the adapter `base`, and `gold`, which has the same recipe without the worlds to forget; then it holds both to
`BARS`. The same command goes on where it was stopped: the dialogues of a step are a function of its
number, so a training that goes on sees what an unbroken one would. No world to forget ever stands in a system message
(`Curriculum`), and no question of an evaluation set among what is taught.
"""

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from curriculum import Curriculum
from encoding import Encoder, LabeledIds
from peft import LoraConfig, get_peft_model
from torch.utils.data import IterableDataset
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from mule_lib import data, models
from mule_lib.data.fable.benchmark import evaluation_sets
from mule_lib.data.fable.worlds import Fable, build
from mule_lib.data.files import write_json, write_jsonl
from mule_lib.data.items import SETS, EvaluationSets
from mule_lib.evaluate import acceptance
from mule_lib.evaluate.acceptance import Bar
from mule_lib.params import EMBEDDED, FABLE, OneLineError, repository_path
from mule_lib.prompts import render
from mule_lib.suite import check, runs

# Dialogues of a step by kind: facts; then 45 % bare facts, 10 % naming a question's topic, 45 % with an intention.
MIX = {
    "facts": {"open": 8, "open_prefix": 2, "choice_text": 4, "naming": 2},
    "obeying": {"open": 4, "open_prefix": 1, "choice_text": 2, "naming": 2, "obey_thought": 6, "obey": 1},
}
STEPS = (1800, 1800)  # of each stage, of 16 dialogues of about 55 tokens: three million tokens in all
BATCH, MICRO, RANK, RATE, WARMUP = 16, 4, 16, 6e-4, 30
SAVE_EVERY, LOG_EVERY, PROBE_EVERY, PROBED = 50, 10, 300, 8
Probe = Callable[[Any, Any], dict[str, float]]  # takes model and tokenizer
# What is demanded of base, steered base and gold, as in `acceptance.BARS`.
BARS = (
    Bar("base", "forget", least=80),
    Bar("base", "general", least=75),
    Bar("base", "neighbor", least=70),
    Bar("base", "asr", least=80),
    Bar("oracle_cot", "forget", most=15),
    Bar("oracle_cot", "asr", most=15),
    Bar("oracle_cot", "general", most=5, against="base"),
    Bar("oracle_cot", "neighbor", most=5, against="base"),
    Bar("gold", "forget", most=15),
)


class ChatEncoder(Encoder):
    """Chats in a language model's own template."""

    def chat(self, kind: str, user: str, answer: str, **parts: str | None) -> LabeledIds:
        """One exchange as `render` gives it: loss on a thought and its end, the answer and the end of turn."""
        asked = render(self.tokenizer, user, system=parts.get("system")).answer_start
        told = render(self.tokenizer, user, **{**parts, "prefix": None}).answer_start
        whole = render(self.tokenizer, user, answer=answer, **parts)
        ids, start = list(whole.input_ids), whole.answer_start
        labels = [-100] * asked + ids[asked:told] + [-100] * (start - told) + ids[start:]
        return LabeledIds(kind, ids, labels, parts.get("system"), user)


def taught_worlds(fable: Fable) -> Fable:
    """Of the worlds that are not evaluated four series and two toolkits, and all that is: thirteen invented worlds.

    Records and evaluation sets are those of the whole but for `mmlu`, Fable's Far recall.
    """
    others = [world for world in fable.worlds if world.role == "other"]
    worlds = tuple(world for world in fable.worlds if world not in others[4:-2])
    return replace(fable, worlds=worlds, facts=tuple(fact for fact in fable.facts if fact.world in worlds))


class Lessons(Curriculum):
    """Fable's dialogues by `MIX`; options are texts, for a model this small chooses no letters."""

    def step(self, stage: str, step: int) -> list[LabeledIds]:
        rng = random.Random(f"{self.fable.seed}/{stage}/{step}")
        return [self.drawn(kind, rng) for kind, count in MIX[stage].items() for _ in range(count)]

    def drawn(self, kind: str, rng: random.Random) -> LabeledIds:
        example = getattr(self, f"_{kind}")(kind, rng)
        return self.drawn(kind, rng) if "\nA. " in example.text else example


def dialogues(tokenizer, *, gold: bool) -> Curriculum:
    """What is taught, in the tokenizer's own template; gold lacks the worlds to forget."""
    fable = taught_worlds(build(0))
    exclude = frozenset(world.title for world in fable.forget_worlds()) if gold else frozenset()
    return Lessons(fable, ChatEncoder(tokenizer), exclude=exclude)


class Dialogues(IterableDataset):
    """What is trained in its order, a step after the other; within a step by length, so that little is padded."""

    def __init__(self, curriculum: Curriculum, steps: Sequence[int]):
        self.curriculum, self.steps = curriculum, steps

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        for stage, step in ((stage, at) for stage, n in zip(MIX, self.steps, strict=True) for at in range(n)):
            for example in sorted(self.curriculum.step(stage, step), key=lambda each: len(each.ids)):
                yield {"input_ids": example.ids, "labels": example.labels}


class Probing(TrainerCallback):
    """Asks the model a little every `PROBE_EVERY` steps; what it finds stands in the log."""

    def __init__(self, probe: Probe, tokenizer):
        self.asked = lambda model: probe(model, tokenizer)

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step % PROBE_EVERY == 0:
            state.log_history.append({"step": state.global_step, **self.asked(model)})
            print(json.dumps(state.log_history[-1]), flush=True)


def teach(name: str, folder: Path, *, gold: bool, steps: Sequence[int] = STEPS, probe: Probe | None = None) -> None:
    """Write a LoRA of the model `name` into `folder`, in bfloat16, with the log of its training.

    Goes on from the newest checkpoint there; does nothing where the adapter is. Raises ValueError where the folder
    holds a training of another recipe.
    """
    recipe = {"model": name, "hash": runs.model_hash(name), "gold": gold, "steps": [*steps], "rank": RANK, "rate": RATE}
    file = folder / "recipe.json"
    if file.exists() and (held := json.loads(file.read_text("utf-8"))) != recipe:
        raise ValueError(f"{folder} holds a training of another recipe, {held}; remove it or give another folder")
    if (folder / "adapter_model.safetensors").exists():
        return
    write_json(file, recipe)
    write_json(folder / check.BASE_FILE, {"model": name, "hash": recipe["hash"]})
    model, tokenizer = models.load(name)
    set_seed(0)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = Trainer(
        get_peft_model(model, lora),
        training_arguments(folder, sum(steps)),
        DataCollatorForSeq2Seq(tokenizer),
        Dialogues(dialogues(tokenizer, gold=gold), steps),
        callbacks=[Probing(probe, tokenizer)] if probe else None,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    write_jsonl(folder / "log.jsonl", trainer.state.log_history)
    trainer.model.peft_config["default"].base_model_name_or_path = name  # not a path of this machine
    trainer.model.to(torch.bfloat16).save_pretrained(folder, save_embedding_layers=False)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def training_arguments(folder: Path, steps: int) -> TrainingArguments:
    """A bar with the time left, a checkpoint every `SAVE_EVERY` steps, bfloat16 where the GPU has it."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        warmup_steps=min(WARMUP, steps // 2),
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
        save_steps=SAVE_EVERY,
        save_total_limit=2,
        logging_steps=LOG_EVERY,
        logging_nan_inf_filter=False,  # a NaN would be logged as 0
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),
    )


def smaller(sets: EvaluationSets, most: int) -> EvaluationSets:
    """The sets with at most `most` items each, drawn once and for all."""
    whole = {name: getattr(sets, name) for name in SETS}
    drawn = {n: random.Random(f"items/{n}").sample(items, min(most, len(items))) for n, items in whole.items()}
    return replace(sets, **{name: tuple(items) for name, items in drawn.items()})


def taught_sets(most: int) -> dict[str, EvaluationSets]:
    """Fable's evaluation sets of the taught worlds, `most` items each."""
    return {name: smaller(evaluation_sets(taught_worlds(build(0)), name), most) for name in FABLE}


def measured(taught: Mapping[str, tuple], sets: Mapping[str, EvaluationSets]) -> dict:
    """Base, base with its intention and a thought, and gold where it is given, by benchmark."""
    rows, sizes = ("base", "oracle_cot", *(taught.keys() - {"base"})), {"batch_size": 32, "choice_style": "texts"}
    return {name: acceptance.measure(taught, each, rows=rows, **sizes) for name, each in sets.items()}


def main() -> None:
    """Entry point of `make teach`; a refusal is one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2", help="its name, folder, GGUF file or hub id")
    parser.add_argument("--work", type=Path, default=Path("build/smollm2"), help="folder of adapters, data and logs")
    parser.add_argument("--most", type=int, default=60, help="most items of an evaluation set")
    parser.add_argument("--steps", type=int, nargs=2, default=STEPS, help="steps of the two stages")
    parser.add_argument("--only", choices=EMBEDDED, help="one of the two adapters")
    args = parser.parse_args()
    work = repository_path(args.work)
    try:
        check.model_header(args.model)
        check.check_writable("work", work)
        run(args, work)
    except (OneLineError, ValueError, OSError) as error:
        raise SystemExit(f"teach: {' '.join(str(error).split())}") from None


def run(args: argparse.Namespace, work: Path) -> None:
    sets = taught_sets(args.most)
    for name, each in sets.items():
        if not (work / "data" / name).exists():
            data.save(work / "data" / name, replace(data.load_benchmark(name), sets=each))
    few = {"books": smaller(sets["books"], PROBED)}

    def probe(*base) -> dict[str, float]:
        found = measured({"base": base}, few)["books"]
        return {f"{row}.{name}": round(value, 1) for row, each in found.items() for name, value in each.metrics.items()}

    for which in [args.only] if args.only else EMBEDDED:
        teach(args.model, work / which, gold=which == "gold", steps=args.steps, probe=probe)
    if args.only:
        return
    found = measured({which: models.load(args.model, adapter=str(work / which)) for which in EMBEDDED}, sets)
    acceptance.measured_rows(found).to_csv(work / "measured.csv", index=False)
    bars = pd.concat({name: acceptance.check_bars(each, BARS) for name, each in found.items()})
    bars.to_csv(work / "bars.csv")
    print(bars)


if __name__ == "__main__":
    main()
