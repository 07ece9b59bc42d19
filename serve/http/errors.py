"""Refused requests, answered in OpenAI's error shape."""

from collections.abc import Mapping

from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from core.errors import Missing, Overdue, RatchetError, StoreError, Unavailable

SHOWN_CHARS = 80
"""Of a refused value that the message repeats."""


class Refusal(Exception):
    """Ends a request with an error. `kind` is OpenAI's `type`, `param` the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.headers = status, message, kind, param, headers

    def response(self) -> Response:
        param = None if self.param is None else in_utf_8(self.param)
        error = {"message": in_utf_8(self.message), "type": self.kind, "param": param, "code": self.status}
        return JSONResponse({"error": error}, self.status, self.headers)


def refusal_for(error: Refusal | RatchetError | ValidationError) -> Refusal:
    """503 for an error that may pass, 404 for an unknown id, 400 for a wrong request. For a body that does not fit its
    model the message names the first wrong field, its value and what was expected."""
    match error:
        case Refusal():
            return error
        case ValidationError():
            first = error.errors(include_url=False)[0]
            where = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"]).removeprefix(".")
            expected = first["msg"].removeprefix("Value error, ")
            value = repr(first["input"])[:SHOWN_CHARS]
            field = next((at for at in first["loc"] if isinstance(at, str)), None)
            return Refusal(400, f"{where or 'the body'}: {expected} (got {value})", param=field)
        case Missing():
            return Refusal(404, str(error), "not_found_error")
        case Unavailable() | Overdue() | StoreError():
            return Refusal(503, str(error), "unavailable_error")
        case _:
            return Refusal(400, str(error))


def in_utf_8(text: str) -> str:
    """The text with halves of surrogate pairs escaped: JSON can name them, and UTF-8 cannot hold them."""
    return text.encode(errors="backslashreplace").decode()
