"""What the package never does: strings for shells, code from data, pages without escaping.

ruff's rules of the family S see most of it; here is what they do not see, and that they are switched on.
"""

import ast
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def has(call: ast.Call, **wanted: object) -> bool:
    """Whether a call gives these keywords these constants."""
    given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    return all(name in given and given[name] == value for name, value in wanted.items())


Rule = Callable[[ast.Call], bool]

RULES: dict[str, Rule] = {
    "os.system": lambda call: True,
    "os.popen": lambda call: True,
    "eval": lambda call: True,
    "exec": lambda call: True,
    "mktemp": lambda call: True,
    "yaml.load": lambda call: True,
    "yaml.unsafe_load": lambda call: True,
    "pickle.load": lambda call: True,
    "pickle.loads": lambda call: True,
    "pickle.Unpickler": lambda call: True,
    "joblib.load": lambda call: True,
    "create_subprocess_shell": lambda call: True,
    "subprocess.getoutput": lambda call: True,
    "torch.load": lambda call: not has(call, weights_only=True),
    "np.load": lambda call: has(call, allow_pickle=True),  # by default it refuses
    "Environment": lambda call: not has(call, autoescape=True),
    "pd.read_pickle": lambda call: True,
}
"""Name of a function, or how its dotted name ends: whether a call of it is unsafe."""


def dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def unsafe(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each unsafe call."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        rules = [rule for known, rule in RULES.items() if name == known or name.endswith(f".{known}")]
        if name.endswith((".eval", ".exec")):  # of models, and of others that are no built-in functions
            rules = []
        if has(node, shell=True) or any(rule(node) for rule in rules):
            yield node.lineno, ast.unparse(node)


def test_nothing_unsafe_is_called() -> None:
    files = [file for folder in ("segbatch", "jobs") for file in (CHECKOUT / folder).rglob("*.py")]
    assert len(files) > 100
    found = [f"{file}:{line}: {text}" for file in files for line, text in unsafe(file.read_text())]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(f'rm {x}', shell=True)",
        "os.system(x)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "tempfile.mktemp()",
        "Environment(loader=loader)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "asyncio.create_subprocess_shell(text)",
    ],
)
def test_what_is_unsafe_is_seen(source: str) -> None:
    assert list(unsafe(source))


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "torch.load(path, weights_only=True)", "yaml.safe_load(text)", "Environment(autoescape=True)"],
)
def test_what_is_safe_passes(source: str) -> None:
    assert not list(unsafe(source))


def test_the_linter_looks_for_the_rest() -> None:
    lint = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S") and rule != "SIM"] == ["S101"]
    silenced = {
        path: rules for path, rules in lint["per-file-ignores"].items() if any(r.startswith("S") for r in rules)
    }
    assert set(silenced) == {"tests/**"}


def test_each_exception_to_the_linter_says_why() -> None:
    lines = [
        (file.name, line)
        for folder in ("segbatch", "jobs")
        for file in (CHECKOUT / folder).rglob("*.py")
        for line in file.read_text().splitlines()
        if "# noqa: S" in line and "# noqa: SIM" not in line
    ]
    assert lines
    assert not [place for place in lines if len(place[1].partition("# noqa: ")[2]) < 10]
