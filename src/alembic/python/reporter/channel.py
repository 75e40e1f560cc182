"""Lines of JSON to the worker, and its one-word answers.

A slow reader must not hold up a migration that has locks: nothing but a barrier waits for it. What the pipe does not take is
kept, up to a bound; beyond it statements are dropped and counted.
"""

import json
import os
import select
import socket
import threading
import time

KEPT = 8 * 1024 * 1024
LAST_WORDS = 5.0
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Channel:
    def __init__(self, events, answers, address=None):
        self.owner = os.getpid()
        self.address = address
        self.lock = threading.RLock()
        self.buffer = bytearray()
        self.dropped = 0
        self.broken = False
        self.noted = set()
        self._use(events, answers)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @classmethod
    def inherited(cls):
        events = os.environ.pop("RUNBOOK_EVENTS_FD", "")
        answers = os.environ.pop("RUNBOOK_ACK_FD", "")
        return cls(int(events), int(answers)) if events and answers else None

    @classmethod
    def connected(cls, address):
        descriptor = _connect(address)
        return cls(descriptor, descriptor, address)

    def _use(self, events, answers):
        self.events = events
        self.answers = answers
        for descriptor in (events, answers):
            os.set_inheritable(descriptor, False)
        os.set_blocking(events, False)

    def _after_fork(self):
        """Two processes must not write into one socket. Inherited descriptors cannot be opened anew: they are shared."""
        self.lock = threading.RLock()
        self.buffer = bytearray()
        if self.address is None or self.broken:
            return
        try:
            self._use(*([_connect(self.address)] * 2))
        except OSError:
            self.broken = True

    def report(self, event):
        """Tells what may be dropped."""
        with self.lock:
            if self.broken:
                return
            if len(self.buffer) > KEPT:
                self.dropped += 1
                self._flush(0)
                return
            if self.dropped:
                self._keep({"event": "dropped", "count": self.dropped})
                self.dropped = 0
            self._keep(event)
            self._flush(0)

    def tell(self, event):
        """Tells what must not be dropped."""
        with self.lock:
            self._keep(event)
            self._flush(0)

    def note(self, text):
        """For whoever reads the run's record; the same text once."""
        if text not in self.noted and len(self.noted) < 100:
            self.noted.add(text)
            self.tell({"event": "note", "text": text[:300]})

    def trouble(self, where, error):
        self.note("while the statements were watched (%s): %s" % (where, self.describe(error)))

    @staticmethod
    def describe(error):
        return ("%s: %s" % (type(error).__name__, error)).strip()[:200]

    def ask(self, event):
        """Whether the other side wants it to go on. A worker that is gone wants nothing."""
        self.tell(event)
        with self.lock:
            self._flush(None)
        try:
            return not self.broken and self._answer(None) == b"ok"
        except OSError:
            return False

    def end(self):
        """Makes sure that everything has been read, but does not wait for long."""
        if os.getpid() != self.owner or self.broken:
            return
        try:
            if self.dropped:
                self.tell({"event": "dropped", "count": self.dropped})
            self.tell({"event": "end"})
            with self.lock:
                self._flush(LAST_WORDS)
            if not self.broken and not self.buffer:
                self._answer(LAST_WORDS)
        except OSError:
            pass

    def _keep(self, event):
        self.buffer += _encode(event).encode("ascii") + b"\n"

    def _flush(self, seconds):
        """Writes what is kept, for so many seconds at most; None: until it is written."""
        until = None if seconds is None else time.monotonic() + seconds
        while self.buffer and not self.broken:
            try:
                written = os.write(self.events, bytes(self.buffer[:65536]))
                del self.buffer[:written]
            except BlockingIOError:
                if not _wait(self.events, select.POLLOUT, until):
                    return
            except OSError:
                self.broken = True
                self.buffer.clear()

    def _answer(self, seconds):
        until = None if seconds is None else time.monotonic() + seconds
        answer = b""
        while True:
            if not _wait(self.answers, select.POLLIN, until):
                return b""
            byte = os.read(self.answers, 1)
            if byte in (b"", b"\n"):
                return answer if byte else b""
            answer += byte


def _connect(address):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(LAST_WORDS)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection.detach()


def _wait(descriptor, wanted, until):
    """False when the time is over. An end or an error counts as ready: reading or writing tells which."""
    poll = select.poll()
    poll.register(descriptor, wanted)
    while True:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return False
        if poll.poll(None if left is None else max(1, left * 1000)):
            return True
