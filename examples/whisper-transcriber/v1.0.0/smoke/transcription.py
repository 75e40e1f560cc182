"""Uploads a recording, has it transcribed, plays it back: one line of JSON, exit code 0 only if all is as expected.

Talks to the API alone, from outside.
"""

import argparse
import io
import json
import math
import struct
import sys
import time
import wave

import httpx

# What the stand-in for the speech model makes of the tone below. Written down here, not computed, so that
# this check does not agree with a broken service.
EXPECTED_TEXT = (
    "almost field cover hour around large quiet country build current silver before silver "
    "field around every"
)


def tone() -> bytes:
    """Half a second of 440 Hz, 8 kHz, 16 bit, mono."""
    samples = [round(8000 * math.sin(2 * math.pi * 440 * i / 8000)) for i in range(4000)]
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return target.getvalue()


def run(client: httpx.Client, deadline: float, outcome: dict[str, object]) -> str | None:
    """Returns what is wrong, or None."""
    audio = tone()
    uploaded = client.post("/recordings", files={"file": ("smoke-check.wav", audio, "audio/wav")})
    uploaded.raise_for_status()
    recording_id = outcome["recording_id"] = uploaded.json()["id"]

    dispatched = client.post(f"/recordings/{recording_id}/transcribe")
    dispatched.raise_for_status()
    job_id = outcome["job_id"] = dispatched.json()["job_id"]
    while (state := client.get(f"/jobs/{job_id}").raise_for_status().json()["state"]) != "succeeded":
        if state == "failed":
            return "the job failed"
        if time.monotonic() > deadline:
            return f"the job is still {state}"
        time.sleep(0.2)

    text = client.get(f"/recordings/{recording_id}/transcript").raise_for_status().json()["text"]
    if text != EXPECTED_TEXT:
        return "the transcript is not the expected one"
    if client.get(f"/recordings/{recording_id}/audio").raise_for_status().content != audio:
        return "playback is not what was uploaded"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True, help="such as http://127.0.0.1:8000")
    parser.add_argument("--timeout", type=float, default=30, help="seconds (default: 30)")
    arguments = parser.parse_args()

    started = time.monotonic()
    outcome: dict[str, object] = {"check": "transcription"}
    try:
        with httpx.Client(base_url=arguments.base_url, timeout=10) as client:
            error = run(client, started + arguments.timeout, outcome)
    except (httpx.HTTPError, KeyError, ValueError) as problem:
        error = str(problem) if isinstance(problem, httpx.HTTPStatusError) else type(problem).__name__
    outcome |= {"ok": error is None, "seconds": round(time.monotonic() - started, 3)}
    if error is not None:
        outcome["error"] = error
    print(json.dumps(outcome))
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main())
