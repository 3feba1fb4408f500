"""What of gunicorn's private code ours stands on. An upgrade that changes it fails here, and not in production.

When one does: read what gunicorn changed, see that `aibridge/serving/` still does the same and lets the rest be,
run the system tests under both worker classes, and put the new digest here.
"""

import hashlib
import inspect
from typing import Any

import pytest
from gunicorn.http import wsgi
from gunicorn.workers import ggevent, gthread

READ = [
    (gthread.ThreadWorker.enqueue_req, "c9f428953d24acef"),
    (gthread.ThreadWorker.finish_request, "616e7bb15a009ff7"),
    (gthread.ThreadWorker.handle, "ca85c9be3df75da4"),
    (gthread.ThreadWorker.handle_exit, "b4e7decd4f9203ac"),
    (gthread.ThreadWorker.handle_quit, "36bd35a8dae5d2b5"),
    (gthread.ThreadWorker.handle_request, "6d0de5b919102efc"),
    (gthread.ThreadWorker._keepalive_after, "4ebdbbc8bf5aafa5"),
    (gthread.ThreadWorker.murder_pending, "7bf11f46454296e1"),
    (gthread.ThreadWorker.run, "f92c7394d85715a4"),
    (gthread.ThreadWorker.set_accept_enabled, "140150ebfd3cae34"),
    (ggevent.GeventWorker.run, "50119854ef8be38c"),
    (wsgi.create, "2c35d4a2dc629ede"),
    (wsgi.Response, "d67f8e6b29d76622"),
]


@pytest.mark.parametrize(("code", "digest"), READ, ids=[code.__qualname__ for code, _ in READ])
def test_it_is_what_was_read(code: Any, digest: str) -> None:
    found = hashlib.sha256(inspect.getsource(code).encode()).hexdigest()
    assert found.startswith(digest), f"{code.__qualname__} is not the code that aibridge/serving/ was written for"
