"""What the gateway recorded, and what is wrong with it."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import RowMapping

from aibridge.storage.database import Database
from aibridge.storage.tables import interceptions, token_usages, tool_usages
from tests.chaos.bill import Bill, Item


class Ledger:
    """The rows as they are now, of a database that is there."""

    def __init__(self, url: str) -> None:
        database = Database(url)
        with database.reading() as connection:
            self.interceptions: list[RowMapping] = list(connection.execute(interceptions.select()).mappings())
            self._usages: list[RowMapping] = list(connection.execute(token_usages.select()).mappings())
            self.calls: list[RowMapping] = list(connection.execute(tool_usages.select()).mappings())
        database.dispose()
        self._of: dict[str, list[RowMapping]] = defaultdict(list)
        for row in self.interceptions:
            self._of[row["initiator_id"]].append(row)

    def open(self) -> list[str]:
        return [row["initiator_id"] for row in self.interceptions if row["ended_at"] is None]

    def problems(self, bill: Bill, finished: Iterable[str], unfinished: Iterable[str]) -> list[str]:
        """Everything in which it is not what it has to be; empty when all is well."""
        costs = self._costs()
        found = [f"{request} is still open" for request in self.open()]
        found += [f"{key} was recorded {number} times" for key, number in self._twice().items()]
        found += [f"usage of unknown interception {key}" for key in costs.keys() - self._of.keys()]
        for request in finished:
            statuses = [row["status"] for row in self._of[request]]
            if statuses != ["completed"]:
                found.append(f"{request} was seen finished and is recorded as {statuses}")
            if sorted(costs[request]) != bill.of(request):
                found.append(f"{request}: billed {bill.of(request)}, recorded {sorted(costs[request])}")
        for request in unfinished:
            if len(self._of[request]) > 1:
                found.append(f"{request} has {len(self._of[request])} interceptions")
            known = {item.response_id for item in bill.of(request)}
            strange = [item for item in costs[request] if item.response_id not in known]
            found += [f"{request}: recorded {item}, which was never billed" for item in strange]
        return found

    def _costs(self) -> dict[str, list[Item]]:
        """By the request's name, which is its actor."""
        actors: dict[str, str] = {row["id"]: row["initiator_id"] for row in self.interceptions}
        calls: dict[str, list[str]] = defaultdict(list)
        for row in self.calls:
            calls[row["provider_response_id"]].append(row["provider_tool_call_id"])
        costs: dict[str, list[Item]] = defaultdict(list)
        for row in self._usages:
            tokens = (row["input_tokens"], row["cache_read_input_tokens"], row["output_tokens"])
            actor = actors.get(row["interception_id"], row["interception_id"])
            called = tuple(sorted(calls[row["provider_response_id"]]))
            costs[actor].append(Item(row["provider_response_id"], tokens, called))
        return costs

    def _twice(self) -> dict[str, int]:
        counted = Counter(row["provider_response_id"] for row in self._usages)
        counted.update(row["provider_tool_call_id"] for row in self.calls)
        return {key: number for key, number in counted.items() if number > 1}


def spool_problems(folder: Path) -> list[str]:
    """What should not be left of the spool once the database is back."""
    found = [f"{path.name} still waits" for path in folder.glob("*.jsonl") if path.stat().st_size]
    return found + [f"{path.name} was refused" for path in folder.glob("refused.log")]
