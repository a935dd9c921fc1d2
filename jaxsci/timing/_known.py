"""What each line of a par file is to this library: read, a record, passed over, or a reason to refuse the file.

Every name belongs to one of these by construction. What the components declare is read, or is a parameter of a model
that has it; what PINT, tempo or tempo2 would model and no component here does is listed below and refused; the rest
changes nothing, and is told once, together. `TimingModel.parse` asks.
"""

import re
import warnings

from ._components import LINES, PARAMETER, READ, RECORD, TWICE, Line, Par, entry_of

_READ = {entry.name for entry in LINES if entry.role == READ and entry.exact}
_READ_FAMILIES = {entry.name for entry in LINES if entry.role == READ and entry.family}
_RECORDS = {entry.name for entry in LINES if entry.role == RECORD and entry.exact}
_RECORD_FAMILIES = {entry.name for entry in LINES if entry.role == RECORD and entry.family}
_SWITCHES = {"DILATEFREQ", *(entry.name for entry in LINES if entry.silent)}
"""These stand in many par files and say nothing when they are 0 or N."""
_HARMLESS = {
    *("RM", "IBOOT", "COORD", "NDDM", "DATE", "DISTANCE", "DMMODEL", "DM_SERIES", "EOPC04_FILE", "NAME"),
    *("PLANET_SHAPIRO2", "NSPAN", "DCOVFILE", "MJD", "EPHEM_FILE", "LEAD", "FINAL", "AUTHOR"),
}

_PINT = {  # parameters of PINT 1.1.8; those of our own too, for a model that does not use them
    *(entry.name for entry in LINES if entry.role == PARAMETER and entry.exact),
    *("VLBIAX", "VLBIAY", "VLBIAZ", "KINIAU", "KOMIAU", "MP", "ORBWAVE_OM", "ORBWAVE_EPOCH", "BINARY2"),
    *("CHROMGAUSS_FREF", "EXPDIPEPS", "EXPDIPFREF", "DILATEFREQ", "FDJUMPDM"),
    *(f"TDSW{part}" for part in ("KERNEL", "DT", "LOGSIG", "LOGELL", "NU", "LOGGAMP", "LOGP", "INTERP_KIND")),
    *(f"TN{kind}FLOG{part}" for kind in ("RED", "DM", "CHROM", "SW") for part in ("", "_FACTOR")),
}
_PINT_FAMILIES = {
    *(entry.name for entry in LINES if entry.role == PARAMETER and entry.family),
    *("FDJUMPDM", "ORBWAVEC", "ORBWAVES"),
    *("XR1_", "XR2_", "T0X_", "A1X_", "SWXDM_", "SWXP_", "SWXR1_", "SWXR2_", "TDSWNODE_"),
    *(f"CHROMGAUSS_{part}_" for part in ("EPOCH", "LOGAMP", "CHROMIDX", "SIGN", "LOGSIG")),
    *(f"EXPDIP{part}_" for part in ("EP", "AMP", "IDX", "TAU")),
    *(f"EXP{part}_" for part in ("EP", "PH", "INDEX", "TAU")),
}
_OTHERS = {  # of tempo and tempo2
    *("PMRV", "P1", "DSHK", "AFAC", "BP", "BPP", "PPNGAMMA", "DMVAL", "DM0", "CLK_CORR_CHAIN", "GLOBAL_EFAC"),
    *("TNGLOBALEF", "TNGLOBALEQ", "ADDTNGLOBALEQ", "TNBANDNOISE", "TNGROUPNOISE", "TNDMEV", "TNSHAPEVENT"),
    *("DMOFF", "CMOFF", "_DM", "_CM", "QUAD_OM", "QUADEPOCH", "GWM_AMP", "CGW_FREQ", "FDDC", "FDDI", "TIDAL"),
    *("TELX", "TELY", "TELZ", "TELEPOCH", "DAOP", "IPERHARM", "PAASCNODE", "SIGMA", "DTHETA_T2", "NOTRACK"),
}
_OTHER_FAMILIES = {
    *("BPJEP_", "BPJPH_", "BPJA1_", "BPJEC_", "BPJOM_", "BPJPB_", "GAUSEP_", "GAUSAMP_", "GAUSSIG_", "GAUSINDEX_"),
    *("DMASSPLANET", "DPHASEPLANET", "QIFUNC_P", "QIFUNC_C", "TEL_DX", "TEL_DY", "TEL_DZ", "QUAD", "CLKOFFS"),
    *("ECC_", "OM_", "T0_", "PB_", "A1_", "TASC_", "EPS1_", "EPS2_", "SINI_", "M2_"),
}
_TWICE = "|".join(rf"{entry.pattern}\d+" for entry in LINES if entry.form == TWICE)
_PATTERN = re.compile(rf"([A-Z0-9_]+_2|{_TWICE})$")  # the first is PINT's second orbit
_NO = ("N", "NO", "F", "FALSE")
_ZERO = re.compile(r"[+-]?(0+\.?0*|\.0+)([EeDd][+-]?\d+)?$")


def says_nothing(line: Line) -> bool:
    """True for a line that is 0 or N and not fitted; a logarithm of 0 is not nothing."""
    none = line.text.upper() in _NO or _ZERO.match(line.text) is not None
    return none and not line.fit and "LOG" not in line.name


def without_idle(par: Par, used: set[str], unknown: str) -> Par:
    """The par file with the lines that change nothing as they were written, not to be fitted.

    **Arguments:** `used`: names of the model's own parameters; `unknown`: `"error"`, or `"warn"` to tell of them, all
    at once, and go on.

    **Raises:** `ValueError` for a line that this model should not pass over: one that PINT, tempo or tempo2 models, or
    one that is to be fitted; and for any other that is not understood where `unknown` is `"error"`.
    """
    names = {line.name for line in par.lines}
    idle = [line for line in par.lines if not _is_read(line, used) or _is_alone(line, names)]
    for line in idle:
        if not _is_alone(line, names):
            _refuse(line)
    if idle and unknown == "error":
        raise ValueError(f"the par file's line {idle[0].name} {idle[0].text} is not understood by this model")
    if idle:
        told = ", ".join(f"{line.name} {line.row}" for line in idle)
        warnings.warn(f"lines of the par file that change nothing here, and are passed over: {told}", stacklevel=4)
    passed = {line.name for line in idle}
    kept = (line._replace(text=line.row, fit=False, error="") if line.name in passed else line for line in par.lines)
    return par._replace(lines=tuple(kept))


def _is_read(line: Line, used: set[str]) -> bool:
    stem = line.name.rstrip("0123456789")
    known = used | _READ | _RECORDS
    families = _READ_FAMILIES | _RECORD_FAMILIES
    return (
        line.name in known
        or (stem != line.name and stem in families)
        or (line.name in _SWITCHES and says_nothing(line))
    )


def _is_alone(line: Line, names: set[str]) -> bool:
    """True for an end of a window that is not there, such as DMXR1_0003 without a DMX_0003."""
    entry = entry_of(line.name)
    return entry is not None and entry.role == READ and bool(entry.by) and entry.partner(line.name) not in names


def _refuse(line: Line) -> None:
    """Raise `ValueError` for a line that stands for something which this model does not have."""
    if says_nothing(line):
        return
    stem = line.name.rstrip("0123456789")
    ends = stem != line.name
    where = f"the par file's line {line.name} {line.text} is not understood by this model"
    if line.name in _PINT or (ends and stem in _PINT_FAMILIES) or _PATTERN.match(line.name):
        raise ValueError(f"{where}, but PINT has it: without it the residuals would be others")
    if line.name in _OTHERS or (ends and stem in _OTHER_FAMILIES):
        raise ValueError(f"{where}, but tempo or tempo2 has it: without it the residuals may be others")
    if line.fit and line.name not in _HARMLESS:
        raise ValueError(f"{where}, and it should be fitted: leave it out, or see how its name is written")
