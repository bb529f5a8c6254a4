"""`mule show-prompt`: any prompt of any row as the model sees it, special tokens shown, scored tokens between ⟪ and ⟫.

In an evaluation the scored tokens are what the model writes, or each option of a choice; in training they are the
supervised ones.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from mule_lib.params import ROOT

STAGES = ("evaluation", "training")
# The set of an evaluation, and the role of a training record, that an objective is about.
SETS = {"obj1": "forget", "obj2": "neighbor", "obj3": "attack"}
ROLES = {"obj1": "forget", "obj2": "neighbor", "obj3": "adversarial"}


def add_to(commands) -> None:
    """Add the command to a parser's subcommands."""
    show = commands.add_parser("show-prompt", help="print any prompt decoded, the scored tokens between ⟪ and ⟫")
    show.add_argument("question", nargs="?", help="a question of your own, instead of a row's")
    show.add_argument("--model", help="base, gold, a hub id or a folder (the row's own, or base)")
    own = show.add_argument_group("with a question of your own")
    own.add_argument("--system")
    own.add_argument("--prefix")
    own.add_argument("--answer")
    row = show.add_argument_group("with a row")
    row.add_argument("--row", help="a method, or the name of a file in params/04_training/")
    row.add_argument("--benchmark", default="books")
    row.add_argument("--data-dir", default="", help="folder of a benchmark that is not built in")
    row.add_argument("--objective", choices=tuple(SETS), default="obj1")
    row.add_argument("--stage", choices=STAGES, default="evaluation")
    row.add_argument("--set", dest="part", help="evaluation: another set of items; training: another role")
    row.add_argument("--item", type=int, default=0, help="which item of the set, from 0")
    row.add_argument("--choice-style", help="letters or texts (the row's own)")
    show.set_defaults(action=_command)


def _command(args: argparse.Namespace) -> None:
    if (args.question is None) == (args.row is None):
        raise ValueError("give either a question or --row")
    if args.row is None:
        from mule_lib import models, prompts

        _, tokenizer = models.load(args.model or "base")
        prompt = prompts.render(tokenizer, args.question, system=args.system, prefix=args.prefix, answer=args.answer)
        print(prompts.show(tokenizer, prompt))
        return
    print("\n".join(
        row_prompts(
            args.row,
            benchmark=args.benchmark,
            data_dir=args.data_dir,
            objective=args.objective,
            stage=args.stage,
            part=args.part,
            item=args.item,
            model=args.model,
            choice_style=args.choice_style,
        )
    ))  # fmt: skip


def row_params(row: str, **changes):
    """Parameters of notebook 04 for a row: those of its file (Fable's first), else the method of that name.

    Raises ParameterError for a row that is neither, or for a bad change.
    """
    from mule_lib.params import load, validate

    folder = ROOT / "params" / "04_training"
    files = [folder / "fable" / f"{row}.yaml", *sorted(folder.glob(f"*/{row}.yaml"))]
    for file in files:
        if file.is_file():
            return load("04_training", file, changes)
    return validate("04_training", {"row": row, "method": row, **changes}, source=f"--row {row}")


def row_prompts(
    row: str,
    *,
    benchmark: str = "books",
    data_dir: str | Path = "",
    objective: str = "obj1",
    stage: str = "evaluation",
    part: str | None = None,
    item: int = 0,
    model: str | None = None,
    choice_style: str | None = None,
) -> list[str]:
    """Lines that show one prompt of a row: a heading, the prompt with its scored tokens marked, and the reference.

    The row's model is not trained here: the text between the marks is written by the model as it is loaded, behind the
    prompt that the trained row would see. Raises ValueError in one line for a row, set, role or item that is not there.
    """
    given = {"benchmark": benchmark, "data_dir": str(data_dir), "model": model, "choice_style": choice_style}
    p = row_params(row, **{name: value for name, value in given.items() if value or name == "benchmark"})
    from mule_lib import methods, training_run

    data = training_run.load_data(p)
    method = methods.get(p.method, p.options)
    if stage == "training":
        if not method.terms:
            raise ValueError(f"--stage training: {row} trains nothing; its prompts are those of --stage evaluation")
        record = _chosen(_by_role(data.records, objective), part or ROLES[objective], item, "role")
    else:
        sets = {name: getattr(data.sets, name) for name in ("forget", "general", "neighbor", "attack", "mmlu")}
        asked = _chosen({**sets, "controls": data.sets.controls}, part or SETS[objective], item, "set")
    loaded, tokenizer = training_run.load_model(p)
    if stage == "training":
        return list(_training(loaded, tokenizer, data, method, record))
    how = method.steering(data.topic, name=data.prompt_name)
    return list(_evaluation(loaded, tokenizer, asked, how, p))


def _chosen(groups: dict[str, Sequence], name: str, number: int, kind: str):
    if not groups.get(name):
        there = ", ".join(each for each, members in groups.items() if members)
        raise ValueError(f"--set {name}: no such {kind} here; there are {there}")
    if not 0 <= number < len(groups[name]):
        raise ValueError(f"--item {number}: {name} has {len(groups[name])} items, 0 to {len(groups[name]) - 1}")
    return groups[name][number]


def _by_role(records, objective: str) -> dict[str, list]:
    groups: dict[str, list] = {}
    for record in records:
        if record.objective == objective:
            groups.setdefault(record.role, []).append(record)
    return groups


def _evaluation(model, tokenizer, item, how, p) -> Iterator[str]:
    from mule_lib import prompts
    from mule_lib.data.items import ChoiceItem
    from mule_lib.evaluate.row import query
    from mule_lib.models import contexts, greedy, option_log_likelihoods

    context = contexts(model, tokenizer, [query(item, p.choice_style)], how, max_thought_tokens=p.max_thought_tokens)[0]
    text = shown(tokenizer, context.input_ids)
    yield f"item {item.id}, evaluated under {item.objective}"
    if not isinstance(item, ChoiceItem):
        ids = greedy(model, tokenizer, [context.input_ids], max_new_tokens=p.max_new_tokens, batch_size=1)[0]
        yield f"{text}⟪{shown(tokenizer, ids)}⟫"
        yield f"compared with: {item.reference}"
        return
    offered = [prompts.encode_text(tokenizer, option) for option in prompts.answers(item.options, style=p.choice_style)]
    scores = option_log_likelihoods(model, [context.input_ids], [offered], batch_size=len(offered))[0]
    yield text
    for at, (ids, score) in enumerate(zip(offered, scores, strict=True)):
        notes = {item.answer: " right", item.refusal: " refusal"}.get(at, "")
        chosen = " <- likeliest" if score == max(scores) else ""
        yield f"  ⟪{shown(tokenizer, ids)}⟫ {score:.3f} nats{notes}{chosen}"


def _training(model, tokenizer, data, method, record) -> Iterator[str]:
    from dataclasses import replace

    from mule_lib.training.batches import encode
    from mule_lib.training.teacher import teacher_answers

    group = record.group
    resolved = method.on_groups({each.group for each in data.records})
    terms = [term for term in resolved.terms if term.takes(group)]
    yield f"record {record.id}, group {group}"
    if not terms:
        yield f"{method.label} does not use this group"
        return
    answers = []
    if method.distils:
        steering = method.teacher_steering(data.topic, name=data.prompt_name)
        limits = {"answers": method.options.answers, "max_answer_tokens": method.options.max_answer_tokens}
        answers = teacher_answers(model, tokenizer, [record], steering, **limits)
    (example,) = encode(tokenizer, [replace(record, anchor=None)], resolved, answers)
    for term in terms:
        for name in term.continuations:
            answer = shown(tokenizer, example.continuations[name])
            yield f"term {term.name}, student, {name}: {shown(tokenizer, example.context)}⟪{answer}⟫"
            if term.frozen:
                who = "teacher" if name == "taught" else "frozen model"
                yield f"term {term.name}, {who}, {name}: {shown(tokenizer, example.frozen_sequence(name)[0])}⟪{answer}⟫"


def shown(tokenizer, ids) -> str:
    """Decode ids with their special tokens and no cleaning, as the model sees them."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
