"""Tells, pauses and resumes which queues Celery's workers consume, by Celery's own remote control.

Runs in the service's Python with the application's folder as working directory. Reads one JSON object from standard
input: {"app", "action": "read" | "pause" | "resume", "queues": [...], "consumers": {queue: [worker, ...]}, "seconds"}.
Writes one JSON object: {"workers": [...], "consumers": {queue: [worker, ...]}, "unfinished": n, "confirmed": bool}.

A queue that is not consumed keeps its tasks. What a worker has taken already, it finishes.
"""

import json
import os
import sys
import time

# What the application prints while it is imported must not end up in the answer.
answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

sys.path.insert(0, os.getcwd())

from celery.app.utils import find_app  # noqa: E402

# Each round of questions waits this long for all workers: nobody knows how many there are.
ROUND = 1.0


def consumers_of(app, queues):
    """Workers that answer, and for each queue those that consume it."""
    replies = app.control.inspect(timeout=ROUND).active_queues() or {}
    consumers = {queue: [] for queue in queues}
    for worker, active in sorted(replies.items()):
        for name in {queue["name"] for queue in active}:
            if name in consumers:
                consumers[name].append(worker)
    return sorted(replies), consumers


def unfinished_of(app, queues, workers):
    """Tasks from these queues that workers have taken and not finished."""
    if not workers:
        return 0
    inspect = app.control.inspect(destination=workers, timeout=ROUND, limit=len(workers))
    taken = [*(inspect.active() or {}).values(), *(inspect.reserved() or {}).values()]
    return sum(
        1
        for tasks in taken
        for task in tasks
        if (task.get("delivery_info") or {}).get("routing_key") in queues
    )


def pause(app, queues, deadline):
    workers, before = consumers_of(app, queues)
    consumers, seen = before, set(workers)
    while True:
        for queue, consuming in consumers.items():
            if consuming:
                app.control.cancel_consumer(
                    queue, destination=consuming, reply=True, timeout=ROUND, limit=len(consuming)
                )
        workers, consumers = consumers_of(app, queues)
        # One that no longer answers may well consume: silence confirms nothing.
        confirmed = bool(workers) and seen <= set(workers) and not any(consumers.values())
        if confirmed or time.monotonic() > deadline:
            break
        seen |= set(workers)
    unfinished = unfinished_of(app, queues, workers)
    while confirmed and unfinished and time.monotonic() < deadline:
        time.sleep(0.5)
        unfinished = unfinished_of(app, queues, workers)
    return workers, consumers, unfinished, confirmed


def resume(app, queues, wanted, deadline):
    while True:
        workers, consumers = consumers_of(app, queues)
        missing = {
            queue: [worker for worker in wanted.get(queue, []) if worker in workers and worker not in consumers[queue]]
            for queue in queues
        }
        # A worker that is gone for good (a new deployment has new names) is no obstacle where another consumes.
        abandoned = [queue for queue in queues if wanted.get(queue) and not consumers[queue] and not missing[queue]]
        confirmed = not any(missing.values()) and not abandoned
        if confirmed or time.monotonic() > deadline:
            return workers, consumers, 0, confirmed
        for queue, waiting in missing.items():
            if waiting:
                app.control.add_consumer(queue, destination=waiting, reply=True, timeout=ROUND, limit=len(waiting))
        if abandoned:
            time.sleep(0.5)


def main():
    order = json.load(sys.stdin)
    app = find_app(order["app"])
    # A broker that does not answer is an error within the time limit, not a reason to wait for ever.
    app.conf.broker_connection_retry = False
    app.conf.broker_connection_timeout = 5
    app.conf.broker_transport_options = {
        **(app.conf.broker_transport_options or {}),
        "socket_connect_timeout": 5,
        "socket_timeout": max(10, order["seconds"]),
    }
    deadline = time.monotonic() + order["seconds"]
    queues = order["queues"]
    if order["action"] == "pause":
        workers, consumers, unfinished, confirmed = pause(app, queues, deadline)
    elif order["action"] == "resume":
        workers, consumers, unfinished, confirmed = resume(app, queues, order["consumers"], deadline)
    else:
        workers, consumers = consumers_of(app, queues)
        unfinished, confirmed = 0, bool(workers)
    result = {"workers": workers, "consumers": consumers, "unfinished": unfinished, "confirmed": confirmed}
    answer.write(json.dumps(result) + "\n")
    answer.flush()


main()
