"""The body of an error answer, which the SDKs read by themselves and to its end, before they tell of it."""

from collections.abc import Callable, Iterator

from aibridge.errors import ClientGone, UpstreamError
from aibridge.providers.decoding import ProviderBody

LARGEST_REFUSAL = 4 * 1024 * 1024  # bytes, unpacked


class Refusal(ProviderBody):
    """Raises ClientGone as soon as nobody waits for it any more, UpstreamError when it is too large to be held,
    and what reading `body` raises."""

    def __init__(self, body: ProviderBody, abandoned: Callable[[], bool]) -> None:
        self._body = body
        self._abandoned = abandoned

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        try:
            for chunk in self._body:
                size += len(chunk)
                if size > LARGEST_REFUSAL:
                    raise UpstreamError("the provider's error answer is too large")
                if not chunk and self._abandoned():
                    raise ClientGone
                yield chunk
        except BaseException:
            self.close()  # httpx2 closes only what was read to its end
            raise

    def close(self) -> None:
        self._body.close()
