"""HTTP below the application: what cannot be parsed is answered in the one shape that errors have, too."""

from __future__ import annotations

import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from funcplat import errors
from funcplat.api.errors import body


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, which would answer a request that is none with plain text."""

    def send_400_response(self, msg: str) -> None:
        request_id = f"req-{uuid.uuid4().hex}"
        content = body(400, errors.InvalidRequest.code, "This is not a valid HTTP request.", request_id)
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(content)}\r\n"
            f"x-openstack-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + content)
        self.transport.close()
