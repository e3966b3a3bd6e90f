"""Packages of functions, and the forms that upload them."""

from __future__ import annotations

import io
import pathlib
import uuid
import zipfile
from typing import Any


def of_file(path: pathlib.Path) -> bytes:
    """A package of one module."""
    return of_text(path.name, path.read_text())


def of_text(name: str, text: str | bytes) -> bytes:
    """A package of one file, unlike every other one, so that no store or cache knows it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
        archive.writestr("unique.txt", uuid.uuid4().hex)
    return data.getvalue()


def form(fields: dict[str, Any], package: bytes) -> tuple[bytes, str]:
    """A multipart form and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="package"; filename="package.zip"\r\n'
        "Content-Type: application/zip\r\n\r\n".encode()
    )
    parts += [package, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"
