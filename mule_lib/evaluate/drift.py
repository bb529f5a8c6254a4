"""How far unlearning moved the next-token distributions of answers that are to be kept.

MULE keeps K logits of a token and claims to do so "without distorting the global vocabulary distribution" (Section
3.4); the answers' words alone cannot show that.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from peft import PeftModel

from mule_lib import prompts
from mule_lib.data.items import OpenItem
from mule_lib.evaluate.row import Evaluation
from mule_lib.models import frozen, load
from mule_lib.models.generate import batches, evaluating
from mule_lib.models.head import answers_only, padded
from mule_lib.params import EMBEDDED


def base_beside(model, name: str, *, adapter: str = ""):
    """The model before unlearning: an embedded one is loaded again, one with a LoRA is its own base.

    None for a large model whose every weight was trained: two of them may not fit.
    """
    if isinstance(model, PeftModel):
        return model
    return load(name, adapter=adapter)[0] if name in EMBEDDED else None


def drift(model, base, tokenizer, items: Sequence[OpenItem], *, batch_size: int = 128) -> tuple[list[float], float]:
    """Total variation (0 to 1) of each item, a mean over its answer's tokens, and the items' mean KL in nats.

    Both compare the whole vocabulary's next-token distributions at the reference's tokens, its end of turn included; KL
    is from the base to the model. `base` may be the model itself, whose adapters are then switched off.
    """
    rendered = [prompts.render(tokenizer, item.question, answer=item.reference) for item in items]
    read = [(each.input_ids[: each.answer_start], each.input_ids[each.answer_start :]) for each in rendered]
    variation, divergence = [0.0] * len(items), [0.0] * len(items)
    with torch.no_grad():
        for rows in batches([each.input_ids for each in rendered], batch_size):
            batch = {k: v.to(model.device) for k, v in padded([read[i] for i in rows]).items()}
            labels, pair = batch.pop("labels"), []
            for one, within in ((base, frozen), (model, evaluating)):
                with within(one), answers_only(one, labels):
                    pair.append(one(**batch, use_cache=False).logits.float().log_softmax(-1))
            for at, i in enumerate(rows):
                before, after = (each[at, : len(read[i][1])] for each in pair)
                variation[i] = float((before.exp() - after.exp()).abs().sum(-1).mean() / 2)
                divergence[i] = float((before.exp() * (before - after)).sum(-1).mean())
    return variation, fmean(divergence)


def with_drift(evaluation: Evaluation, model, base, tokenizer, items: Sequence[OpenItem], **sizes) -> Evaluation:
    """The evaluation with metric `drift`: mean total variation in points, its items, and details `kl` in nats."""
    variation, kl = drift(model, base, tokenizer, items, **sizes)
    return replace(
        evaluation,
        metrics={**evaluation.metrics, "drift": 100 * fmean(variation)},
        values={**evaluation.values, "drift": [min(1.0, value) for value in variation]},
        details={**evaluation.details, "drift": {"kl": kl}},
    )
