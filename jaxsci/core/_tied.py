"""Parameters that follow from others: two lines of one width, a doublet's ratio, fractions that add to one.

`Tied` wraps a model and says by formulas what some of its parameters are. Those are free no more, so that every solver,
batch and sampler sees fewer parameters and needs to know nothing else; `Solution` shows their values with errors that
follow from the fit. A relation that no formula says is a Module of the researcher's own, which computes it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from ._errors import suggest
from ._expression import names_in, parse, value_of
from ._model import AbstractModel
from ._parameter import element_names, leaf_values, parameters, paths_of, transparent
from ._typing import Inputs, Tree


class Tie(NamedTuple):
    """One parameter and the formula for it; where it is in the model, and its shape."""

    name: str
    formula: str
    path: str
    shape: tuple[int, ...]


class Tied(AbstractModel):
    """A model some of whose parameters are formulas of others: `Tied(model, {"second.sigma": "2 * first.sigma"})`.

    The names of the others stay as they are, and each attribute of the model is to be had from here:
    `tied.second.sigma` is the value that the formula gives. What a tied parameter declared (bounds, prior) is held no
    more.

    **Arguments:**

    - `model`: any model, whose values of tied parameters do not matter.
    - `ties`: for each tied parameter a formula: + - * / **, numbers, `pi`, `E`, names of parameters of the model,
      elements of them (`c[0]`), and exp, expm1, log, log10, log1p, sqrt, abs, sin, cos, tan, arcsin, arccos, arctan,
      sinh, cosh, tanh, minimum, maximum. It may name others that are tied. Numbers are in the units of the parameters;
      a number fills a parameter that is an array.

    **Raises:** `ValueError` for an unknown name, for a formula that is none, with its column, and for parameters that
    are tied to each other in a circle.
    """

    ties: tuple[Tie, ...] = eqx.field(static=True)
    term: AbstractModel = transparent()

    def __init__(self, model: AbstractModel, ties: Mapping[str, str]):
        values, paths = dict(leaf_values(model)), paths_of(model)
        for name in ties:
            if name not in values:
                known = ", ".join(values) or "none"
                raise ValueError(
                    f"{type(model).__name__} has no parameter {name!r} to tie{suggest(name, values)} "
                    f"(parameters: {known})"
                )
        shapes = {name: jnp.shape(value) for name, value in values.items()}
        self.ties = tuple(Tie(name, ties[name], paths[name], shapes[name]) for name in _in_order(ties, shapes))
        gone = {tie.path for tie in self.ties}
        self.term = jtu.tree_map_with_path(lambda path, leaf: None if jtu.keystr(path) in gone else leaf, model)
        found = self._values(values)
        for tie in self.ties:
            shape = found[tie.name].shape
            if shape != tie.shape:
                raise ValueError(f"{tie.name} has shape {tie.shape}, but {tie.formula!r} has shape {shape}")

    def __call__(self, inputs: Inputs) -> Array:
        return self.whole(inputs)

    @property
    def whole(self) -> AbstractModel:
        """The model with the values that the formulas give."""
        found = self._values(dict(leaf_values(self.term)))
        by_path = {tie.path: found[tie.name] for tie in self.ties}
        model: AbstractModel = jtu.tree_map_with_path(
            lambda path, leaf: by_path.get(jtu.keystr(path), leaf), self.term, is_leaf=lambda leaf: leaf is None
        )
        return model

    def _values(self, free: Mapping[str, Array]) -> dict[str, Array]:
        """The value of each tied parameter."""
        found: dict[str, Array] = {}
        for tie in self.ties:
            tree = parse(tie.formula, dotted=True)
            names = {name: _named(name, {**free, **found}) for name in names_in(tree)}
            try:
                value = jnp.asarray(value_of(tree, names))
            except TypeError:
                shapes = ", ".join(f"{name} {value.shape}" for name, value in names.items())
                raise ValueError(f"the formula for {tie.name}: shapes do not go together ({shapes})") from None
            found[tie.name] = jnp.broadcast_to(value, tie.shape) if value.ndim == 0 else value
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("ties", "term", "whole"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.whole, name)


def _named(name: str, values: Mapping[str, Array]) -> Array:
    """A parameter by its name, or an element of one by its own, `c[0]`."""
    if name in values:
        return values[name]
    owner, _, place = name.rstrip("]").partition("[")
    return values[owner][tuple(map(int, place.split(",")))]


def _in_order(ties: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The names of tied parameters, each behind those that its formula needs."""
    known = {element: name for name, shape in shapes.items() for element in (name, *element_names(name, shape))}
    needs: dict[str, set[str]] = {}
    for name, formula in ties.items():
        used = names_in(_parsed(name, formula))
        for each in used:
            if each not in known:
                raise ValueError(
                    f"{name} is tied to {each!r} by {formula!r:.200}, but there is no such parameter"
                    f"{suggest(each, shapes)} (parameters: {', '.join(shapes)})"
                )
        needs[name] = {known[each] for each in used} & set(ties)
    while needs:
        ready = [name for name, others in needs.items() if not others]
        if not ready:
            raise ValueError(f"{', '.join(needs)} are tied to each other in a circle: leave one of them free")
        yield from ready
        needs = {name: others - set(ready) for name, others in needs.items() if name not in ready}


def _parsed(name: str, formula: str) -> Any:
    try:
        return parse(formula, dotted=True)
    except ValueError as error:
        raise ValueError(f"the formula for {name}: {error}") from None


def class_name(model: object) -> str:
    """The name of a model's class; of a tied one that of the model within."""
    return class_name(model.term) if isinstance(model, Tied) else type(model).__name__


def resolved(tree: Tree) -> Tree:
    """The same tree with each `Tied` model in it as the model that it stands for."""
    return jtu.tree_map(lambda x: x.whole if _is_tied(x) else x, tree, is_leaf=_is_tied)


def formulas(tree: Tree) -> dict[str, str]:
    """The formula for each tied parameter in a tree, by name, in the order of the model's fields.

    Names within a formula are those that parameters have within its own `Tied`.
    """
    found: dict[str, str] = {}
    free = set(parameters(tree))
    for node in filter(_is_tied, jtu.tree_leaves(tree, is_leaf=_is_tied)):
        own = jtu.tree_map(lambda x, node=node: x.whole if x is node else x, tree, is_leaf=_is_tied)
        written = {tie.name: tie.formula for tie in node.ties}
        for name in parameters(own):
            if name not in free:
                within = name if name in written else next(each for each in written if name.endswith(f".{each}"))
                found[name] = written[within]
    return {name: found[name] for name in parameters(resolved(tree)) if name in found} if found else {}


def _is_tied(node: object) -> bool:
    return isinstance(node, Tied)
