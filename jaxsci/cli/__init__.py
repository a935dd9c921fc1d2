"""The command `jaxsci`: it reads arguments, and shows on the screen what `jaxsci.runs` does.

It knows no science: tasks and further commands are found by entry points. Importing it imports no jax, so that
`jaxsci --help` is quick.
"""

from ._main import app as app
