"""What a call takes from each limit, by the provider's own rule."""

from __future__ import annotations

from penstock.limits.charge import admission_amounts, failed_amounts, settled_amounts
from penstock.units import ChargeModel, Estimate, LimitName, Usage

OPENAI = ChargeModel("maximum")
AZURE = ChargeModel("sum")
ANTHROPIC = ChargeModel(
    "none", settles_input=True, cached_input_is_free=True, failed_requests_count=False
)
ESTIMATE = Estimate(tokens_input=100, tokens_output=50, tokens_output_max=400)


def test_openai_charges_the_larger_of_prompt_and_maximum_and_refunds_nothing():
    reserved = admission_amounts(OPENAI, ESTIMATE)
    assert reserved[LimitName.TPM] == 400
    assert admission_amounts(OPENAI, Estimate(100, 50))[LimitName.TPM] == 100
    assert settled_amounts(OPENAI, reserved, Usage(90, 10))[LimitName.TPM] == 400


def test_azure_charges_prompt_and_maximum_together():
    assert admission_amounts(AZURE, ESTIMATE)[LimitName.TPM] == 500


def test_anthropic_ignores_the_maximum_and_settles_to_what_was_used_and_not_cached():
    reserved = admission_amounts(ANTHROPIC, ESTIMATE)
    assert (reserved[LimitName.ITPM], reserved[LimitName.OTPM]) == (100, 50)

    settled = settled_amounts(ANTHROPIC, reserved, Usage(120, 70, tokens_input_cached=80))
    assert (settled[LimitName.ITPM], settled[LimitName.OTPM]) == (40, 70)


def test_a_settled_call_holds_no_slot_and_keeps_its_request():
    reserved = admission_amounts(OPENAI, ESTIMATE)
    settled = settled_amounts(OPENAI, reserved, Usage(1, 1))
    assert (settled[LimitName.CONCURRENCY], settled[LimitName.RPM]) == (0, 1)


def test_a_failed_call_counts_as_a_request_where_the_provider_counts_it():
    reserved = admission_amounts(OPENAI, ESTIMATE)
    assert failed_amounts(OPENAI, reserved)[LimitName.RPM] == 1
    assert failed_amounts(OPENAI, reserved)[LimitName.TPM] == 0
    assert failed_amounts(ANTHROPIC, reserved)[LimitName.RPM] == 0
