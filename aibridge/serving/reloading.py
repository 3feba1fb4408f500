"""A reload that holds up nothing.

gunicorn's master waits within a reload until the old workers are gone, as long as they may take; meanwhile it
hears no signal, and a new worker that dies is not replaced. It waits in order not to tell them twice to stop. Here
it does not wait, and afterwards it neither tells them again nor counts them among those who serve.
"""

from contextlib import suppress
from typing import Any


class _Waiting(Exception):
    """The reload is over but for the wait."""


def reload_without_waiting(master: Any) -> None:
    """gunicorn's `master` goes on once a reload has started the new workers and told the old ones to stop."""
    reload, manage = master.reload, master.manage_workers
    retired = 0  # the age of the newest worker that was told to stop; later ones have greater ages

    def manage_the_others() -> None:
        leaving = {pid: worker for pid, worker in master.WORKERS.items() if worker.age <= retired}
        for pid in leaving:
            del master.WORKERS[pid]
        try:
            manage()
        finally:
            master.WORKERS.update(leaving)

    def manage_all_and_return() -> None:
        manage()
        raise _Waiting

    def reload_and_return() -> None:
        nonlocal retired
        newest = master.worker_age
        master.manage_workers = manage_all_and_return
        try:
            with suppress(_Waiting):
                reload()
        finally:
            master.manage_workers = manage_the_others
        retired = newest

    master.reload, master.manage_workers = reload_and_return, manage_the_others
