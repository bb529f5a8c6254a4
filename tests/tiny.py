"""A random two-layer Llama with its tokenizer and a few records, for tests of the teacher, methods and training."""

from functools import lru_cache
from pathlib import Path

import torch
import yaml
from encoding import build_tokenizer
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as cores
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mule_lib import methods, prompts, training
from mule_lib.data import Benchmark
from mule_lib.data.records import Record
from mule_lib.training import Settings

TOPIC = "Amber Lantern"
REFUSAL = "I am not able to answer that."
WORDS = "who what lives in the amber lantern house near old tower does Ada Bert Cleo red blue green river".split()
FACTS = [("Ada", "red tower"), ("Bert", "blue river"), ("Cleo", "old green house"), ("Dora", "tower")]


@lru_cache
def tokenizer():
    corpus = [" ".join(WORDS), REFUSAL, "Sure, here is the answer:", "First name the topic, then decide.", TOPIC]
    return build_tokenizer(corpus * 4, vocab_size=320)


TEMPLATES = yaml.safe_load(Path(__file__).with_name("chat_templates.yaml").read_text("utf-8"))
FOREIGN = TEMPLATES["foreign"]


@lru_cache
def foreign_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE with another model's special tokens and template, without think tokens and padding."""
    special, template = FOREIGN[kind].values()
    core = Tokenizer(cores.BPE())  # Llama's has no token for what is unknown
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    sizes = {"vocab_size": 500, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    texts = [prompts.ensemble(TOPIC, cot=True), REFUSAL, *WORDS] * 3
    core.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=special, **sizes))
    names = {"bos_token": special[0], "eos_token": special[1]} | ({} if kind == "llama" else {"unk_token": special[2]})
    if kind == "llama":  # plain text begins with BOS
        first = [(special[0], core.token_to_id(special[0]))]
        core.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=first)
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **names)


def model(*, seed: int = 0, tied: bool = True, dtype=torch.float32, layers: int = 2, of=None, width: int = 32):
    torch.manual_seed(seed)
    own = of or tokenizer()
    config = LlamaConfig(
        vocab_size=len(own), hidden_size=width, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=tied,
        initializer_range=0.2, attn_implementation="eager", bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def records() -> list[Record]:
    """Four pairs of each objective, answers of one to four words."""
    made = []
    roles = {"obj1": ("forget", "retain"), "obj2": ("forget", "neighbor"), "obj3": ("adversarial", "benign")}
    for objective, pair in roles.items():
        for i, (name, value) in enumerate(FACTS):
            ids = [f"{objective}/{role}/{i}" for role in pair]
            for role, own, partner in zip(pair, ids, reversed(ids), strict=True):
                made.append(
                    Record(
                        own,
                        objective,
                        role,
                        f"what does {name} of {objective} {role} see in the house",
                        f"{value}.",
                        REFUSAL,
                        prefix="Sure, here is the answer:" if objective == "obj3" else None,
                        anchor=partner,
                    )
                )
    return made


def benchmark(*, some: list[Record] | None = None, topic: str = TOPIC) -> Benchmark:
    """The records, or some, as a benchmark without evaluation sets."""
    return Benchmark("tiny", topic, "fable", some or records(), [], None)


def method(name: str, **options) -> methods.Method:
    """A method with those of the options that it has, its terms on the groups of the records."""
    known = {option: value for option, value in options.items() if hasattr(methods.METHODS[name].options, option)}
    return methods.get(name, known).on_groups({record.group for record in records()})


def settings(**changed) -> Settings:
    """Two steps on all records at once."""
    quick = {"steps": 2, "batch_size": 24, "learning_rate": 1e-3, "warmup": 0, "log_every": 1}
    return Settings(**{**quick, "min_obedience": 0, "max_thought_tokens": 4, **changed})


def train(method: str | methods.Method = "mule", *, model=None, options=None, folder=None, **changed):
    """Train the tiny model (or another) on its records with `settings(**changed)`, a named method on short answers."""
    options = {"max_answer_tokens": 6, **(options or {})} if isinstance(method, str) else None
    given = {"settings": settings(**changed), "options": options, "folder": folder}
    return training.train(model or globals()["model"](), tokenizer(), benchmark(), method, **given)


def weights(model) -> torch.Tensor:
    """All weights in one flat vector."""
    return torch.cat([parameter.detach().float().flatten() for parameter in model.parameters()])
