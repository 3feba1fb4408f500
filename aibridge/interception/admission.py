"""Who may come in: places for requests at once, in all and for each actor, and each actor's rate.

Counts only; what a request is and when its answer is over, the web layer knows. Nobody waits here: whoever finds
no place is refused at once and told when to come again.
"""

from collections import Counter
from threading import Lock

import structlog

from aibridge.errors import GatewayError, RateLimited, Unavailable
from aibridge.interception.rates import Rate, Window

RETRY_AFTER = 1.0  # seconds; nobody knows when a request ends, and most do so soon
# Lines that a flood may write: so many in so many seconds for each reason. The next line counts those left out.
LOGGED = (5, 10.0)

_log = structlog.get_logger("aibridge.limits")


class Admission:
    """`capacity` requests at once, of which `threads` hold a thread, `per_actor` for one actor (0: any number),
    `rate` for each actor."""

    def __init__(
        self, *, capacity: int = 0, threads: int = 0, per_actor: int = 0, rate: Rate | None = None
    ) -> None:
        self._capacity = capacity
        self._threads = threads
        self._per_actor = per_actor
        self._rate = rate
        self._taken = 0
        self._holding = 0  # of these, how many hold a thread
        self._actors: Counter[str] = Counter()
        self._lock = Lock()
        self._lines: Rate = Window(*LOGGED)
        self._unlogged: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken

    @property
    def actors(self) -> int:
        """How many actors have a place."""
        return len(self._actors)

    def enter(self) -> "Place":
        """A place for one request; whoever gets it sees to its `leave`. Raises Unavailable."""
        with self._lock:
            room = not self._capacity or self._taken < self._capacity
            if room and (not self._threads or self._holding < self._threads):
                self._taken += 1
                self._holding += 1
                return Place(self)
        error = Unavailable("the gateway is serving as many requests as it can", retry_after=RETRY_AFTER)
        raise self._logged(error, "all places are taken")

    def _seat(self, actor: str) -> None:
        with self._lock:
            if not self._per_actor or self._actors[actor] < self._per_actor:
                self._actors[actor] += 1
                return
        error = RateLimited(f"more than {self._per_actor} requests at once", retry_after=RETRY_AFTER)
        raise self._logged(error, "too many requests of the actor at once", actor)

    def _count(self, actor: str) -> None:
        wait = self._rate.hit(actor) if self._rate is not None else 0.0
        if wait > 0:
            error = RateLimited("too many requests in too little time", retry_after=wait)
            raise self._logged(error, "the actor's rate", actor)

    def _thread_freed(self, place: "Place") -> None:
        with self._lock:
            if not place.rests:
                place.rests = True
                self._holding -= 1

    def _left(self, place: "Place") -> None:
        self._thread_freed(place)
        with self._lock:
            if place.left:
                return
            place.left = True
            self._taken -= 1
            if place.actor is not None:
                self._actors[place.actor] -= 1
                if not self._actors[place.actor]:
                    del self._actors[place.actor]

    def _logged(self, error: GatewayError, reason: str, actor: str | None = None) -> GatewayError:
        """The error, after one line about it: such a request leaves no other trace."""
        if self._lines.hit(reason) > 0:
            self._unlogged[reason] += 1
        else:
            about = {"actor": actor} if actor is not None else {}
            _log.warning("request refused", reason=reason, **about, unlogged=self._unlogged.pop(reason, 0))
        return error


class Place:
    """One request's place, from `enter` to `leave`."""

    __slots__ = ("_admission", "actor", "left", "rests")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.actor: str | None = None
        self.left = False
        self.rests = False

    def claim(self, actor: str) -> None:
        """Once, as soon as it is known whose request this is. Raises RateLimited; the place is held even so."""
        self._admission._seat(actor)
        self.actor = actor
        self._admission._count(actor)

    def rest(self) -> None:
        """From now on the request holds no thread. Every further call does nothing."""
        self._admission._thread_freed(self)

    def leave(self) -> None:
        """Give the place back. Every further call does nothing."""
        self._admission._left(self)
