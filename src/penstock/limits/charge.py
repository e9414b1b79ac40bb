"""What a call takes from each limit: when it is admitted, and when its usage is known.

The providers differ here more than anywhere else, so the rule is data (``ChargeModel``, one
a provider kind, with its source in that provider's module) and this module only walks it.
"""

from __future__ import annotations

from penstock.units import Amounts, ChargeModel, Estimate, LimitName, Usage


def admission_amounts(model: ChargeModel, estimate: Estimate) -> Amounts:
    """What to reserve for a unit before it is sent."""
    charged_output = _charged_output(model, estimate)
    if model.output_at_admission == "maximum":
        total = max(estimate.tokens_input, charged_output)
    else:
        total = estimate.tokens_input + charged_output
    return {
        LimitName.RPM: 1,
        LimitName.RPD: 1,
        LimitName.CONCURRENCY: 1,
        LimitName.TPM: total,
        LimitName.TPD: total,
        LimitName.ITPM: estimate.tokens_input,
        LimitName.OTPM: estimate.tokens_output,
    }


def settled_amounts(model: ChargeModel, reserved: Amounts, usage: Usage) -> Amounts:
    """What the provider has charged in the end; the slot is free again.

    Where a provider charges on admission and refunds nothing, what was reserved stays.
    """
    cached = usage.tokens_input_cached if model.cached_input_is_free else 0
    tokens_input = max(0, usage.tokens_input - cached)
    settled = dict(reserved)
    settled[LimitName.CONCURRENCY] = 0
    settled[LimitName.OTPM] = usage.tokens_output
    if model.settles_input:
        settled[LimitName.ITPM] = tokens_input
        settled[LimitName.TPM] = settled[LimitName.TPD] = tokens_input + usage.tokens_output
    return settled


def failed_amounts(model: ChargeModel, reserved: Amounts) -> Amounts:
    """What stays charged when the provider refused or failed the call."""
    counted = 1.0 if model.failed_requests_count else 0.0
    kept = dict.fromkeys(reserved, 0.0)
    kept[LimitName.RPM] = counted
    kept[LimitName.RPD] = counted
    return kept


def _charged_output(model: ChargeModel, estimate: Estimate) -> int:
    """The output that counts on admission."""
    if model.output_at_admission == "none":
        return estimate.tokens_output
    return estimate.tokens_output_max or 0
