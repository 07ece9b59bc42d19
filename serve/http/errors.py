"""A request that is refused, in OpenAI's shape."""

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from core.errors import Missing, Overdue, RatchetError, StoreError, Unavailable


class Refusal(Exception):
    """A request that is answered with an error in OpenAI's shape."""

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
        param = None if self.param is None else _sayable(self.param)
        error = {"message": _sayable(self.message), "type": self.kind, "param": param, "code": self.status}
        return JSONResponse({"error": error}, self.status, self.headers)


def refusal_for(error: RatchetError) -> Refusal:
    """503 for what may be tried again, 404 for what is not there, 400 for what was asked wrongly."""
    if isinstance(error, Missing):
        return Refusal(404, str(error), "not_found_error")
    if isinstance(error, Unavailable | Overdue | StoreError):
        return Refusal(503, str(error), "unavailable_error")
    return Refusal(400, str(error))


def _sayable(text: str) -> str:
    """JSON can name half of a surrogate pair, and a client may be told so, but not in UTF-8."""
    return text.encode(errors="backslashreplace").decode()
