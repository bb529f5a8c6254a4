"""Ask a model one question, as a reader of a notebook does."""

from dataclasses import dataclass

from mule_lib import prompts
from mule_lib.generate import decode, greedy


@dataclass(frozen=True)
class Reply:
    """What came back: the thought ("" without one) and the answer, with the whole exchange as text."""

    thought: str
    answer: str
    transcript: str

    def _repr_markdown_(self) -> str:
        return f"```text\n{self.transcript}\n```"


def ask(
    model,
    tokenizer,
    question: str,
    *,
    system: str | None = None,
    think: bool = False,
    prefix: str | None = None,
    max_new_tokens: int = 32,
) -> Reply:
    """One greedy reply; with `think` the model first writes a thought, and a prefix follows that thought."""
    thought = None
    if think:
        opened = prompts.render(tokenizer, question, system=system, think=True)
        stops = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(prompts.END_THINK)]
        thought = greedy(
            model, tokenizer, [opened.input_ids], max_new_tokens=max_new_tokens, batch_size=1, stop_ids=stops
        )[0]
    prompt = prompts.render(tokenizer, question, system=system, thought=thought, prefix=prefix)
    answer = greedy(model, tokenizer, [prompt.input_ids], max_new_tokens=max_new_tokens, batch_size=1)
    lines = [f"system     {system}"] if system else []
    lines += [f"user       {question}"]
    lines += [f"(thinks)   {tokenizer.decode(thought).strip()}"] if thought is not None else []
    lines += [f"assistant  {f'[{prefix}] ' if prefix else ''}{decode(tokenizer, answer)[0]}"]
    return Reply(tokenizer.decode(thought or []).strip(), decode(tokenizer, answer)[0], "\n".join(lines))
