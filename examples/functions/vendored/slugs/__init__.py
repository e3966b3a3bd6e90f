"""A stand-in for a dependency from the package index: it lies in the package, so it is imported as usual."""

import re
import unicodedata


def slug(text: str, longest: int) -> str:
    """``text`` in lower-case ASCII letters and digits, other characters as single hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:longest].rstrip("-")
