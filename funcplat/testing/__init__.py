"""The public kit for authors of drivers: compliance tests that a stranger's driver runs in five lines.

Nothing of the platform itself imports this package.
"""

from funcplat.testing.orchestrator import OrchestratorDriverTests
from funcplat.testing.storage import StorageDriverTests

__all__ = ["OrchestratorDriverTests", "StorageDriverTests"]
