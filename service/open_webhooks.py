"""Starts the delivery of events, if the settings name a receiver.

Settings, Store -> Endpoint, Outbox -> Delivery: a task until the service stops
"""

import asyncio
import random
import ssl
import time
from contextlib import AsyncExitStack

from service.config import Settings
from service.ledger.batches import Batches
from service.ledger.outbox import Outbox
from service.ledger.store import Store
from service.start_error import StartError
from service.upstream.client import transport
from service.webhook_metrics import WebhookMetrics
from service.webhooks.delivery import LANES, Delivery
from service.webhooks.endpoint import Endpoint
from service.webhooks.schedule import SECOND


def open_webhooks(
    settings: Settings,
    store: Store,
    batches: Batches,
    metrics: WebhookMetrics,
    resources: AsyncExitStack,
) -> None:
    """Start the delivery of events, unless they are off.

    Args:
        settings: The settings.
        store: The store with the outbox.
        batches: Runs functions on the store.
        metrics: Counts attempts.
        resources: Stops the delivery.

    Raises:
        StartError: The file of certificate authorities cannot be used.
    """
    if not settings.events_url:
        return
    try:
        connections = transport(max_connections=LANES, verify=settings.events_ca_file or True)
    except ssl.SSLError as error:
        raise StartError("CHAT_EVENTS_CA_FILE: holds no certificates in PEM") from error
    endpoint = Endpoint(
        connections,
        settings.events_url,
        authorization=settings.events_authorization,
        within=settings.events_timeout,
    )
    delivery = Delivery(
        Outbox(store),
        batches,
        endpoint,
        metrics,
        source=settings.events_source,
        keys=settings.events_secrets,
        within=settings.events_timeout,
        longest=int(settings.events_max_age) * SECOND,
        now=time.time_ns,
        random=random.random,
    )
    resources.push_async_callback(delivery.stop, asyncio.create_task(delivery.run()))
