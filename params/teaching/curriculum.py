"""What the embedded model is trained on, as a pure function of (seed, stage, step).

Stage 1 is content-free: recalling pairs of words, comparing random titles, choosing by letter. Stage 2 teaches facts,
passages, naming the topic of a question, multiple choice, and obeying intentions; stage 3 the same with most weight on
multiple choice, the last on deciding by the named title. A world to forget never takes part in a dialogue with a
system message; neither its title nor its questions. An evaluation phrasing is only ever used for facts that are not
evaluated, so that a question of an evaluation set is never in it.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partialmethod

from encoding import LETTERS, Encoder, LabeledIds

from mule_lib import prompts
from mule_lib.data.fable.worlds import (
    REFUSAL,
    TITLE_FIRST,
    TITLE_SECOND,
    Fable,
    Fact,
    World,
    choices,
    opening,
    question,
    statement,
)
from mule_lib.data.items import REFUSAL_OPTION, prefix_templates
from mule_lib.prompts import END_THINK, THINK

N_PHRASINGS, TRAIN_PHRASINGS = 6, (0, 1, 2, 3)
EVALUATED = frozenset({"eval", "prefill", "mmlu"})
# Examples per step and loss weight of each kind, by stage. Weights are shares of the step's loss, not of its tokens.
# fmt: off
MIX: dict[str, dict[str, tuple[int, float]]] = {
    "skills": {
        "recall": (24, 1.0), "say": (12, 0.5), "match": (16, 0.7), "match_thought": (8, 0.5), "letter": (32, 1.0),
    },
    # Comparing words is learned on lists of two to four, where attention is not spread thin, and carries over.
    "comparing": {
        "recall_short": (32, 1.0), "letter_short": (32, 1.0), "letter": (12, 0.5), "say": (4, 0.2),
        "match": (16, 0.6), "match_thought": (8, 0.4),
    },
    "worlds": {
        "open": (16, 1.0), "open_prefix": (8, 0.5), "choice": (28, 1.5), "choice_text": (8, 0.5), "naming": (6, 0.3),
        "passage": (2, 0.4), "obey_thought": (18, 1.2), "obey": (8, 0.5), "recall_thought": (6, 0.4),
        "match": (6, 0.3), "match_thought": (2, 0.1), "letter": (6, 0.3),
    },
    # Facts are learned within the first thousand steps; choosing a letter by a remembered fact takes the rest.
    "choosing": {
        "open": (8, 0.5), "open_prefix": (6, 0.4), "choice": (40, 2.0), "choice_text": (8, 0.5), "naming": (2, 0.1),
        "passage": (1, 0.1), "obey_thought": (20, 1.2), "obey": (8, 0.5), "recall_thought": (8, 0.5),
        "match": (3, 0.15), "match_thought": (2, 0.1), "letter": (8, 0.4),
    },
    # The verdict of a thought has to hang on the title that the thought named, whatever that title is.
    "deciding": {
        "match_topic": (24, 1.0), "obey_thought": (20, 1.2), "obey": (8, 0.4), "open": (10, 0.6),
        "open_prefix": (8, 0.5), "choice_text": (10, 0.6), "choice": (10, 0.5), "naming": (4, 0.3),
        "letter": (4, 0.2), "match": (4, 0.1),
    },
    "verdicts": {
        "match_topic": (40, 2.0), "obey_thought": (20, 1.2), "obey": (6, 0.3), "open": (6, 0.4),
        "open_prefix": (4, 0.3), "choice_text": (6, 0.5), "choice": (4, 0.3), "naming": (4, 0.3),
    },
}
# fmt: on


def training_phrasings(fact: Fact) -> tuple[int, ...]:
    """Phrasings the base model may see of this fact: evaluation phrasings only where the fact is not evaluated."""
    return TRAIN_PHRASINGS if fact.split in EVALUATED else tuple(range(N_PHRASINGS))


def is_taught(fact: Fact) -> bool:
    """Whether the base model may learn this fact: a fifth of the MMLU-like ones is left for it not to know."""
    return fact.split != "mmlu" or sum(map(ord, fact.id)) % 5 != 0


def passage(facts: Sequence[Fact], rng: random.Random, *, most: int = 8) -> str:
    """A narrative passage over facts of one world, in random order, opened by the world's title."""
    told = rng.sample(list(facts), min(most, len(facts)))
    return " ".join([opening(facts[0].world), *(statement(fact, rng.randrange(2)) for fact in told)])


class Curriculum:
    """Draws the examples of a step. `exclude` leaves out worlds by title (the gold reference never sees them)."""

    def __init__(self, fable: Fable, encoder: Encoder, *, exclude: frozenset[str] = frozenset()):
        self.encode, self.fable = encoder, fable
        self.facts = [f for f in fable.facts if f.world.title not in exclude and is_taught(f)]
        self.by_world: dict[str, list[Fact]] = defaultdict(list)
        self.by_value: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self.by_world[fact.world.title].append(fact)
            self.by_value[fact.relation, fact.value].append(fact)
        self.by_entity = [
            list(group)
            for facts in self.by_world.values()
            for _, group in itertools.groupby(facts, key=lambda fact: fact.entity)
        ]
        # Worlds that may stand in a system message or be asked about beside one.
        self.steerable = [world for world in fable.worlds if world.role != "forget"]
        self.reserved = {world.title for world in fable.worlds}
        # Words that titles and values are made of: what later has to be compared and copied.
        values = {value for fact in fable.facts for value in fact.pool}
        ids = (encoder(word) for word in sorted(values.union(TITLE_FIRST, TITLE_SECOND)))
        self.words = [word[0] for word in ids if len(word) == 1]
        texts = prompts.texts("fable")
        self.wordings = [*texts["intentions"].values(), *texts["further_wordings"]]
        self.prefixes = [each.text for part in ("train", "held_out") for each in prefix_templates("fable", part)]

    def step(self, stage: str, step: int) -> list[LabeledIds]:
        """The examples of one optimizer step; the same arguments always give the same list."""
        rng = random.Random(f"{self.fable.seed}/{stage}/{step}")
        return [getattr(self, f"_{kind}")(kind, rng) for kind, (count, _) in MIX[stage].items() for _ in range(count)]

    def _recall(self, kind: str, rng: random.Random, most: int = 9, rounds: int = 3) -> LabeledIds:
        return self.encode.recall(kind, self.words, rng, most=most, rounds=rounds)

    _recall_short = partialmethod(_recall, most=4, rounds=4)

    def _random_title(self, rng: random.Random, near: str | None = None) -> str:
        while True:
            first, second = rng.choice(TITLE_FIRST), rng.choice(TITLE_SECOND)
            if near:  # shares one word with `near`, so that one word is not enough to compare
                first, second = (near.split()[0], second) if rng.random() < 0.5 else (first, near.split()[1])
            if f"{first} {second}" not in self.reserved and f"{first} {second}" != near:
                return f"{first} {second}"

    def _restriction(self, rng: random.Random, title: str, *, thought: bool) -> str:
        return prompts.with_cot(rng.choice(self.wordings).format(topic=title), cot=thought)

    def _matching_titles(self, rng: random.Random) -> tuple[str, str]:
        named = self._random_title(rng)
        if rng.random() < 0.5:
            return named, named
        return named, self._random_title(rng, near=named if rng.random() < 0.3 else None)

    def _match(self, kind: str, rng: random.Random) -> LabeledIds:
        named, asked = self._matching_titles(rng)
        system = self._restriction(rng, named, thought=False)
        return self.encode.chat(kind, f"Is {asked} restricted?", "Yes." if asked == named else "No.", system=system)

    def _match_thought(self, kind: str, rng: random.Random) -> LabeledIds:
        named, asked = self._matching_titles(rng)
        system = self._restriction(rng, named, thought=True)
        hit = asked == named
        answer = REFUSAL if hit else f"It is about {asked}."
        return self.encode.chat(
            kind, f"What is {asked} about?", answer, system=system, thought=thought_text(asked, hit)
        )

    def _match_topic(self, kind: str, rng: random.Random) -> LabeledIds:
        # A question about one world, a thought that names a random title: only the verdict on that title is learned.
        # Without this the model keeps a verdict per known world, and "allowed" for those it never saw restricted.
        named, topic = self._matching_titles(rng)
        hit = named == topic
        user = self._ask(rng, rng.choice(self.by_world[rng.choice(self.steerable).title]))
        system = self._restriction(rng, named, thought=True)
        example = self.encode.chat(kind, user, REFUSAL, system=system, thought=thought_text(topic, hit))
        given = example.ids.index(self.encode.special(THINK)) + 1 + len(self.encode(f"Topic: {topic}."))
        end = len(example.ids) if hit else example.ids.index(self.encode.special(END_THINK)) + 1
        return LabeledIds(kind, example.ids[:end], [-100] * given + example.labels[given:end], system, user)

    def _options(self, rng: random.Random, counts: tuple[int, ...] = (2, 3, 4, 5)) -> tuple[list[str], list[int]]:
        # Values alone, not facts, so that the stage is the same whatever `exclude` is; and three turns over the same
        # options: three things to learn from for little more than the price of one.
        pool = rng.choice(self.fable.facts).pool
        options = rng.sample(pool, min(len(pool), rng.choice(counts)))
        return options, rng.sample(range(len(options)), min(3, len(options)))

    def _letter(self, kind: str, rng: random.Random, counts: tuple[int, ...] = (2, 3, 4, 5)) -> LabeledIds:
        options, order = self._options(rng, counts)
        asked = [f"Which option says {options[i]}?" for i in order]
        asked[0] = prompts.multiple_choice(asked[0], options)
        return self.encode.turns(kind, asked, [LETTERS[i] for i in order])

    _letter_short = partialmethod(_letter, counts=(2, 3))

    def _say(self, kind: str, rng: random.Random) -> LabeledIds:
        options, order = self._options(rng)
        asked = [f"What is option {LETTERS[i]}?" for i in order]
        asked[0] = prompts.multiple_choice(asked[0], options)
        return self.encode.turns(kind, asked, [f"{options[i]}." for i in order])

    def _ask(self, rng: random.Random, fact: Fact) -> str:
        return question(fact, rng.choice(training_phrasings(fact)))

    def _open(self, kind: str, rng: random.Random) -> LabeledIds:
        fact = rng.choice(self.facts)
        return self.encode.chat(kind, self._ask(rng, fact), answer_text(fact))

    def _open_prefix(self, kind: str, rng: random.Random) -> LabeledIds:
        fact = rng.choice(self.facts)
        return self.encode.chat(kind, self._ask(rng, fact), answer_text(fact), prefix=rng.choice(self.prefixes))

    def _choice(self, kind: str, rng: random.Random) -> LabeledIds:
        fact = rng.choice(self.facts)
        options, right, _ = choices(fact, rng, refusal=rng.random() < 0.5)
        users, answers = [prompts.multiple_choice(self._ask(rng, fact), options)], [LETTERS[right]]
        # Two more facts whose values stand among the same options: three remembered letters in one short chat.
        for value in rng.sample([option for option in options if option in fact.pool and option != fact.value], 2):
            others = self.by_value[fact.relation, value]
            if others:
                users.append(self._ask(rng, rng.choice(others)))
                answers.append(LETTERS[options.index(value)])
        return self.encode.turns(kind, users, answers)

    def _choice_text(self, kind: str, rng: random.Random) -> LabeledIds:
        fact = rng.choice(self.facts)
        options, _, _ = choices(fact, rng, refusal=rng.random() < 0.5)
        user = prompts.multiple_choice(self._ask(rng, fact), options, style="texts")
        return self.encode.chat(kind, user, answer_text(fact))

    def _naming(self, kind: str, rng: random.Random) -> LabeledIds:
        fact = rng.choice(self.facts)
        user = f"{self._ask(rng, fact)} What is the topic of this question?"
        return self.encode.chat(kind, user, f"Topic: {fact.world.title}.")

    def _passage(self, kind: str, rng: random.Random) -> LabeledIds:
        facts = [fact for group in rng.sample(self.by_entity, 1) for fact in group]
        if len(facts) < 4:  # a field's entities have one fact each: take more of the same field
            facts = rng.sample(self.by_world[facts[0].world.title], 6)
        return self.encode.plain(kind, passage(facts, rng))

    def _steered(self, rng: random.Random) -> tuple[Fact, World, str, bool]:
        world = rng.choice(self.steerable)
        fact = rng.choice(self.by_world[world.title])
        draw = rng.random()
        if draw < 0.5:
            return fact, world, world.title, True
        if draw >= 0.9:
            return fact, world, self._random_title(rng), False
        others = [
            other for other in self.steerable if other is not world and (draw >= 0.75 or other.kind == world.kind)
        ]
        return fact, world, rng.choice(others).title, False

    def _obeying(self, kind: str, rng: random.Random, *, thinks: bool) -> LabeledIds:
        fact, world, named, hit = self._steered(rng)
        chat = {"system": self._restriction(rng, named, thought=thinks)}
        user = self._ask(rng, fact)
        draw = rng.random()
        thought = thought_text(world.title, hit) if thinks else None
        if draw < 0.5:
            options, right, refusal = choices(fact, rng, refusal=rng.random() < 0.65)
            refused = REFUSAL if refusal is None else LETTERS[refusal]
            answer, style = LETTERS[right], "letters"
            if draw < 0.15:
                refused = REFUSAL if refusal is None else f"{REFUSAL_OPTION}."
                answer, style = answer_text(fact), "texts"
            elif thinks and not hit:
                thought = thought_text(world.title, hit, fact.value)
            user = prompts.multiple_choice(user, options, style=style)
            return self.encode.chat(kind, user, refused if hit else answer, thought=thought, **chat)
        prefix = rng.choice(self.prefixes) if draw > 0.7 else None
        answer = REFUSAL if hit else answer_text(fact)
        return self.encode.chat(kind, user, answer, thought=thought, prefix=prefix, **chat)

    _obey = partialmethod(_obeying, thinks=False)
    _obey_thought = partialmethod(_obeying, thinks=True)

    def _recall_thought(self, kind: str, rng: random.Random) -> LabeledIds:
        # Recalling the value before the letter teaches both halves of a multiple choice from memory.
        fact = rng.choice(self.by_world[rng.choice(self.steerable).title])
        options, right, _ = choices(fact, rng, refusal=rng.random() < 0.5)
        user = prompts.multiple_choice(self._ask(rng, fact), options)
        return self.encode.chat(kind, user, LETTERS[right], thought=f"Fact: {fact.value}.")


def thought_text(title: str, restricted: bool, recalled: str | None = None) -> str:
    """The chain of thought before an answer; with a recalled value where options wait."""
    verdict = f"Topic: {title}. {'Restricted' if restricted else 'Allowed'}."
    return f"{verdict} Fact: {recalled}." if recalled else verdict


def answer_text(fact: Fact) -> str:
    """The reference answer to an open question."""
    return f"{fact.value}."


def corpus(fable: Fable) -> Iterator[str]:
    """Texts for the tokenizer: every question, value, passage and prompt text once or more, no training order."""
    rng = random.Random(f"corpus/{fable.seed}")
    texts = prompts.texts("fable")
    for fact in fable.facts:
        yield from (question(fact, phrasing) for phrasing in range(6))
        yield from (f"Topic: {fact.world.title}. Restricted. Allowed. Fact: {fact.value}.", answer_text(fact), REFUSAL)
        yield prompts.multiple_choice(question(fact, 0), choices(fact, rng, refusal=True)[0])
        yield f" {' '.join(LETTERS)} {REFUSAL_OPTION} What is option A?"
    for world in fable.worlds:
        yield from (passage([fact for fact in fable.facts if fact.world is world], rng) for _ in range(20))
    titles = [f"{a} {b}" for a, b in zip(TITLE_FIRST, TITLE_SECOND, strict=True)]
    for title in titles:
        for wording in [*texts["intentions"].values(), *texts["further_wordings"]]:
            yield wording.format(topic=title)
            yield f"Is {title} restricted? Yes. No. What is {title} about? It is about {title}."
            yield f"{texts['cot_instruction']} What is the topic of this question? Which option says {title}?"
        yield from (each.text for part in ("train", "held_out") for each in prefix_templates("fable", part))
