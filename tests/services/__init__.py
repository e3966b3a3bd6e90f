"""Real servers for tests.

A test says ``self.useFixture(services.use("registry")).settings`` or
``self.useFixture(services.database("postgresql")).url``; the names are those of `tests.services.catalog`.
"""

from tests.services.access import database, use

__all__ = ["database", "use"]
