"""The house's rules, checked from the syntax trees: floors, one vendor one folder, no late imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "aibridge"

# A module imports from lower floors, or from its own folder. The longest matching prefix counts.
FLOORS = {
    "aibridge": 0,
    "aibridge.settings": 0,
    "aibridge.cores": 0,
    "aibridge.errors": 0,
    "aibridge.records": 0,
    "aibridge.sockets": 0,
    "aibridge.protocols": 1,
    "aibridge.upstream": 2,
    "aibridge.interception": 3,
    "aibridge.actions": 4,
    "aibridge.mcp": 4,
    "aibridge.providers": 4,
    "aibridge.shared": 4,
    "aibridge.storage": 4,
    "aibridge.telemetry": 4,
    "aibridge.web": 5,
    "aibridge.serving": 6,
    "aibridge.app": 6,
    "aibridge.hosting": 6,
    "aibridge.toolboxes": 6,
    "aibridge.cli": 6,
    "aibridge.tabular": 6,
    "aibridge.__main__": 6,
}

# Who may import a vendor's package.
VENDORS = {
    "anthropic": {"aibridge.providers"},
    "boto3": {"aibridge.providers"},
    "botocore": {"aibridge.providers"},
    "httpx2": {"aibridge.providers", "aibridge.mcp"},
    "httptools": {"aibridge.providers"},
    "mcp": {"aibridge.mcp"},
    "mcp_types": {"aibridge.mcp"},
    "requests": {"aibridge.providers", "aibridge.actions"},
    "urllib3": {"aibridge.providers", "aibridge.actions"},
    "limits": {"aibridge.shared"},
    "redis": {"aibridge.shared"},
    "sqlalchemy": {"aibridge.storage"},
    "alembic": {"aibridge.storage"},
    "psycopg": {"aibridge.storage"},
    "flask": {"aibridge.web", "aibridge.app"},
    "werkzeug": {"aibridge.web"},
    "gunicorn": {"aibridge.serving"},
    "gevent": {"aibridge.serving"},
    "click": {"aibridge.cli", "aibridge.tabular"},
}

# Imports inside functions, each with its reason.
LATE_IMPORTS = {
    ("aibridge", "aibridge.app"),  # reading the settings must not import the web stack
    ("aibridge", "aibridge.settings"),
    ("aibridge.cli", "aibridge.toolboxes"),  # starting the command is to be light
    ("aibridge.toolboxes", "aibridge.mcp.toolbox"),  # 0.5 s and 26 MiB that only MCP servers are worth
    ("aibridge.providers.bedrock_events", "botocore.eventstream"),  # optional: only Bedrock needs it
    ("aibridge.serving.patching", "gevent"),  # optional: only that worker class needs it
}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text("utf-8"), str(path))
    return found


MODULES = modules()


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module)):
            return [
                f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module for alias in node.names
            ]
    return []


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """(imported module, inside a function) pairs, without those for type checkers only."""
    tree = MODULES[module]
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    late = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) not in typing_only:
            for name in imported(node):
                yield name, id(node) in late


def folder(module: str) -> str:
    """The named part of the house that a module belongs to."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(prefix for prefix in prefixes if prefix in FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_or_stay_in_the_folder(module: str) -> None:
    for name, late in imports(module):
        if name.split(".")[0] != "aibridge" or (late and (module, name) in LATE_IMPORTS):
            continue
        here, there = folder(module), folder(name)
        allowed = (
            here == there
            or FLOORS[there] < FLOORS[here]
            or (FLOORS[here] in (0, 6) and FLOORS[there] == FLOORS[here])
        )
        assert allowed, f"{module} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[there]})"


@pytest.mark.parametrize("module", MODULES)
def test_a_vendor_lives_in_one_folder(module: str) -> None:
    for name, _ in imports(module):
        allowed = VENDORS.get(name.split(".")[0])
        assert allowed is None or folder(module) in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_stand_at_the_top(module: str) -> None:
    late = {(module, name) for name, inside in imports(module) if inside}
    assert late <= LATE_IMPORTS


def test_nothing_imports_itself_in_a_circle() -> None:
    graph = {
        module: {name for name, late in imports(module) if name in MODULES and not late} for module in MODULES
    }
    while leaves := [module for module, names in graph.items() if not names - {module}]:
        for leaf in leaves:
            del graph[leaf]
        graph = {module: names - set(leaves) for module, names in graph.items()}
    assert not graph, f"imports form a circle: {graph}"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    tree = MODULES[module]
    assert ast.get_docstring(tree) or not tree.body, f"{module} has no docstring"
