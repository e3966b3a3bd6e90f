"""The public kit for authors: compliance tests that a stranger's driver or worker runs in a few lines.

Nothing of the platform itself imports this package.
"""

from funcplat.testing.orchestrator import OrchestratorDriverTests
from funcplat.testing.storage import StorageDriverTests
from funcplat.testing.worker import WorkerCarriedTests, WorkerLimitTests, WorkerTests

__all__ = [
    "OrchestratorDriverTests",
    "StorageDriverTests",
    "WorkerCarriedTests",
    "WorkerLimitTests",
    "WorkerTests",
]
