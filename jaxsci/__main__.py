"""`python -m jaxsci`: the same as the command `jaxsci`."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="jaxsci")
