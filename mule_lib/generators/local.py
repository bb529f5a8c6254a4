"""A local transformers model as a generator: batched, greedy, through the suite's own prompts and generation."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mule_lib import models, prompts
from mule_lib.generators.budget import Budget, Report
from mule_lib.generators.cache import ReplyFile
from mule_lib.generators.complete import Completer, Keep
from mule_lib.generators.requests import Call, Exchange, Failed
from mule_lib.generators.structured import in_prompt
from mule_lib.models import generate


class LocalModel(Completer):
    """A `Generator` over a loaded model; `identity` says which weights these are and stands in its name and its keys.

    Decoding is greedy, so a request with a temperature is refused with ValueError. A prompt longer than the context
    window is an error reply. Schemas are written into the prompt.
    """

    def __init__(
        self,
        model,
        tokenizer,
        *,
        identity: str,
        cache: str | os.PathLike | None = None,
        budget_tokens: int | None = None,
        batch_size: int = 16,
        report: Report | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: should be at least 1")
        sender = _LocalSender(model, tokenizer, identity, batch_size)
        super().__init__(sender, cache=ReplyFile(cache), budget_tokens=budget_tokens, report=report)

    def complete(self, requests):
        """As `Completer.complete`. Raises ValueError for a temperature or a seed, which greedy decoding has none of."""
        for request in requests:
            if request.temperature or request.seed is not None:
                raise ValueError(
                    f"request {request.id!r}: a local model decodes greedily; temperature should be 0 and seed None"
                )
        return super().complete(requests)

    def describe(self) -> dict:
        """What answers, and where."""
        device = str(next(self.sender.model.parameters()).device)
        cache = str(self.cache.path) if self.cache.path else None
        return {"generator": self.name, "device": device, "batch_size": self.sender.batch_size, "cache": cache}


def load_local(name: str, *, revision: str | None = None, device: str | None = None, **options) -> LocalModel:
    """A `LocalModel` of an embedded model (`base`, `gold`), a folder or a hub id, named by what its weights are.

    `device=None` takes a GPU where there is one; further options are those of `LocalModel`.
    Raises ModelFileError for a damaged embedded model or a tokenizer without a chat template.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model, tokenizer = models.load(name, dtype=dtype, revision=revision)
    return LocalModel(model.to(device), tokenizer, identity=f"{name}@{_weights(name, model)[:12]}", **options)


def _weights(name: str, model) -> str:
    if name in models.EMBEDDED:
        return models.embedded_hashes()[name]
    folder = Path(name)
    if folder.is_dir():
        digests = [models.sha256(path) for path in sorted(folder.glob("*.safetensors"))]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return getattr(model.config, "_commit_hash", None) or "unknown"


class _LocalSender:
    def __init__(self, model, tokenizer, identity: str, batch_size: int):
        self.name = f"local:{identity}"
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size

    def send(self, calls: Sequence[Call], *, budget: Budget, keep: Keep) -> None:
        window = getattr(self.model.config, "max_position_embeddings", None)
        groups: dict[int, list[tuple[list[int], Call]]] = defaultdict(list)
        for call in calls:
            messages = call.messages if call.schema is None else in_prompt(call)
            ids = prompts.conversation(self.tokenizer, messages)
            if window and len(ids) + call.max_tokens > window:
                need = f"{len(ids)} prompt tokens and max_tokens={call.max_tokens}"
                keep(call, Failed(f"{need} exceed the model's context window of {window}", transport=False))
            else:
                groups[call.max_tokens].append((ids, call))
        for most, group in sorted(groups.items()):
            group.sort(key=lambda pair: -len(pair[0]))  # like lengths in a batch keep padding small
            for start in range(0, len(group), self.batch_size):
                self._batch(group[start : start + self.batch_size], most, budget, keep)

    def _batch(self, group: Sequence[tuple[list[int], Call]], most: int, budget: Budget, keep: Keep) -> None:
        rest = list(group)
        while rest:
            # The first one raises where the budget is spent; of the others, as many go along as fit.
            fits = 0
            while fits < len(rest) and budget.reserve(len(rest[fits][0]) + most):
                fits += 1
            now, rest = rest[:fits], rest[fits:]
            answers = generate.greedy(
                self.model,
                self.tokenizer,
                [ids for ids, _ in now],
                max_new_tokens=most,
                batch_size=self.batch_size,
            )
            texts = generate.decode(self.tokenizer, answers)
            for (ids, call), answer, text in zip(now, answers, texts, strict=True):
                # The end token was written too, where the answer ended by itself.
                ended = len(answer) < most
                keep(call, Exchange(text, "stop" if ended else "length", None, len(ids), len(answer) + ended))
                budget.settle(len(ids) + most, len(ids) + len(answer) + ended)
