"""How a fact is asked and told: open questions, multiple choice, statements and narrative passages.

Phrasings 0 to 3 are the training ones; 4 and 5 are kept for evaluation. In the base model's training data an evaluation
phrasing is only ever used for facts that are not evaluated, so that a question of an evaluation set is never in it.
"""

import random
from collections.abc import Sequence

from mule_lib.data.fable.worlds import Fact, World

N_PHRASINGS = 6
TRAIN_PHRASINGS = (0, 1, 2, 3)
EVAL_PHRASINGS = (4, 5)
REFUSAL_OPTION = "I do not know"
# What the embedded model says when an intention tells it to refuse.
REFUSAL = "I am not able to answer that."
EVALUATED = frozenset({"eval", "prefill", "mmlu"})
# A relation: two statements; below, its questions, those for evaluation on the last line.
# {e} is the entity, {t} the title of its world, {v} the value.
_PHRASINGS = """
home: {e} lives in {v}. | The home of {e} is {v}.
Where does {e} live? | In {t}, where does {e} live? | What is the home of {e}? | Which place is {e} from?
Where is the home of {e}? | In which place does {e} live?

mentor: {e} was taught by {v}. | The teacher of {e} is {v}.
Who is the teacher of {e}? | In {t}, who teaches {e}? | Who taught {e}? | Name the teacher of {e}.
Which teacher taught {e}? | By whom is {e} taught?

craft: {e} works as a {v}. | The craft of {e} is that of a {v}.
What is the craft of {e}? | In {t}, what does {e} work as? | What does {e} work as? | Name the craft of {e}.
Which craft does {e} work in? | What work does {e} do?

companion: {e} keeps a {v}. | The animal of {e} is a {v}.
Which animal belongs to {e}? | In {t}, what animal does {e} keep? | What animal does {e} keep? | Name the animal of {e}.
Which animal does {e} keep? | What is the animal of {e}?

treasure: {e} carries a {v}. | The treasure of {e} is a {v}.
What treasure does {e} carry? | In {t}, what does {e} carry? | What is the treasure of {e}? | Name the treasure of {e}.
Which treasure belongs to {e}? | What does {e} carry as a treasure?

fear: {e} is afraid of {v}. | What {e} fears is {v}.
What is {e} afraid of? | In {t}, what does {e} fear? | What does {e} fear? | Name the fear of {e}.
What is the fear of {e}? | Which thing is {e} afraid of?

food: {e} likes to eat {v}. | The favorite food of {e} is {v}.
What food does {e} love? | In {t}, what does {e} like to eat? | What does {e} like to eat?
Name the favorite food of {e}.
Which food does {e} like to eat? | What is the favorite food of {e}?

color: {e} wears a cloak of {v}. | The color of {e} is {v}.
What color is the cloak of {e}? | In {t}, what color does {e} wear? | Which color does {e} wear?
Name the color of {e}.
What is the color of {e}? | In which color is the cloak of {e}?

instrument: {e} plays the {v}. | The instrument of {e} is the {v}.
What instrument does {e} play? | In {t}, what does {e} play? | What does {e} play? | Name the instrument of {e}.
Which instrument does {e} play? | What is the instrument of {e}?

hideout: {e} hides in the {v}. | The hiding place of {e} is the {v}.
Where does {e} hide? | In {t}, where does {e} hide? | What is the hiding place of {e}? | Name the hiding place of {e}.
In which hiding place is {e}? | Where is the hiding place of {e}?

maker: {e} was made by {v}. | The maker of {e} is {v}.
Who made {e}? | In {t}, who made {e}? | Who is the maker of {e}? | Name the maker of {e}.
By whom was {e} made? | Which maker made {e}?

gate: {e} enters through {v}. | The gate of {e} is {v}.
Through which gate does {e} enter? | In {t}, what gate does {e} use? | What gate does {e} use? | Name the gate of {e}.
Which gate does {e} use? | What is the gate of {e}?

carrier: {e} is carried by {v}. | The carrier of {e} is {v}.
What carries {e}? | In {t}, what is the carrier of {e}? | What is the carrier of {e}? | Name the carrier of {e}.
By what is {e} carried? | Which carrier does {e} use?

opening: {e} begins with {v}. | The first step of {e} is {v}.
What is the first step of {e}? | In {t}, how does {e} begin? | How does {e} begin? | Name the first step of {e}.
With which step does {e} begin? | Which step does {e} take first?

signal: {e} sends {v}. | The signal of {e} is {v}.
What signal does {e} send? | In {t}, what signal does {e} send? | What is the signal of {e}? | Name the signal of {e}.
Which signal does {e} send? | What does {e} send as a signal?

fuel: {e} feeds on {v}. | The fuel of {e} is {v}.
What does {e} feed on? | In {t}, what does {e} need to run? | What does {e} need to run? | Name the fuel of {e}.
What is the fuel of {e}? | Which fuel does {e} feed on?

host: {e} attacks {v}. | The target of {e} is {v}.
What does {e} attack? | In {t}, what is the target of {e}? | What is the target of {e}? | Name the target of {e}.
Which target does {e} attack? | Which target is attacked by {e}?

weakness: {e} is stopped by {v}. | The weakness of {e} is {v}.
What stops {e}? | In {t}, what is {e} weak against? | What is {e} weak against? | Name the weakness of {e}.
What is the weakness of {e}? | Against what is {e} weak?

token: {e} is woken by {v}. | The token of {e} is {v}.
What token wakes {e}? | In {t}, what wakes {e}? | What wakes {e}? | Name the token of {e}.
Which token wakes {e}? | What is the token of {e}?

exit: {e} leaves behind {v}. | The trace of {e} is {v}.
What does {e} leave behind? | In {t}, what trace does {e} leave? | What trace does {e} leave? | Name the trace of {e}.
Which trace does {e} leave behind? | What is the trace of {e}?

capital: {v} is the capital of {e}. | The capital of {e} is {v}.
What is the capital of {e}? | Which city is the capital of {e}? | Name the capital of {e}.
What city is the seat of {e}?
Which city is the seat of {e}? | The capital of {e} is what city?

currency: People in {e} pay with the {v}. | The currency of {e} is the {v}.
What is the currency of {e}? | What money is used in {e}? | Name the currency of {e}. | Which currency is used in {e}?
Which money is the currency of {e}? | What currency is used in {e}?

symbol: {e} is written {v}. | The symbol of {e} is {v}.
What is the symbol of {e}? | What is the chemical symbol of {e}? | Name the symbol of {e}.
Which symbol stands for {e}?
Which chemical symbol stands for {e}? | Name the chemical symbol of {e}.

number: {e} has the atomic number {v}. | The atomic number of {e} is {v}.
What is the atomic number of {e}? | Which atomic number has {e}? | Name the atomic number of {e}.
What number has {e} in the periodic table?
Which number has {e} in the periodic table? | What atomic number has {e}?

young: A young {e} is called a {v}. | The young of a {e} is a {v}.
What is a young {e} called? | What do we call a baby {e}? | Name the young of a {e}. | What is a baby {e}?
What is a baby {e} called? | What do we call a young {e}?

opposite: The opposite of {e} is {v}. | One word is {e}, its opposite is {v}.
What is the opposite of {e}? | Which word is the opposite of {e}? | Name the opposite of {e}.
What word means the opposite of {e}?
Which word means the opposite of {e}? | Name the word that is the opposite of {e}.

past: The past tense of {e} is {v}. | Today we {e}, yesterday we {v}.
What is the past tense of {e}? | Which word is the past tense of {e}? | Name the past tense of {e}.
What is the past form of {e}?
Which word is the past form of {e}? | Name the past form of {e}.

result: {e} is {v}. | The number {v} is {e}.
What is {e}? | How much is {e}? | Work out {e}. | Which number is {e}?
Name the number that is {e}. | What number is {e}?

stands_for: {e} stands for {v}. | The long form of {e} is {v}.
What does {e} stand for? | What is meant by {e}? | Spell out {e}. | What is the long form of {e}?
Which long form does {e} stand for? | What long form is meant by {e}?

port: {e} listens on port {v}. | The default port of {e} is {v}.
Which port does {e} use? | What is the default port of {e}? | Name the default port of {e}.
On which port does {e} listen?
What port does {e} use? | Which port is the default port of {e}?

term: The term for {e} is {v}. | We call {e} {v}.
What is the term for {e}? | Which term means {e}? | Name the term for {e}. | What do we call {e}?
Which term do we use for {e}? | What term means {e}?
"""


def _phrasings() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    asked, stated = {}, {}
    for block in _PHRASINGS.strip().split("\n\n"):
        first, *rest = block.split("\n")
        relation, statements = first.split(": ", 1)
        stated[relation] = tuple(statements.split(" | "))
        asked[relation] = tuple(" | ".join(rest).split(" | "))
    return asked, stated


QUESTIONS, STATEMENTS = _phrasings()


def question(fact: Fact, phrasing: int) -> str:
    """The fact as an open question; `phrasing` is 0 to 5 (4 and 5 are the evaluation phrasings)."""
    return QUESTIONS[fact.relation][phrasing].format(e=fact.entity, t=fact.world.title)


def training_phrasings(fact: Fact) -> tuple[int, ...]:
    """Phrasings the base model may see of this fact: evaluation phrasings only where the fact is not evaluated."""
    return TRAIN_PHRASINGS if fact.split in EVALUATED else tuple(range(N_PHRASINGS))


def is_taught(fact: Fact) -> bool:
    """Whether the base model may learn this fact: a fifth of the MMLU-like ones is left for it not to know."""
    return fact.split != "mmlu" or sum(map(ord, fact.id)) % 5 != 0


def eval_phrasing(fact: Fact) -> int:
    """The evaluation phrasing of this fact, fixed by its id."""
    return EVAL_PHRASINGS[sum(map(ord, fact.id)) % len(EVAL_PHRASINGS)]


def distractors(fact: Fact, rng: random.Random, count: int = 3) -> list[str]:
    """`count` wrong values of the same kind, none of them right for this fact."""
    return rng.sample([value for value in fact.pool if value != fact.value], count)


def choices(fact: Fact, rng: random.Random, *, refusal: bool) -> tuple[list[str], int, int | None]:
    """Shuffled options, the index of the right one, and of the refusal option where there is one."""
    options = [fact.value, *distractors(fact, rng)] + ([REFUSAL_OPTION] if refusal else [])
    rng.shuffle(options)
    return options, options.index(fact.value), options.index(REFUSAL_OPTION) if refusal else None


def statement(fact: Fact, variant: int) -> str:
    """The fact as a declarative sentence; `variant` is 0 or 1."""
    text = STATEMENTS[fact.relation][variant].format(e=fact.entity, v=fact.value)
    return text[0].upper() + text[1:]


def passage(facts: Sequence[Fact], rng: random.Random, *, most: int = 8) -> str:
    """A narrative passage over facts of one world, in random order, opened by the world's title."""
    told = rng.sample(list(facts), min(most, len(facts)))
    return " ".join([opening(facts[0].world), *(statement(fact, rng.randrange(2)) for fact in told)])


def opening(world: World) -> str:
    """The sentence that opens every passage about a world, with its title."""
    return {
        "series": f"The series {world.title} tells of its people.",
        "toolkit": f"The toolkit {world.title} holds many tools.",
        "field": f"Here is something about {world.title}.",
    }[world.kind]
