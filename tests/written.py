"""What a researcher has written: a model, a config, a table of data."""

from pathlib import Path

import numpy as np

MODELS = """
import jax.numpy as jnp
import jaxsci as js

class Decay(js.AbstractModel):
    amp: js.Scalar = js.param(unit="mV")
    tau: js.Scalar = js.param(unit="s", bounds=(0, None))
    base: js.Scalar = js.param(unit="mV", default=0.0)

    def __call__(self, t):
        return self.amp * jnp.exp(-t / self.tau) + self.base
"""

TWO_NIST = """
[[data]]
file = "bundled:nist/DanWood.dat"
model = "nist.DanWood"

[[data]]
name = "box"
file = "bundled:nist/BoxBOD.dat"
model = "nist.BoxBOD"
start = { b1 = 100.0, b2 = 0.75 }
"""

DECAY = """
[fit]
max_steps = 60

[model]
type = "Decay"
amp = 1.0
tau = 1.0
"""

CONFIG = (
    DECAY
    + """
[[data]]
file = "decay.csv"

[[data]]
name = "second"
file = "decay.csv"
start = { tau = 2.0 }
reference = { amp = 3.0, tau = { value = 1.4, std = 0.05 } }
"""
)


def write_csv(path: Path, seed: int = 0, **broken: tuple[int, float]) -> None:
    """Twelve rows of a decay with columns x, y, sigma; `broken` puts a value into a row of a column."""
    t = np.linspace(0.0, 5.0, 12)
    y = 3.0 * np.exp(-t / 1.4) + 0.5 + 0.05 * np.random.default_rng(seed).normal(size=12)
    columns = {"x": t, "y": y, "sigma": np.full(12, 0.05)}
    for name, (row, value) in broken.items():
        columns[name][row] = value
    lines = [
        "# a comment",
        ",".join(columns),
        *(",".join(map(repr, map(float, row))) for row in zip(*columns.values())),
    ]
    path.write_text("\n".join(lines) + "\n")
