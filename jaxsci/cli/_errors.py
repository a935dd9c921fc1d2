"""What a command says when its input is wrong."""


class ConfigError(ValueError):
    """Bad input of a command: where (`model.tau`, `data[0].file`, a file name) and what is wrong with it."""

    def __init__(self, where: str, message: str):
        super().__init__(f"{where}: {message}" if where else message)


CLASS_ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)
"""What a class may raise when it is given arguments that it cannot take, or is called on data that do not suit it."""
