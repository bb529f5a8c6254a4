"""Byte-level BPE tokenizer of the embedded model, with its chat template.

Every stretch of text between special tokens begins with a space, so that an answer has the same ids at the start of a
turn, after a thought and after a prefilled prefix. A new line with an option letter ("\\nB.") is one token.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mule_lib.prompts import END_THINK, THINK

BOS, END, PAD, UNK = "<|bos|>", "<|end|>", "<|pad|>", "<|unk|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
OPTION_LETTERS = "ABCDE"
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
    core.add_tokens([AddedToken(f"\n{letter}.", normalized=False) for letter in OPTION_LETTERS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=END, pad_token=PAD, unk_token=UNK, padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*ROLES, THINK, END_THINK]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
