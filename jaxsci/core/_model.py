"""Models: immutable functions of their inputs, and their sums and products."""

import abc
import re
from typing import Any

import equinox as eqx
from jaxtyping import Array

from ._errors import suggest
from ._module import Module
from ._parameter import labelled


class AbstractModel(Module):
    """What a researcher subclasses: fields declared by `param()`, and `__call__`.

    Write it for one data set; `jax.vmap` and `fit_batch` do the many. `a + b` and `a * b` are models
    too, whose parameters keep their names under the class names: `gaussian.center`, `line.slope`.
    """

    @abc.abstractmethod
    def __call__(self, inputs: Any) -> Array:
        """The prediction at `inputs` (any pytree of arrays with one leading axis), one number a row."""

    def __add__(self, other: Any) -> "AbstractModel":
        return _combine(Sum, self, other)

    def __mul__(self, other: Any) -> "AbstractModel":
        return _combine(Product, self, other)


class _AbstractComposite(AbstractModel):
    names: eqx.AbstractVar[tuple[str, ...]]
    terms: eqx.AbstractVar[tuple[AbstractModel, ...]]

    def __getattr__(self, name: str) -> Any:
        names = object.__getattribute__(self, "names")
        if name in names:
            return object.__getattribute__(self, "terms")[names.index(name)]
        raise AttributeError(f"{type(self).__name__} has no term {name!r}{suggest(name, names)}")


class Sum(_AbstractComposite):
    """The sum of named models: `Sum(peak=Gaussian(...), background=Line(...))`."""

    names: tuple[str, ...] = eqx.field(static=True)
    terms: tuple[AbstractModel, ...] = labelled("names")

    def __init__(self, **terms: AbstractModel):
        self.terms, self.names = tuple(terms.values()), tuple(terms)

    def __call__(self, inputs: Any) -> Array:
        total = self.terms[0](inputs)
        for term in self.terms[1:]:
            total = total + term(inputs)
        return total


class Product(_AbstractComposite):
    """The product of named models: `Product(envelope=Gaussian(...), carrier=Sinusoid(...))`."""

    names: tuple[str, ...] = eqx.field(static=True)
    terms: tuple[AbstractModel, ...] = labelled("names")

    def __init__(self, **terms: AbstractModel):
        self.terms, self.names = tuple(terms.values()), tuple(terms)

    def __call__(self, inputs: Any) -> Array:
        total = self.terms[0](inputs)
        for term in self.terms[1:]:
            total = total * term(inputs)
        return total


def _combine(kind: Any, left: AbstractModel, right: Any) -> Any:
    """`left + right` or `left * right`, sums of sums and products of products flattened."""
    if not isinstance(right, AbstractModel):
        return NotImplemented
    terms: dict[str, AbstractModel] = {}
    for model in (left, right):
        items = zip(model.names, model.terms, strict=True) if isinstance(model, kind) else [(snake(model), model)]
        for name, term in items:
            unique, k = name, 2
            while unique in terms:
                unique, k = f"{re.sub(r'_[0-9]+$', '', name)}_{k}", k + 1
            terms[unique] = term
    return kind(**terms)


def snake(model: Any) -> str:
    """The name of an object's class in lower case with underscores."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(model).__name__).lower()
