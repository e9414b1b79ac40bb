"""What a call takes from each limit: when it is admitted, and when its usage is known.

The providers differ here more than anywhere else, so the rule is data (``ChargeModel``, one
a provider kind, with its source in that provider's module) and this module only walks it.
"""

from __future__ import annotations

from penstock.units import (
    CONCURRENCY,
    ITPM,
    OTPM,
    RPD,
    RPM,
    TPD,
    TPM,
    Amounts,
    ChargeModel,
    Estimate,
    Usage,
)


def admission_amounts(model: ChargeModel, estimate: Estimate) -> Amounts:
    """What to reserve for a unit before it is sent."""
    tokens_input, tokens_output = estimate.tokens_input, estimate.tokens_output
    if model.output_at_admission == "none":
        total = tokens_input + tokens_output
    else:
        charged_output = estimate.tokens_output_max or 0
        total = tokens_input + charged_output
        if model.output_at_admission == "maximum":
            total = max(tokens_input, charged_output)
    return {
        RPM: 1,
        RPD: 1,
        CONCURRENCY: 1,
        TPM: total,
        TPD: total,
        ITPM: tokens_input,
        OTPM: tokens_output,
    }


def settled_amounts(model: ChargeModel, reserved: Amounts, usage: Usage) -> Amounts:
    """What the provider has charged in the end; the slot is free again.

    Where a provider charges on admission and refunds nothing, what was reserved stays.
    """
    cached = usage.tokens_input_cached if model.cached_input_is_free else 0
    tokens_input = max(0, usage.tokens_input - cached)
    settled = {**reserved, CONCURRENCY: 0, OTPM: usage.tokens_output}
    if model.settles_input:
        settled[ITPM] = tokens_input
        settled[TPM] = settled[TPD] = tokens_input + usage.tokens_output
    return settled


def failed_amounts(model: ChargeModel, reserved: Amounts) -> Amounts:
    """What stays charged when the provider refused or failed the call."""
    counted = 1.0 if model.failed_requests_count else 0.0
    kept = dict.fromkeys(reserved, 0.0)
    kept[RPM] = counted
    kept[RPD] = counted
    return kept
