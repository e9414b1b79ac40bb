"""Azure OpenAI: OpenAI's wire with keys, addresses and a charge of its own.

Sources, read 2026-11: Microsoft Learn, "Azure OpenAI quotas and limits", "Manage quota" ("a max
processed-token count per request: prompt text and count, the max_tokens setting, the best_of
setting … added to a running token count of all requests, which resets every minute"), and
"Azure OpenAI API version lifecycle" (the v1 API).

- Charge: prompt and ``max_tokens`` (times the answers asked for) *together*, at admission; nothing
  is given back. Its token counter is reset each minute: ``algorithm = "window"`` says so of a
  deployment. Requests are evaluated over 1 or 10 seconds: ``request_window_seconds = 10``.
- ``x-ratelimit-remaining-requests`` counts such a short window, not the minute (so a public
  answer of Microsoft's: a limit of 20 shown for 120 a minute), so requests are not learnt from
  headers; tokens are.
- The key goes into ``api-key``. Two addresses: the v1 API (``https://NAME.openai.azure.com/openai/
  v1``, nothing to set) and the dated one: ``api_version`` set, ``base_url`` ends with ``/openai``,
  and the deployment's name stands in the path (but for responses, where it stands in the body).
- 429 texts: "exceeded token rate limit … Please retry after 6 seconds".
"""

from __future__ import annotations

from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter
from penstock.units import ChargeModel, LimitName


class AzureAdapter(OpenAIAdapter):
    """The kind "azure"."""

    kind = "azure"
    charge = ChargeModel(output_at_admission="sum")
    limit_headers = ((LimitName.TPM, "tokens"),)

    def url(self, base_url: str, endpoint: Endpoint, model: str, version: str | None) -> str:
        """Where to send a call: by the v1 API, or by the dated one where a version is set."""
        path = endpoint.value.removeprefix("/v1")
        if version is None:
            return base_url + path
        if endpoint is Endpoint.RESPONSES:
            return f"{base_url}{path}?api-version={version}"
        return f"{base_url}/deployments/{model}{path}?api-version={version}"

    def _key_header(self, key: str) -> dict[str, str]:
        return {"api-key": key}
