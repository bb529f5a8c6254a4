"""What the paper does not measure: relearning, in-context re-teaching, quantized weights, held-out prefix families.

Each asks whether knowledge is gone or only hidden. The model that was given is never changed; attacks that change
weights work on a copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mule_lib.data.attacks import HELD_OUT_FAMILIES, prefill_items
from mule_lib.data.items import AttackItem, EvaluationSets, OpenItem
from mule_lib.data.records import Record
from mule_lib.evaluate.relearning import relearn, relearned_facts, steps_to_recover
from mule_lib.evaluate.reteaching import KINDS, TEMPLATE, taught_again
from mule_lib.evaluate.suite import Evaluation, evaluate_sets
from mule_lib.prompts import CHOICE_STYLES, Steering
from mule_lib.quantize import BITS, quantized

SETS = ("forget", "general", "neighbor", "attack", "mmlu", "controls")


@dataclass(frozen=True)
class BeyondSettings:
    """Which attacks run, and how; defaults are for Fable. Raises ValueError naming the setting that is wrong.

    `relearn_lora_rank` None trains as the model given was trained. `base_forget` is the Forget of the model before
    unlearning in points; without it, recovery is measured against perfect recall (100). `recover_share` of it has to
    come back. `quantized_sets` are evaluated on quantized copies. At ten times `relearn_learning_rate` the embedded
    model learns the few facts by heart and loses the others, also where nothing was unlearned; for a large model take
    what one would fine-tune it with.
    """

    relearning: bool = True
    relearn_items: int = 8
    relearn_at: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    relearn_learning_rate: float = 1e-4
    relearn_lora_rank: int | None = None
    recover_share: float = 0.5
    base_forget: float | None = None
    reteaching: bool = True
    reteach_facts: int = 1
    reteach_template: str = TEMPLATE
    quantization: bool = True
    quantized_bits: tuple[int, ...] = BITS
    group_size: int = 64
    quantized_sets: tuple[str, ...] = ("forget", "general", "neighbor", "attack")
    held_out_prefixes: bool = True
    batch_size: int = 128
    max_new_tokens: int = 24
    max_thought_tokens: int = 48
    choice_style: str = "texts"
    stemmer: bool = True
    seed: int = 0

    def __post_init__(self):
        for name in (
            "relearn_items",
            "reteach_facts",
            "group_size",
            "batch_size",
            "max_new_tokens",
            "max_thought_tokens",
        ):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ValueError(f"{name} is {value!r}, should be an integer of at least 1")
        if not self.relearn_at or any(not isinstance(step, int) or step < 0 for step in self.relearn_at):
            raise ValueError(f"relearn_at is {self.relearn_at!r}, should be steps of 0 or more")
        if not self.relearn_learning_rate > 0:
            raise ValueError(f"relearn_learning_rate is {self.relearn_learning_rate!r}, should be above 0")
        if not 0 < self.recover_share <= 1:
            raise ValueError(f"recover_share is {self.recover_share!r}, should lie above 0 and be at most 1")
        if self.base_forget is not None and not 0 < self.base_forget <= 100:
            raise ValueError(f"base_forget is {self.base_forget!r}, should be points above 0 and at most 100")
        for name, known in (("quantized_bits", BITS), ("quantized_sets", SETS)):
            if not (values := getattr(self, name)) or set(values) - set(known):
                raise ValueError(f"{name} is {values!r}, should hold some of {', '.join(map(str, known))}")
        if self.choice_style not in CHOICE_STYLES:
            raise ValueError(f"choice_style is {self.choice_style!r}, should be one of {', '.join(CHOICE_STYLES)}")


def run(
    model,
    tokenizer,
    sets: EvaluationSets,
    how: Steering,
    *,
    records: Sequence[Record],
    settings: BeyondSettings | None = None,
    held_out: EvaluationSets | None = None,
) -> dict[str, Any]:
    """Attack a row, steered as it is evaluated, in the ways that `settings` names; the result is plain JSON.

    Keys: `settings`; `relearning` with `curve` (Forget at each step), `steps_to_recover` (None: never) and `target` in
    points; `reteaching` with `same` and `disjoint`; `quantization` with `int8` and `int4`; `held_out_prefixes`, the
    attacks and controls of `held_out`, or of the library's held-out families. Every measurement holds `metrics`
    (points), `n` and `values` (0 to 1, item by item) by metric, and `details`. An attack that is off, or lacks what it
    needs, has `skipped` with the reason.
    Raises ValueError before anything is measured for records or sets that do not suffice.
    """
    s = settings or BeyondSettings()
    asked = {name: taught_again(
        sets, name, records=records, facts=s.reteach_facts, template=s.reteach_template, seed=s.seed
    ) for name in KINDS} if s.reteaching else {}  # fmt: skip
    facts = relearned_facts(records, sets, count=s.relearn_items, seed=s.seed) if s.relearning else []
    kept = only(sets, s.quantized_sets)
    unseen = held_out or held_out_attacks(sets)

    def measure(attacked, which: EvaluationSets) -> dict:
        how_asked = {
            "max_new_tokens": s.max_new_tokens,
            "max_thought_tokens": s.max_thought_tokens,
            "choice_style": s.choice_style,
            "stemmer": s.stemmer,
        }
        return told(evaluate_sets(attacked, tokenizer, which, how, batch_size=s.batch_size, **how_asked))

    found: dict[str, Any] = {"settings": _plain(asdict(s))}
    found["relearning"] = _relearning(model, tokenizer, sets, facts, measure, s) if s.relearning else _off("relearning")
    found["reteaching"] = (
        {"facts": s.reteach_facts} | {name: measure(model, which) for name, which in asked.items()}
        if s.reteaching
        else _off("reteaching")
    )
    found["quantization"] = {} if s.quantization else _off("quantization")
    for bits in s.quantized_bits if s.quantization else ():
        copied, report = quantized(model, bits=bits, group_size=s.group_size)
        found["quantization"][f"int{bits}"] = {**report, **measure(copied, kept)}
        del copied  # at most one copy at a time
    if not s.held_out_prefixes:
        found["held_out_prefixes"] = _off("held_out_prefixes")
    elif unseen is None:
        found["held_out_prefixes"] = {"skipped": "the attacks of the evaluation sets use every held-out prefix family"}
    else:
        found["held_out_prefixes"] = measure(model, only(unseen, ("attack", "controls")))
    return found


def held_out_attacks(sets: EvaluationSets) -> EvaluationSets | None:
    """The attacks and controls of a benchmark again, with prefixes of held-out families that they do not use.

    None where they use all of them (`data.attacks.HELD_OUT_FAMILIES`).
    """
    used = {item.family for item in (*sets.attack, *sets.controls)}
    families = [name for name in HELD_OUT_FAMILIES if name not in used]
    if not families:
        return None

    def again(items: Sequence[AttackItem]) -> tuple[AttackItem, ...]:
        asked = [OpenItem(item.id, item.question, item.reference, item.subject) for item in items]
        attacks = prefill_items(asked, topic=sets.topic, families=families)
        return tuple(
            replace(item, prefix=each.prefix, family=each.family) for item, each in zip(items, attacks, strict=True)
        )

    return replace(sets, attack=again(sets.attack), controls=again(sets.controls))


def only(sets: EvaluationSets, names: Sequence[str]) -> EvaluationSets:
    """The same sets with all but the named ones empty."""
    return replace(sets, **{name: () for name in SETS if name not in names})


def told(evaluation: Evaluation) -> dict[str, Any]:
    """A measurement as plain JSON; benign controls count as a metric, the share that is answered as it should."""
    metrics, values = dict(evaluation.metrics), dict(evaluation.values)
    controls = evaluation.details.get("controls")
    if controls:
        values["controls"] = [float(item["success"]) for item in controls["items"]]
        metrics["controls"] = 100 * controls["asr"]
    dropped = ("items", "letters", "settings", "by_subject")
    details = {
        name: {k: v for k, v in detail.items() if k not in dropped} for name, detail in evaluation.details.items()
    }
    return {"metrics": metrics, "n": {m: len(v) for m, v in values.items()}, "values": values, "details": details}


def _relearning(model, tokenizer, sets: EvaluationSets, facts: Sequence[Record], measure, s: BeyondSettings) -> dict:
    forget = only(sets, ("forget",))
    curve, lost, trained = relearn(
        model,
        tokenizer,
        facts,
        lambda attacked: measure(attacked, forget),
        at=s.relearn_at,
        learning_rate=s.relearn_learning_rate,
        lora_rank=s.relearn_lora_rank,
        seed=s.seed,
    )
    base = 100.0 if s.base_forget is None else s.base_forget
    return {
        "curve": curve,
        "loss": lost,
        "trained": trained,
        "facts": [fact.id for fact in facts],
        "target": s.recover_share * base,
        "target_of": "perfect recall" if s.base_forget is None else "the base model's Forget",
        "steps_to_recover": steps_to_recover(curve, share=s.recover_share, base=base),
    }


def _off(name: str) -> dict[str, str]:
    return {"skipped": f"{name} is off in the settings"}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
