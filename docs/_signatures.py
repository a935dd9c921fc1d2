"""For mkdocstrings: the constructor of a Module, which has its fields as arguments, as a signature."""

import griffe

_POSITIONAL = griffe.ParameterKind.positional_or_keyword


class Signatures(griffe.Extension):
    """Give each class without an `__init__` one that takes its annotated fields."""

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        """Called when the members of a class are known."""
        if "__init__" in cls.members or cls.name.lstrip("_").startswith("Abstract") or cls.decorators:
            return
        fields = [m for m in cls.members.values() if m.is_attribute and m.annotation and "property" not in m.labels]
        if fields:
            own = griffe.Parameter("self", kind=_POSITIONAL)
            arguments = (
                griffe.Parameter(f.name, annotation=f.annotation, default=default(f), kind=_POSITIONAL) for f in fields
            )
            cls["__init__"] = griffe.Function("__init__", parameters=griffe.Parameters(own, *arguments))


def default(field: griffe.Attribute) -> object:
    """What a field is when it is not given: `param(default=1.0)` has 1.0, `param()` none."""
    value = field.value
    if not isinstance(value, griffe.ExprCall):
        return value
    keywords = (a for a in value.arguments if isinstance(a, griffe.ExprKeyword))
    return next((k.value for k in keywords if k.name == "default"), None)
