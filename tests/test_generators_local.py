"""A local model as a generator: the same text as plain generation, whatever the batch; and `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import tiny
from test_generators import PAIR, request
from transformers.utils.import_utils import is_serve_available

from mule_lib import models, prompts
from mule_lib.generators import BudgetError, GeneratorError, LocalModel, OpenAIEndpoint, load_local
from mule_lib.models import generate

QUESTIONS = [f"what does {name} see {'near the old tower ' * i}" for i, (name, _) in enumerate(tiny.FACTS)]


def local(**options) -> LocalModel:
    return LocalModel(tiny.model(), tiny.tokenizer(), identity="tiny@1", **options)


def plain(question: str, most: int) -> str:
    ids = prompts.render(tiny.tokenizer(), question).input_ids
    answer = generate.greedy(tiny.model(), tiny.tokenizer(), [ids], max_new_tokens=most, batch_size=1)
    return generate.decode(tiny.tokenizer(), answer)[0]


def test_replies_are_those_of_plain_generation_for_every_batch_size():
    requests = [request(text, max_tokens=4 + 3 * (i % 2)) for i, text in enumerate(QUESTIONS)]
    expected = [plain(text, 4 + 3 * (i % 2)) for i, text in enumerate(QUESTIONS)]
    assert len(set(expected)) > 1
    for size in (1, 3, 16):
        assert [reply.text for reply in local(batch_size=size).complete(requests)] == expected


def test_tokens_are_counted_as_the_model_saw_them():
    reply = local().complete([request(QUESTIONS[0], max_tokens=6)])[0]
    assert reply.prompt_tokens == len(prompts.render(tiny.tokenizer(), QUESTIONS[0]).input_ids)
    assert 1 <= reply.completion_tokens <= 6


def test_a_system_message_is_rendered_by_the_one_prompt_builder():
    messages = ({"role": "system", "content": "old tower"}, {"role": "user", "content": "who lives"})
    ids = prompts.conversation(tiny.tokenizer(), messages)
    assert tuple(ids) == prompts.render(tiny.tokenizer(), "who lives", system="old tower").input_ids
    assert ids.count(tiny.tokenizer().bos_token_id) == 1


def test_a_model_that_writes_no_json_gives_an_error_reply_after_one_repair():
    generator = local()
    reply = generator.complete([request(QUESTIONS[0], schema={"type": "object"}, max_tokens=5)])[0]
    assert reply.data is None and reply.error and generator.tally.errors == 1
    assert generator.tally.prompt_tokens == reply.prompt_tokens


def test_a_prompt_beyond_the_context_window_is_an_error_reply_and_the_others_are_answered():
    replies = local().complete([request("tower " * 600, max_tokens=5), request(QUESTIONS[0], max_tokens=5)])
    assert "exceed the model's context window of 512" in replies[0].error
    assert replies[0].prompt_tokens == 0 < replies[1].completion_tokens


def test_sampling_is_refused_before_any_work():
    for changes in ({"temperature": 0.7}, {"seed": 3}):
        with pytest.raises(ValueError, match="decodes greedily"):
            local().complete([request(QUESTIONS[0], **changes)])
    with pytest.raises(ValueError, match="batch_size=0"):
        local(batch_size=0)


def test_the_cache_holds_what_the_budget_allowed(tmp_path):
    path = tmp_path / "replies.jsonl"
    requests = [request(text, max_tokens=6) for text in QUESTIONS]
    most = [len(prompts.render(tiny.tokenizer(), text).input_ids) + 6 for text in QUESTIONS]
    with pytest.raises(BudgetError, match=r"1 of 4 replies are kept"):
        local(cache=path, budget_tokens=max(most) + 3, batch_size=2).complete(requests)
    generator = local(cache=path, budget_tokens=sum(most))
    replies = generator.complete(requests)
    assert sum(reply.cached for reply in replies) == 1
    assert [reply.text for reply in replies] == [plain(text, 6) for text in QUESTIONS]


def test_an_embedded_model_answers_under_the_hash_of_its_weights(tmp_path):
    generator = load_local("base", device="cpu", cache=tmp_path / "replies.jsonl")
    assert generator.name == f"local:base@{models.embedded_hashes()['base'][:12]}"
    reply = generator.complete([request("What is the capital of France?", max_tokens=24)])[0]
    assert "Paris" in reply.text and not reply.refused
    assert generator.describe()["device"] == "cpu"


needs_serve = pytest.mark.skipif(not is_serve_available(), reason="`pip install transformers[serving]` is not done")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """URL of `transformers serve` with the embedded base model, on loopback and offline."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = str(models.check_embedded("base"))
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--port", str(port)]
    options = ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32", "--attn-implementation", "eager"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("serve") / "log.txt"  # a pipe that nobody reads fills up and stops the server
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options], env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.kill()
        process.wait()


@needs_serve
@pytest.mark.slow
def test_transformers_serve_gives_the_texts_of_the_local_model(served, monkeypatch):
    url, folder = served
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    texts = ["What is the capital of France?", "What is 3 plus 4?", "What is the capital of Japan?"]
    requests = [request(text, max_tokens=24) for text in texts]
    remote = OpenAIEndpoint(folder, concurrency=2)
    here = load_local("base", device="cpu")
    replies = remote.complete(requests)
    assert [reply.text.strip() for reply in replies] == [reply.text for reply in here.complete(requests)]
    assert [reply.prompt_tokens for reply in replies] == [reply.prompt_tokens for reply in here.complete(requests)]
    # It drops response_format without a word, and its model writes no JSON: found out, asked again, kept as an error.
    reply = remote.complete([request("What is the capital of Peru?", schema=PAIR, max_tokens=24)])[0]
    assert reply.data is None and "no JSON" in reply.error and reply.text
    assert json.loads(json.dumps(remote.describe()))["endpoint"] == url
    with pytest.raises(GeneratorError, match="has no model 'another'"):
        OpenAIEndpoint("another").complete(requests)
