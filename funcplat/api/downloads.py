"""Packages on their way out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import falcon.asgi

from funcplat.api.middleware import Request, identity
from funcplat.api.resource import Resource


class Downloads(Resource):
    """A resource that has a package."""

    async def download(
        self, req: Request, resp: falcon.asgi.Response, function_id: str, version: int, filename: str
    ) -> None:
        """Answer with the package of a function's version."""
        stack = contextlib.ExitStack()
        package = self.services.functions.download(identity(req), function_id, version)
        size, chunks = await self.run(stack.enter_context, package)
        resp.content_type = "application/zip"
        resp.set_header("Content-Disposition", f'attachment; filename="{filename}"')
        resp.set_stream(self._stream(chunks, stack), size)

    async def _stream(self, chunks: Iterator[bytes], stack: contextlib.ExitStack) -> AsyncIterator[bytes]:
        try:
            while chunk := await self.run(next, chunks, b""):
                yield chunk
        finally:
            await self.run(stack.close)
