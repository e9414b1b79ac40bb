"""An error in a stream that began well, in the words of the protocol that the stream speaks.

Both sides need it: the worker when a run fails, the front when the worker does.
"""

from __future__ import annotations

import msgspec

from penstock.errors import CallError
from penstock.http.error_body import ErrorShape, document
from penstock.http.sse import event


def late_error(error: CallError, shape: ErrorShape, request_id: str) -> bytes:
    """The stream's last event. OPENAI is the shape of chat completions, else it is LangServe's."""
    if shape is ErrorShape.OPENAI:
        return event(None, msgspec.json.encode(document(error, shape, request_id)))
    data = {"status_code": error.status, "message": error.message, "code": error.code}
    return event("error", msgspec.json.encode(data))
