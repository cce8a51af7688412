"""What a supervisor refuses."""

from collections.abc import Awaitable

import pytest

from forktui.client.api import ApiError


async def refused(work: Awaitable[object]) -> ApiError:
    """Await what has to be refused, and return the error."""
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value
