"""Makes a part of a URL of a title, with a package that lies beside it."""

import slugs


def main(title: str, longest: int = 60) -> dict[str, str]:
    return {"title": title, "slug": slugs.slug(title, longest)}
