"""Models: immutable functions of their inputs, and their sums and products.

A researcher subclasses `AbstractModel`, declares fields by `param()` and writes `__call__` for one data set. What `+`,
`-`, `*` and `/` make of two models is a model as well, which keeps the names of its parts, so that a fit of a peak on a
background frees `gaussian.center` and `line.slope`.
"""

import abc
import re
from typing import Any, TypeAlias

import equinox as eqx
from jaxtyping import Array

from ._errors import suggest
from ._given import as_float, is_real_number
from ._module import Module
from ._parameter import labelled, leaf_values, numbers, parameters, transparent
from ._shown import bounds_text, notebook_table, value_text
from ._typing import Inputs, Scalar


class AbstractModel(Module):
    """What a researcher subclasses: fields declared by `param()`, and `__call__`.

    Write it for one data set; `jax.vmap` and `fit_batch` do the many. `a + b`, `a - b`, `a * b` and `a / b` are models
    too, whose parameters keep their names under the class names: `gaussian.center`, `line.slope`. A number in place of
    a model is a constant that is not fitted.
    """

    @abc.abstractmethod
    def __call__(self, inputs: Inputs) -> Array:
        """The prediction at `inputs` (any pytree of arrays with one leading axis), one number a row."""

    def __add__(self, other: object) -> "AbstractModel":
        return _combine(Sum, self, other)

    def __radd__(self, other: object) -> "AbstractModel":
        return _combine(Sum, other, self)

    def __sub__(self, other: object) -> "AbstractModel":
        return _combine(Sum, self, other, Negative)

    def __rsub__(self, other: object) -> "AbstractModel":
        return _combine(Sum, other, self, Negative)

    def __mul__(self, other: object) -> "AbstractModel":
        return _combine(Product, self, other)

    def __rmul__(self, other: object) -> "AbstractModel":
        return _combine(Product, other, self)

    def __truediv__(self, other: object) -> "AbstractModel":
        return _combine(Product, self, other, Inverse)

    def __rtruediv__(self, other: object) -> "AbstractModel":
        return _combine(Product, other, self, Inverse)

    def __neg__(self) -> "AbstractModel":
        return Negative(self)

    def _repr_html_(self) -> str:
        return _notebook(self)

    __array_ufunc__ = None  # so that a NumPy number on the left leaves the operation to the model


def _notebook(model: AbstractModel) -> str:
    """The parameters of a model as a table: value, unit, bounds, prior, what it is."""
    values = dict(leaf_values(model))
    every: list[tuple[str, ...]] = []
    for name, about in parameters(model).items():
        prior = "" if about.prior is None else value_text(about.prior)
        every.append((name, value_text(values[name]), about.unit, bounds_text(about.bounds), prior, about.doc))
    head = ("parameter", "value", "unit", "bounds", "prior", "")
    kept = [k for k in range(len(head)) if k < 2 or any(row[k] for row in every)]
    rows = [tuple(row[k] for k in kept) for row in every]
    left = [place for place, k in enumerate(kept) if k != 1]
    return notebook_table(type(model).__name__, [head[k] for k in kept], rows, left=left)


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

    def __call__(self, inputs: Inputs) -> Array:
        total = self.terms[0](inputs)
        for term in self.terms[1:]:
            total = total - term.term(inputs) if isinstance(term, Negative) else total + term(inputs)
        return total


class Product(_AbstractComposite):
    """The product of named models: `Product(envelope=Gaussian(...), carrier=Sinusoid(...))`."""

    names: tuple[str, ...] = eqx.field(static=True)
    terms: tuple[AbstractModel, ...] = labelled("names")

    def __init__(self, **terms: AbstractModel):
        self.terms, self.names = tuple(terms.values()), tuple(terms)

    def __call__(self, inputs: Inputs) -> Array:
        total = self.terms[0](inputs)
        for term in self.terms[1:]:
            total = total / term.term(inputs) if isinstance(term, Inverse) else total * term(inputs)
        return total


class Negative(AbstractModel):
    """Minus a model, under the names of its parameters: what `a - b` makes of b."""

    term: AbstractModel = transparent()

    def __call__(self, inputs: Inputs) -> Array:
        return -self.term(inputs)


class Inverse(AbstractModel):
    """One over a model, under the names of its parameters: what `a / b` makes of b."""

    term: AbstractModel = transparent()

    def __call__(self, inputs: Inputs) -> Array:
        return 1 / self.term(inputs)


class Constant(AbstractModel):
    """A number that is not fitted: what `model + 2.0` adds."""

    value: Scalar = numbers()

    def __call__(self, inputs: Inputs) -> Array:
        return self.value


Kind: TypeAlias = type[Sum] | type[Product]
Turned: TypeAlias = type[Negative] | type[Inverse]


def _combine(
    kind: Kind,
    left: object,
    right: object,
    inverse: Turned | None = None,
) -> Any:
    """`left + right` or `left * right`, sums of sums and products of products flattened.

    `inverse`: what becomes of the terms on the right, where they are subtracted or divide.
    """
    terms: dict[str, AbstractModel] = {}
    for model, turned in ((left, None), (right, inverse)):
        if not isinstance(model, AbstractModel):
            if not is_real_number(model):
                return NotImplemented
            model = Constant(as_float(model))
        items = zip(model.names, model.terms, strict=True) if isinstance(model, kind) else [(snake(model), model)]
        for name, term in items:
            if turned is not None:  # twice is not at all
                term = term.term if isinstance(term, turned) else turned(term)
            unique, k = name, 2
            while unique in terms:
                unique, k = f"{re.sub(r'_[0-9]+$', '', name)}_{k}", k + 1
            terms[unique] = term
    return kind(**terms)


def snake(model: object) -> str:
    """The name of an object's class in lower case with underscores; that of the model itself where it is turned."""
    if isinstance(model, Negative | Inverse):
        return snake(model.term)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(model).__name__).lower()
