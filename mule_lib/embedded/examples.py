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

    def copy(self, kind: str, words: Sequence[int], rng: random.Random) -> Example:
        """Random words, then the same words again, with loss on the second run."""
        run = rng.choices(words, k=rng.randint(4, 14))
        ids = [self.special(BOS), *run, *run]
        return Example(kind, ids, [-100] * (1 + len(run)) + run)
