"""Webhooks in answers."""

from __future__ import annotations

import msgspec

from funcplat.api import views
from funcplat.core.webhooks import Webhook


class WebhookView(msgspec.Struct):
    """A webhook; secret is there in the answer to the request that set it, and never again."""

    id: str
    function_id: str | None
    function_alias: str | None
    function_version: int | None
    description: str | None
    project_id: str
    created_at: str | None
    updated_at: str | None
    webhook_url: str
    signed: bool
    previous_secret_expires_at: str | None
    rate_limit: int | None
    rate_burst: int | None
    secret: str | msgspec.UnsetType = msgspec.UNSET


class InvokedView(msgspec.Struct):
    """The answer to a call of a webhook."""

    execution_id: str


def webhook(row: Webhook, base_url: str, secret: str | None = None) -> WebhookView:
    """``base_url``: the URL of the API, without ``/v1``."""
    return WebhookView(
        id=row.id,
        function_id=row.function_id,
        function_alias=row.function_alias,
        function_version=row.function_version,
        description=row.description,
        project_id=row.project_id,
        created_at=views.timestamp(row.created_at),
        updated_at=views.timestamp(row.updated_at),
        webhook_url=f"{base_url}/v1/webhooks/{row.id}/invoke",
        signed=row.signed,
        previous_secret_expires_at=views.timestamp(row.previous_secret_expires_at),
        rate_limit=row.rate_limit,
        rate_burst=row.rate_burst,
        secret=msgspec.UNSET if secret is None else secret,
    )
