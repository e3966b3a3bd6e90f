"""The storage driver ``registry``: images and packages in any OCI distribution registry.

Downwards: `driver` (the interface) -> `packages`, `images` (the two sides) -> `repository` (the registry's
API) -> `tokens` (authorization) -> `transport` (HTTP).  `names`, `manifests`, `challenges` and `credentials`
are grammar and values without input or output, but for the file that credentials come from.
"""
