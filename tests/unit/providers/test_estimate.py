"""Estimates grow with the prompt, are learnt from answers, and cannot be driven off."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.base import Endpoint, ParsedCall
from penstock.providers.estimate import (
    TOKENS_PER_MEDIUM,
    Estimator,
    tokens_of_call,
    tokens_of_json,
)
from penstock.providers.openai import OpenAIAdapter
from penstock.units import Estimate, Usage

PROSE = (
    "The committee met on Tuesday to discuss whether the old bridge should be repaired or "
    "replaced, and agreed that neither could be paid for before the next financial year. "
)  # 29 words, about 32 tokens with any current vocabulary


def call(text: str = PROSE, **fields: object) -> ParsedCall:
    messages = [{"role": "user", "content": text}]
    body = msgspec.json.encode({"model": "m", "messages": messages, **fields})
    return OpenAIAdapter().parse(Endpoint.CHAT, body)


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    assert 0 < tokens_of_call(call(text)) <= tokens_of_call(call(text + more))


@given(st.binary(max_size=300))
def test_any_bytes_have_an_estimate_within_bounds(raw: bytes) -> None:
    assert 0 <= tokens_of_json(raw) <= 3 * len(raw) + 5 * TOKENS_PER_MEDIUM


def test_english_prose_is_within_a_fifth_of_its_true_count() -> None:
    assert tokens_of_json(msgspec.json.encode(PROSE * 20)) == pytest.approx(32 * 20, rel=0.2)


def test_a_prompt_of_numbers_is_already_cut_into_tokens() -> None:
    assert tokens_of_json(b"[[1,2,3],[4,5]]") == 5


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 250_000}}],
        [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
        [{"type": "image", "source": {"type": "base64", "data": "iVBO" * 250_000}}],
    ],
)
def test_an_image_costs_a_constant_whatever_its_bytes(content: object) -> None:
    tokens = tokens_of_json(msgspec.json.encode([{"role": "user", "content": content}]))

    assert TOKENS_PER_MEDIUM <= tokens <= TOKENS_PER_MEDIUM + 60


def test_text_behind_the_mark_of_an_image_is_counted_as_text() -> None:
    assert tokens_of_json(msgspec.json.encode({"data": PROSE * 20})) > 500


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b";base64," * 1_000_000 + b'"',
        b'"' + b';base64,"' * 800_000,
        b'"' + b"A" * 8_000_000,
        b'"data":"' * 1_000_000,
    ],
)
@pytest.mark.timeout(30)  # quadratic work would take minutes
def test_the_time_is_linear_in_hostile_prompts(raw: bytes) -> None:
    assert 0 < tokens_of_json(raw) <= len(raw) + 256 * TOKENS_PER_MEDIUM


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_an_estimate_wrong_by_ten_is_learnt_within_seven_answers(factor: float) -> None:
    estimator = Estimator()
    prompt = call(PROSE * 10)
    truth = round(tokens_of_call(prompt) * factor)
    for _ in range(7):
        estimate = estimator.estimate(prompt, "route")
        estimator.learn(prompt, "route", estimate, Usage(truth, 20))

    assert estimator.estimate(prompt, "route").tokens_input == pytest.approx(truth, rel=0.25)
    assert estimator.estimate(prompt, "other").tokens_input == pytest.approx(
        truth / factor, rel=0.05
    )


def test_answers_to_calls_estimated_at_once_do_not_add_up() -> None:
    estimator = Estimator()
    prompt = call(PROSE * 10)
    truth = round(tokens_of_call(prompt) * 10)
    estimates = [estimator.estimate(prompt, "route") for _ in range(100)]
    for estimate in estimates:
        estimator.learn(prompt, "route", estimate, Usage(truth, 20))

    assert estimator.estimate(prompt, "route").tokens_input == pytest.approx(truth, rel=0.05)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_one_wrong_answer_moves_an_estimate_by_little(tokens: int, output: int) -> None:
    estimator = Estimator()
    prompt = call(PROSE * 10)
    before = estimator.estimate(prompt, "route")
    estimator.learn(prompt, "route", before, Usage(tokens, output))
    after = estimator.estimate(prompt, "route")

    assert before.tokens_input / 2 <= after.tokens_input <= before.tokens_input * 2
    assert before.tokens_output / 2 <= after.tokens_output <= before.tokens_output * 4


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=60))
def test_no_sequence_of_answers_drives_an_estimate_out_of_bounds(
    answers: list[tuple[int, int]],
) -> None:
    estimator = Estimator()
    prompt = call()
    first = estimator.estimate(prompt, "route").tokens_input
    for tokens_input, tokens_output in answers:
        estimate = estimator.estimate(prompt, "route")
        estimator.learn(prompt, "route", estimate, Usage(tokens_input, tokens_output))
    last = estimator.estimate(prompt, "route")

    assert 1 <= last.tokens_input <= 50 * first
    assert 1 <= last.tokens_output <= 10**9


def test_output_is_learnt_per_choice_and_bounded_by_the_caller() -> None:
    estimator = Estimator()
    for _ in range(30):
        estimate = estimator.estimate(call(n=2), "route")
        estimator.learn(call(n=2), "route", estimate, Usage(10, 2000))

    assert estimator.estimate(call(), "route").tokens_output == pytest.approx(1000, rel=0.05)
    assert estimator.estimate(call(n=4), "route").tokens_output == pytest.approx(4000, rel=0.05)
    capped = estimator.estimate(call(n=4, max_tokens=50), "route")

    assert (capped.tokens_output, capped.tokens_output_max) == (200, 200)


def test_an_estimate_that_passed_through_other_hands_teaches_the_same() -> None:
    prompt = call(PROSE * 10)
    taught = []
    for estimator in (Estimator(), Estimator()):
        made = estimator.estimate(prompt, "route")
        plain = Estimate(made.tokens_input, made.tokens_output, made.tokens_output_max)
        estimator.learn(prompt, "route", plain if taught else made, Usage(5000, 10))
        taught.append(estimator.estimate(prompt, "route").tokens_input)

    assert taught[0] == taught[1]


def test_embeddings_produce_no_output() -> None:
    body = b'{"model":"e","input":["some text","more"]}'
    embedding = OpenAIAdapter().parse(Endpoint.EMBEDDINGS, body)
    estimate = Estimator().estimate(embedding, "route")

    assert (estimate.tokens_output, estimate.tokens_output_max) == (0, 0)


def test_a_tenant_that_invents_routes_fills_no_memory() -> None:
    estimator = Estimator(routes_max=10)
    prompt = call()
    for number in range(1000):
        estimate = estimator.estimate(prompt, f"route-{number}")
        estimator.learn(prompt, f"route-{number}", estimate, Usage(10, 10))

    assert len(estimator) == 10
