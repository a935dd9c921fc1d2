"""The house rules, read from the source: floors, classes, imports, sizes, documentation."""

import ast
import importlib
import importlib.metadata
import inspect
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import equinox as eqx
import pytest

import jaxsci

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxsci"
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
DOMAINS = {"timing", "compsep", "curvefit", "meanfield", "xpcs"}
ORDER = ["core", ["parallel", "data"], "datasets", "fitting", ["sampling", "evolution"], "runs", DOMAINS, "cli"]
FLOORS = {name: floor for floor, level in enumerate(ORDER) for name in ([level] if isinstance(level, str) else level)}
HOST = re.compile(
    r"(^|/)(io|plot|_diagnose|_summary|_figures|_html|_given|_checkpoint|_fingerprint|_hosts|_placement|_shown)\.py$"
)  # these may use NumPy on the host
LAZY = {
    "scipy",
    "matplotlib",
    "plotly",
    "optax",
    "h5py",
    "astropy",
    "healpy",
    "pint",
    "arviz",
    "numpyro",
    "pandas",
    "pyarrow",
    "diffrax",
    "jinja2",
    "dask",
    "distributed",
    "dask_jobqueue",
    "filelock",
}
SCREEN = {"rich", "typer", "click"}


def room(path):
    """The room of a file: `fitting`, `cli`, ...; empty for the files on top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def label(path):
    return str(path.relative_to(ROOT))


def tree(path):
    return ast.parse(path.read_text())


def at_import(node):
    """The statements that run when a module is imported: not those in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from at_import(child)


def imports(path, nodes=None):
    """(module, line) of every absolute import; relative ones as `jaxsci.room...`."""
    package = ("jaxsci", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree(path)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield module, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_point_down(path):
    here = room(path)
    if not here:
        return
    assert here in FLOORS, f"{here} is no room of the house"
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "jaxsci" or len(parts) < 2 or parts[1] == here or parts[1] not in FLOORS:
            continue
        assert FLOORS[parts[1]] < FLOORS[here], f"{label(path)}:{line} imports {parts[1]}, which is not below {here}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_rooms_speak_through_their_doors(path):
    """What another room may use stands in its `__init__` or in a public module of it."""
    here, rooms = room(path), {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "jaxsci" or len(parts) < 3 or parts[1] == here or parts[1] not in rooms:
            continue
        private = [part for part in parts[2:] if part.startswith("_") and not part.startswith("__")]
        assert not private, f"{label(path)}:{line} imports {private[0]}, which is {parts[1]}'s own affair"


def test_files_import_no_circle():
    """A file that is imported first can be read first."""
    files = {path.relative_to(ROOT).with_suffix("").parts: path for path in FILES}
    files = {name[:-1] if name[-1] == "__init__" else name: path for name, path in files.items()}
    below = {
        name: {
            parts for module, _ in imports(path, at_import(tree(path))) if (parts := tuple(module.split("."))) in files
        }
        for name, path in files.items()
    }
    while True:
        free = {name for name, others in below.items() if not others - {name}}
        if not free:
            break
        below = {name: others - free for name, others in below.items() if name not in free}
    assert not below, f"files that import each other are among {sorted('.'.join(name) for name in below)}"


MOST = {"timing": 30, "fitting": 28}  # files of a room; 25 elsewhere


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_rooms_have_few_files(name):
    """A folder within a room counts as one file: it is one story."""
    held = [p for p in (PACKAGE / name).glob("*") if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))]
    assert len([p for p in held if p.name != "__init__.py"]) <= MOST.get(name, 25)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_heavy_packages_are_imported_where_they_are_used(path):
    # the commands of a science are shown on a screen too
    forbidden = LAZY | (set() if room(path) == "cli" or path.name == "commands.py" else SCREEN)
    for module, line in imports(path, at_import(tree(path))):
        assert module.split(".")[0] not in forbidden, f"{label(path)}:{line} imports {module} at module level"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_numpy_stays_on_the_host(path):
    if HOST.search(label(path)) or room(path) == "cli":
        return
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"
    }
    types_only = {"np.ndarray", "np.generic"}
    host = used - types_only
    if host and room(path) in ("core", "parallel"):
        pytest.fail(f"{label(path)} computes with NumPy: {sorted(host)}")


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_forbidden_constructs(path):
    text = path.read_text()
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append(f"{node.lineno}: from __future__")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("hasattr", "eval", "exec")
        ):
            found.append(f"{node.lineno}: {node.func.id}()")
        is_error = isinstance(node, ast.ClassDef) and all(
            ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases
        )
        if isinstance(node, ast.ClassDef) and "super()" in ast.unparse(node) and not is_error:
            found.append(f"{node.lineno}: super()")
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        ):
            found.append(f"{node.lineno}: broad except")
        if isinstance(node, ast.Import) and any(a.name in ("pickle", "dill", "cloudpickle") for a in node.names):
            found.append(f"{node.lineno}: pickle")
        if isinstance(node, ast.Global):
            found.append(f"{node.lineno}: global")
    assert not found, f"{label(path)}: {found}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_lines_fit_the_screen(path):
    """Lengths of files and functions are questions, no laws: `python tests/sizes.py` asks them."""
    if path.name != "__init__.py":
        assert max((len(line) for line in path.read_text().splitlines()), default=0) <= 120


def test_the_median_function_is_short():
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.median(lengths) <= 10


SAID = (
    "core",
    "parallel",
    "datasets",
    "fitting",
    "curvefit",
    "runs",
    "timing",
    "compsep",
    "evolution",
    "meanfield",
    "sampling",
    "xpcs",
    "cli",
)  # rooms whose parameters say what they are
UNSAID = 0.05  # of their annotated parameters


def parameters(path):
    """(function, parameter, annotation) of every annotated parameter."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            a = node.args
            for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]:
                if arg.annotation is not None:
                    yield node.name, arg.arg, arg.annotation


@pytest.mark.parametrize("name", SAID)
def test_parameters_say_what_they_are(name):
    """`Any` and a bare `PyTree` say nothing; trees that are meant have names in `core._typing`, with what is meant."""
    every, unsaid = 0, []
    for path in FILES:
        if room(path) == name:
            for function, parameter, annotation in parameters(path):
                every += 1
                if {"Any", "PyTree"} & {part.strip() for part in ast.unparse(annotation).split("|")}:
                    unsaid.append(f"{label(path)} {function}({parameter})")
    assert len(unsaid) <= UNSAID * every, f"{len(unsaid)} of {every}: {unsaid}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in SAID], ids=label)
def test_no_anonymous_tuples(path):
    """More than three fields have names: a NamedTuple where it is hot, a Module elsewhere."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "tuple":
            fields = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
            assert len(fields) <= 3, f"{label(path)}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in SAID], ids=label)
def test_modules_open_with_what_they_are_for(path):
    sentences = re.findall(r"[.:?](?=\s|$)", ast.get_docstring(tree(path)) or "")
    assert len(sentences) >= 2, f"{label(path)}: say what it is, why, and who calls it"


ASKS = {"core/_traced.py": "the one place that asks JAX; all others call its `traced` and `is_traced`"}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_one_place_asks_whether_jax_is_tracing(path):
    """What is known and what is traced should not fork the code: who must ask, asks by one word that can be found."""
    if str(path.relative_to(PACKAGE)) in ASKS:
        return
    for node in ast.walk(tree(path)):
        names = {
            getattr(node, "attr", ""),
            getattr(node, "id", ""),
            *(a.name for a in getattr(node, "names", []) if isinstance(a, ast.alias)),
        }
        assert "Tracer" not in names, f"{label(path)}:{getattr(node, 'lineno', 0)}: ask core.traced or core.is_traced"


def rooms():
    return [f"jaxsci.{name}" for name in sorted(FLOORS) if name != "cli" and (PACKAGE / name / "__init__.py").exists()]


def classes():
    """Every Module class of the package, cli and plot aside."""
    found = {}
    for path in FILES:
        if room(path) in ("cli", "data") or path.name in ("plot.py", "__main__.py") or path.parent.name == "starter":
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for member in vars(importlib.import_module(name)).values():
            if inspect.isclass(member) and issubclass(member, eqx.Module) and member.__module__ == name:
                found[f"{name}.{member.__qualname__}"] = member
    return found


def test_classes_are_abstract_or_final():
    everything = classes()
    assert len(everything) > 30
    roots = {"Module", "Enumeration"}
    for name, cls in everything.items():
        for base in cls.__bases__:
            if base.__module__.startswith("jaxsci") and base.__name__ not in roots:
                assert base.__name__.lstrip("_").startswith("Abstract"), (
                    f"{name} subclasses the concrete {base.__name__}"
                )
        abstract = inspect.isabstract(cls) or bool(getattr(cls, "__abstractvars__", ()))
        named = cls.__name__.lstrip("_").startswith("Abstract")
        if abstract:
            assert named, f"{name} is abstract, so its name should start with Abstract"
        if named:
            assert cls.__name__.startswith(("Abstract", "_Abstract"))


def test_concrete_methods_are_not_overridden():
    """Fields and `__init__` in one class: a class with its own `__init__` declares every field it sets."""
    for name, cls in classes().items():
        if "__init__" in vars(cls) and "__annotations__" in vars(cls):
            for base in cls.__mro__[1:]:
                if base.__module__.startswith("jaxsci") and base.__name__ != "Module":
                    inherited = [
                        f
                        for f, kind in vars(base).get("__annotations__", {}).items()
                        if "AbstractVar" not in str(kind) and "ClassVar" not in str(kind)
                    ]
                    assert not inherited, f"{name} has an __init__ and inherits the fields {inherited}"


def public():
    for module in ["jaxsci", *rooms()]:
        found = importlib.import_module(module)
        # what is imported at its first use stands in no room's vars until then
        # (and in no order of its own, which the workers of a run have to agree upon)
        for name in sorted({*vars(found), *getattr(found, "__all__", ())}):
            member = getattr(found, name)
            if (
                not name.startswith("_")
                and not inspect.ismodule(member)
                and (inspect.isclass(member) or inspect.isroutine(member))
            ):
                yield pytest.param(member, id=f"{module}.{name}")


@pytest.mark.parametrize("member", list(public()))
def test_public_names_are_documented(member):
    doc = inspect.getdoc(member) or ""
    assert len(doc.split()) >= 4, f"{member} has no docstring"
    first = re.split(r"\n\s*\n", doc)[0]
    assert first.rstrip().endswith((".", ":", "?")), f"{member}: the first sentence should end: {first!r}"
    if inspect.isclass(member) and member.__module__.startswith("jaxsci"):
        for name, method in vars(member).items():
            method = getattr(method, "fget", method)
            if name.startswith("_") or not inspect.isfunction(method):
                continue
            inherited = any(name in vars(base) for base in member.__mro__[1:])
            assert inherited or inspect.getdoc(method), f"{member.__name__}.{name} has no docstring"


def test_arguments_of_the_main_doors_are_documented():
    for door in (jaxsci.fit, jaxsci.param, jaxsci.put, jaxsci.Dataset, jaxsci.Solution.load):
        doc = inspect.getdoc(door)
        for name in inspect.signature(door).parameters:
            if name not in ("kwargs", "self"):
                assert f"`{name}`" in doc, f"{door.__name__}: `{name}` is not documented"


NAMES = (
    "Module",
    "AbstractModel",
    "enable_x64",
    "param",
    "parameters",
    "get",
    "put",
    "Dataset",
    "White",
    "Diagonal",
    "Dense",
    "LowRank",
    "fit",
    "Solution",
    "RESULTS",
    "TRF",
    "GaussNewton",
    "Adam",
    "Linear",
    "SoftL1",
    "Huber",
    "Cauchy",
    "Arctan",
    "stack",
    "pad",
    "Sum",
    "Product",
    "Normal",
    "Poisson",
    "bucket",
)


def test_names_that_later_work_relies_on():
    missing = [name for name in NAMES if name not in jaxsci.__all__]
    assert not missing


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=label)
def test_init_files_only_import(path):
    for node in tree(path).body:
        fine = isinstance(node, ast.ImportFrom | ast.Import)
        fine |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        fine |= isinstance(node, ast.Assign) and all(
            n.id.startswith("__") for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)
        )
        assert fine, f"{label(path)}:{node.lineno}"


def test_importing_has_no_side_effects_and_stays_light():
    script = """
import sys, jax
before = (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion)
import jaxsci
assert before == (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion)
heavy = {"scipy.optimize", "matplotlib", "optax", "h5py", "astropy", "rich", "typer", "diffrax", "pandas", "numpyro"}
print(sorted(heavy & set(sys.modules)))
"""
    out = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("group", ["jaxsci.sciences", "jaxsci.commands"])
def test_the_installation_knows_the_sciences(group):
    """Entry points are written when a package is installed: an older installation finds no task."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["entry-points"][group]
    there = {
        point.name: point.value for point in importlib.metadata.distribution("jaxsci").entry_points.select(group=group)
    }
    assert there == wanted, "install again: pip install -e . --no-deps"


def tracked():
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if out.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in out.stdout.splitlines()]


def test_files_of_tests_have_different_names():
    """Pytest imports those of folders that are no packages by their bare names, and refuses a second of one name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_file_names_a_package_registry():
    hosts = [
        ".".join(h)
        for h in (("pypi", "org"), ("pythonhosted", "org"), ("anaconda", "org"), ("npmjs", "org"), ("crates", "io"))
    ]
    hosts += ["--index" + "-url", "--extra-index" + "-url"]
    for path in tracked():
        if path.is_file():
            content = path.read_bytes()
            for host in hosts:
                assert host.encode() not in content, f"{label(path)} names {host}"


def test_no_lock_files_caches_or_generated_artefacts():
    names = {path.name for path in tracked()}
    assert not names & {"uv.lock", "pylock.toml", "poetry.lock", ".DS_Store"}
    assert not [path for path in tracked() if path.suffix in (".pyc", ".orig", ".rej", ".so")]
    assert not [n for n in names if re.search(r"(?i)(todo|plan|status|diary|notes)\.md$", n)]
