"""What a command says when its input is wrong.

Whatever reads a config raises a `ConfigError` that names the place; commands show it as one line (`bad_input`). The
module imports nothing, because commands need it before they need jax.
"""


class ConfigError(ValueError):
    """Bad input of a command: where (`model.tau`, `data[0].file`, a file name) and what is wrong with it."""

    def __init__(self, where: str, message: str):
        super().__init__(f"{where}: {message}" if where else message)


class StructureError(ConfigError):
    """What is wrong whatever the data are: a key, a class or a file that there is not, an import that cannot be run."""


_BARE = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError)
CLASS_ERRORS = (*_BARE, RuntimeError, TypeError, ValueError)
"""What a class may raise when it is given arguments that it cannot take, or is called on data that do not suit it."""


def first_line(error: BaseException) -> str:
    """Say in one line what an error says: those of jax and of our checks go on for many.

    What Python raises of itself in a researcher's own code says little without its kind: `KeyError: 'a'`.
    """
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}{text and f': {text}'}" if isinstance(error, _BARE) else text
