"""The Celery application: `celery -A api.worker worker -Q transcription,scheduled --pool threads --concurrency 1`.

The pool is `threads`, so that the worker answers remote control (ping, cancel_consumer) while a task runs.
"""

from celery import Celery

from api.settings import redis_url

app = Celery("api", broker=redis_url(), backend=redis_url(), include=["api.tasks"])
app.conf.update(
    task_default_queue="transcription",
    task_routes={"api.tasks.expire_admin_sessions": {"queue": "scheduled"}},
    beat_schedule={
        "expire-admin-sessions": {"task": "api.tasks.expire_admin_sessions", "schedule": 60.0},
    },
    # A task whose worker died is taken up by another: transcribing twice gives the same transcript.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    # Redis gives the task of a dead worker to another after visibility_timeout seconds; no task takes nearly as long.
    broker_transport_options={"socket_connect_timeout": 5, "visibility_timeout": 60},
    redis_socket_connect_timeout=5,
    # Without these a caller waits 20 seconds to hear that Redis is not there.
    result_backend_transport_options={"retry_policy": {"max_retries": 2}},
    result_expires=3600,
    timezone="UTC",
)
