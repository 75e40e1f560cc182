"""Sends a task to the workers and waits for its result: one line of JSON, exit code 0 only if it came back.

Reads REDIS_URL; needs no database.
"""

import argparse
import json
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from api.tasks import ping  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout", type=float, default=15, help="seconds (default: 15)")
    timeout = parser.parse_args().timeout

    sent = str(uuid.uuid4())
    started = time.monotonic()
    outcome: dict[str, object] = {"check": "celery-ping", "task_id": sent}
    try:
        # expires: what nobody took in time must not be done later, when nobody waits for it.
        result = ping.apply_async((sent,), task_id=sent, retry=False, expires=timeout)
        try:
            outcome["ok"] = result.get(timeout=timeout) == sent
        finally:
            result.forget()
    except Exception as error:  # noqa: BLE001 - whatever it is, the check has failed and says so
        outcome |= {"ok": False, "error": type(error).__name__}
    outcome["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(outcome))
    return 0 if outcome["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
