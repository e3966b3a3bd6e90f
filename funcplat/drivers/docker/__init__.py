"""The orchestrator driver ``docker``: workers are containers of a Docker Engine."""
