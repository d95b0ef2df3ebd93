"""The Celery application: how tasks travel. What they do is in `workers.task`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.board import QUEUE

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["TASK", "make_app"]

TASK = "attrib.shard"

_VISIBILITY_S = 6 * 3600
"""Redis gives a task that nobody acknowledged to another worker after so long.

Longer than any shard takes. It is a last resort: the coordinator notices by missing signs of life
what was lost, within a minute, and whatever comes twice is recognised by its sending.
"""


def make_app(redis_url: str) -> Celery:
    """The application on that Redis. Nothing is connected yet."""
    from celery import Celery

    app = Celery("attrib", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        # A task is acknowledged when it is done, and comes back when its worker is lost.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        # A result is a file beside the features: nothing is kept in Redis.
        task_ignore_result=True,
        result_backend=None,
        # JSON alone: nothing that comes from Redis is ever run.
        task_serializer="json",
        accept_content=["json"],
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_S,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "health_check_interval": 30,
            "retry_on_timeout": True,
        },
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A shard in hand is finished and kept, whatever became of the connection meanwhile.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_publish_retry=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app
