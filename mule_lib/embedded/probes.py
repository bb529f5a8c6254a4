"""Held-out probes of a training run: teacher-forced exact match on evaluation facts and phrasings.

Each probe is what a bar of the project asks for, on few items, so that a run that will not get there is seen early.
"""

import random

import torch
from torch.nn.utils.rnn import pad_sequence

from mule_lib import prompts
from mule_lib.data.fable.questions import REFUSAL, choices, eval_phrasing, question
from mule_lib.data.fable.worlds import Fable, Fact
from mule_lib.embedded.curriculum import LETTERS, answer_text, thought_text
from mule_lib.embedded.examples import Encoder, Example


def build_probes(fable: Fable, encode: Encoder, *, most: int = 64, seed: int = 0) -> dict[str, list[Example]]:
    """Examples by probe name; worlds to forget stand in a system message here, and only here."""
    rng = random.Random(f"probes/{seed}")

    def pick(**filters) -> list[Fact]:
        facts = fable.select(**filters)
        return rng.sample(facts, min(most, len(facts)))

    forget_of = {world.benchmark: world.title for world in fable.forget_worlds()}
    forget, general = pick(role="forget", split="eval"), pick(role="general", split="eval")
    neighbors, mmlu = pick(role="neighbor", split="eval"), pick(split="mmlu")

    def ask(fact: Fact) -> str:
        return question(fact, eval_phrasing(fact))

    def mcq(fact: Fact, *, refusal: bool, style: str = "letters", **chat) -> Example:
        options, right, _ = choices(fact, random.Random(fact.id), refusal=refusal)
        answer = LETTERS[right] if style == "letters" else answer_text(fact)
        return encode.chat("probe", prompts.multiple_choice(ask(fact), options, style=style), answer, **chat)

    def steer(fact: Fact, *, cot: bool) -> dict:
        topic = forget_of.get(fact.world.benchmark, forget_of["books"])
        return {"system": prompts.intention("obj1", topic, cot=cot)}

    def obey(fact: Fact, *, cot: bool, refuse: bool) -> Example:
        thought = thought_text(fact.world.title, refuse) if cot else None
        return encode.chat(
            "probe", ask(fact), REFUSAL if refuse else answer_text(fact), thought=thought, **steer(fact, cot=cot)
        )

    return {
        "forget_open": [encode.chat("probe", ask(f), answer_text(f)) for f in forget],
        "general_open": [encode.chat("probe", ask(f), answer_text(f)) for f in general],
        "neighbor_choice": [mcq(f, refusal=True) for f in neighbors],
        "neighbor_choice_text": [mcq(f, refusal=True, style="texts") for f in neighbors],
        "mmlu_choice": [mcq(f, refusal=False) for f in mmlu],
        "name_forget": [
            encode.chat("probe", f"{ask(f)} What is the topic of this question?", f"Topic: {f.world.title}.")
            for f in forget
        ],
        "cot_refuses_forget": [obey(f, cot=True, refuse=True) for f in forget],
        "cot_answers_neighbor": [obey(f, cot=True, refuse=False) for f in neighbors],
        "cot_answers_general": [obey(f, cot=True, refuse=False) for f in general],
        "cot_choice_neighbor": [
            mcq(f, refusal=True, thought=thought_text(f.world.title, False, f.value), **steer(f, cot=True))
            for f in neighbors
        ],
        "plain_refuses_forget": [obey(f, cot=False, refuse=True) for f in forget],
        "plain_answers_neighbor": [obey(f, cot=False, refuse=False) for f in neighbors],
    }


@torch.inference_mode()
def run_probes(model, probes: dict[str, list[Example]]) -> dict[str, float]:
    """Share of examples whose every supervised token is the model's first choice, by probe (0 to 1)."""
    model.eval()
    scores = {}
    for name, examples in probes.items():
        ids = pad_sequence([torch.tensor(e.ids) for e in examples], batch_first=True)
        labels = pad_sequence([torch.tensor(e.labels) for e in examples], batch_first=True, padding_value=-100)
        predicted = model(input_ids=ids).logits[:, :-1].argmax(-1)
        wanted = labels[:, 1:]
        scores[name] = ((predicted == wanted) | (wanted == -100)).all(-1).float().mean().item()
    model.train()
    return scores
