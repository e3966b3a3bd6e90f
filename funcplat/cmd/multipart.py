"""multipart/form-data with a file part that is streamed, never held in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from funcplat.cmd import client


def body(
    fields: Mapping[str, str],
    name: str,
    filename: str,
    file: BinaryIO,
    size: int,
    progress: Callable[[int], None],
) -> client.Body:
    """A request body of text parts and one file part ``name``.

    ``file`` is read from its present position, ``size`` bytes of it; ``progress`` hears the number
    of bytes of each chunk that is handed to the connection.
    """
    boundary = f"funcplat-{secrets.token_hex(16)}"
    head = b"".join(_text_part(boundary, key, value) for key, value in fields.items())
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{_quoted(filename)}"\r\n'
        "Content-Type: application/zip\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def chunks() -> Iterator[bytes]:
        yield head
        while chunk := file.read(client.CHUNK):
            yield chunk
            progress(len(chunk))
        yield tail

    length = len(head) + size + len(tail)
    return client.Body(f"multipart/form-data; boundary={boundary}", length, chunks())


def _text_part(boundary: str, name: str, value: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
    ).encode()


def _quoted(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
