"""Fable in tokens: the embedded model's byte-level BPE tokenizer with its chat template, and its training examples.

Every stretch of text between special tokens begins with a space, so that an answer has the same ids at the start of a
turn, after a thought and after a prefilled prefix. A new line with an option letter ("\\nB.") is one token.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mule_lib.prompts import END_THINK, THINK, encode_text

BOS, END, PAD, UNK = "<|bos|>", "<|end|>", "<|pad|>", "<|unk|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
LETTERS = "ABCDE"
SPECIAL_TOKENS = [PAD, BOS, END, UNK, *ROLES, THINK, END_THINK]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}{% generation %}"
    "{% if message.thought %}{{ '<|think|>' + message.thought + '<|/think|>' }}{% endif %}"
    "{{ message.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(corpus: Iterable[str], *, vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a corpus of texts; the same corpus gives the same tokenizer."""
    core = Tokenizer(models.BPE(unk_token=UNK))
    core.normalizer = normalizers.Sequence([normalizers.Prepend(" "), normalizers.Replace("  ", " ")])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    core.add_tokens([AddedToken(f"\n{letter}.", normalized=False) for letter in LETTERS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=END, pad_token=PAD, unk_token=UNK, padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*ROLES, THINK, END_THINK]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@dataclass(frozen=True)
class LabeledIds:
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
    ) -> LabeledIds:
        """One exchange; loss on thought, answer and end of turn, not on the prompt and not on an attacker's prefix."""
        end = self.special(END)
        ids = [self.special(BOS)]
        if system:
            ids += [self.special("<|system|>"), *self(system), end]
        ids += [self.special("<|user|>"), *self(user), end, self.special("<|assistant|>")]
        labels = [-100] * len(ids)
        if thought is not None:
            supervised = [*self(thought), self.special(END_THINK)]
            ids += [self.special(THINK), *supervised]
            labels += [-100, *supervised]
        if prefix:
            ids += self(prefix)
            labels += [-100] * len(self(prefix))
        supervised = [*self(answer), end]
        return LabeledIds(kind, ids + supervised, labels + supervised, system, user)

    def turns(self, kind: str, users: Sequence[str], answers: Sequence[str]) -> LabeledIds:
        """Several exchanges in one chat; loss on every answer and end of turn."""
        turns = [self.chat(kind, user, answer) for user, answer in zip(users, answers, strict=True)]
        # Only the first turn keeps its BOS token.
        ids = turns[0].ids + [i for turn in turns[1:] for i in turn.ids[1:]]
        labels = turns[0].labels + [label for turn in turns[1:] for label in turn.labels[1:]]
        return LabeledIds(kind, ids, labels, None, " ".join(users))

    def plain(self, kind: str, text: str) -> LabeledIds:
        """Running text with loss on all tokens but the first."""
        ids = [self.special(BOS), *self(text), self.special(END)]
        return LabeledIds(kind, ids, [-100, *ids[1:]], None, text)

    def recall(self, kind: str, words: Sequence[int], rng: random.Random, *, most: int, rounds: int) -> LabeledIds:
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
        return LabeledIds(kind, ids, labels)
