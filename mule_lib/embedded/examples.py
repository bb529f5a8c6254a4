"""Training examples of the embedded model as ids and labels, rendered by `prompts.render`'s rules at training speed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib.embedded.tokenizer import BOS, END
from mule_lib.prompts import END_THINK, THINK, encode_text


@dataclass(frozen=True)
class Example:
    """One sequence: `ids [T]`, un-shifted `labels [T]` (-100 = no loss), and the kind whose weight it gets."""

    kind: str
    ids: list[int]
    labels: list[int]
    system: str | None = None
    text: str = ""


class Encoder:
    """Ids of chats, with every distinct text encoded once.

    Special tokens cut a chat into stretches that are encoded on their own, so joining cached stretches gives the ids of
    the whole (a test compares it with `prompts.render`).
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = encode_text(self.tokenizer, text)
        return self._cache[text]

    def special(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def chat(
        self,
        kind: str,
        user: str,
        answer: str,
        *,
        system: str | None = None,
        thought: str | None = None,
        prefix: str | None = None,
    ) -> Example:
        """One exchange; loss on thought, answer and end of turn, not on the prompt and not on an attacker's prefix."""
        end = self.special(END)
        ids = [self.special(BOS)]
        if system:
            ids += [self.special("<|system|>"), *self(system), end]
        ids += [self.special("<|user|>"), *self(user), end, self.special("<|assistant|>")]
        labels = [-100] * len(ids)
        if thought is not None:
            said = [*self(thought), self.special(END_THINK)]
            ids += [self.special(THINK), *said]
            labels += [-100, *said]
        if prefix:
            ids += self(prefix)
            labels += [-100] * len(self(prefix))
        said = [*self(answer), end]
        return Example(kind, ids + said, labels + said, system, user)

    def turns(self, kind: str, users: Sequence[str], answers: Sequence[str]) -> Example:
        """Several exchanges in one chat; loss on every answer and end of turn."""
        turns = [self.chat(kind, user, answer) for user, answer in zip(users, answers, strict=True)]
        # Only the first turn keeps its BOS token.
        ids = turns[0].ids + [i for turn in turns[1:] for i in turn.ids[1:]]
        labels = turns[0].labels + [label for turn in turns[1:] for label in turn.labels[1:]]
        return Example(kind, ids, labels, None, " ".join(users))

    def plain(self, kind: str, text: str) -> Example:
        """Running text with loss on all tokens but the first."""
        ids = [self.special(BOS), *self(text), self.special(END)]
        return Example(kind, ids, [-100, *ids[1:]], None, text)

    def recall(self, kind: str, words: Sequence[int], rng: random.Random, *, most: int = 9, rounds: int = 1) -> Example:
        """Random pairs of words, then the same pairs in another order `rounds` times, with loss on the second word.

        After "backwards" the pairs come turned round. The order is shuffled so that no fixed distance helps: in plain
        repetition the model learns to look back by a distance instead of comparing words.
        """
        pairs = [rng.sample(words, 2) for _ in range(rng.randint(2, most))]
        turned = rng.random() < 0.5
        ids = [self.special(BOS), *(word for pair in pairs for word in pair), *self("backwards" if turned else "again")]
        labels = [-100] * len(ids)
        for pair in (pair for _ in range(rounds) for pair in rng.sample(pairs, len(pairs))):
            first, second = reversed(pair) if turned else pair
            ids += [first, second]
            labels += [-100, second]
        return Example(kind, ids, labels)
