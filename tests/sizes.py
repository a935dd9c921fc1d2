"""Print files and functions that are larger than most: `python tests/sizes.py`.

A long file or function is a question, not a fault: is it one story, or several? Nobody is to cut a story into
fragments in order to shorten this list.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "jaxsci"
FILE, FUNCTION = 400, 60


def questions() -> list[str]:
    """A line for each file over `FILE` lines and each function whose body is over `FUNCTION`."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        here = path.relative_to(PACKAGE.parent)
        if len(text.splitlines()) > FILE:
            found.append(f"{here}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if length > FUNCTION:
                    found.append(f"{here}:{node.lineno} {node.name}: {length} lines")
    return found


if __name__ == "__main__":
    print("\n".join(questions()) or "nothing is larger than most")
