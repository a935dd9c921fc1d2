"""What each line of a par file is to this library: read, a record, passed over, or a reason to refuse the file.

Every name belongs to one of these by construction. What a component or the loader reads is listed here or is a
parameter of the model; what PINT, tempo or tempo2 would model and we do not is refused; the rest changes nothing, and
is told once, together. `TimingModel.parse` asks.
"""

import re
import warnings

from ._par import Line, Par

_READ = {
    *("EPHEM", "CLK", "UNITS", "CORRECT_TROPOSPHERE", "PLANET_SHAPIRO", "ECL", "BINARY", "K96", "NHARMS", "TRACK"),
    *("PEPOCH", "POSEPOCH", "DMEPOCH", "SWEPOCH", "CMEPOCH", "WXEPOCH", "DMWXEPOCH", "CMWXEPOCH", "WAVEEPOCH"),
    *("SWM", "SWP", "TNCHROMIDX", "WAVE_OM", "SIFUNC", "FDJUMPLOG", "RNAMP", "RNIDX"),
    *(f"TN{kind}{part}" for kind in ("RED", "DM", "CHROM", "SW") for part in ("AMP", "GAM", "C", "TSPAN")),
}
_READ_FAMILIES = {
    *("EFAC", "EQUAD", "ECORR", "DMEFAC", "DMEQUAD", "DMJUMP", "WAVE", "IFUNC", "PWEP_", "PWSTART_", "PWSTOP_"),
    *("DMXR1_", "DMXR2_", "CMXR1_", "CMXR2_", "WXFREQ_", "DMWXFREQ_", "CMWXFREQ_"),
}
_RECORDS = {  # names, and what an earlier fit or another program left behind
    *("PSR", "START", "FINISH", "NTOA", "TRES", "DMRES", "CHI2", "CHI2R", "NITS", "INFO", "MODE", "EPHVER", "DMDATA"),
    *("TIMEEPH", "T2CMETHOD", "BIPMVERSION", "DMX", "TZRMJD", "TZRFRQ", "TZRSITE"),
}
_RECORD_FAMILIES = {"DMXEP_", "DMXF1_", "DMXF2_"}
_SWITCHES = {"NE_SW", "CM", "DILATEFREQ"}  # these stand in many par files and say nothing when they are 0 or N
_HARMLESS = {
    *("RM", "IBOOT", "COORD", "NDDM", "DATE", "DISTANCE", "DMMODEL", "DM_SERIES", "EOPC04_FILE", "NAME"),
    *("PLANET_SHAPIRO2", "NSPAN", "DCOVFILE", "MJD", "EPHEM_FILE", "LEAD", "FINAL", "AUTHOR"),
}

_PINT = {  # parameters of PINT 1.1.8; those of our own too, for a model that does not use them
    *("RAJ", "DECJ", "ELONG", "ELAT", "PMRA", "PMDEC", "PMELONG", "PMELAT", "PX", "VLBIAX", "VLBIAY", "VLBIAZ"),
    *("PB", "PBDOT", "A1", "A1DOT", "A1DOT2", "ECC", "EDOT", "T0", "OM", "OMDOT", "TASC", "EPS1", "EPS2", "EPS1DOT"),
    *("EPS2DOT", "LNEDOT", "M2", "SINI", "GAMMA", "A0", "B0", "DR", "DTH", "H3", "H4", "STIGMA", "SHAPMAX", "KIN"),
    *("KOM", "KINIAU", "KOMIAU", "MTOT", "MP", "XOMDOT", "XPBDOT", "ORBWAVE_OM", "ORBWAVE_EPOCH", "BINARY2"),
    *("CHROMGAUSS_FREF", "EXPDIPEPS", "EXPDIPFREF", "DM", "CM", "NE_SW", "PHOFF", "DILATEFREQ", "FDJUMPDM"),
    *(f"TDSW{part}" for part in ("KERNEL", "DT", "LOGSIG", "LOGELL", "NU", "LOGGAMP", "LOGP", "INTERP_KIND")),
    *(f"TN{kind}FLOG{part}" for kind in ("RED", "DM", "CHROM", "SW") for part in ("", "_FACTOR")),
}
_PINT_FAMILIES = {
    *("F", "FB", "FD", "DM", "CM", "NE_SW", "JUMP", "FDJUMPDM", "DMX_", "CMX_", "ORBWAVEC", "ORBWAVES"),
    *("XR1_", "XR2_", "T0X_", "A1X_", "SWXDM_", "SWXP_", "SWXR1_", "SWXR2_", "TDSWNODE_"),
    *(f"CHROMGAUSS_{part}_" for part in ("EPOCH", "LOGAMP", "CHROMIDX", "SIGN", "LOGSIG")),
    *(f"EXPDIP{part}_" for part in ("EP", "AMP", "IDX", "TAU")),
    *(f"EXP{part}_" for part in ("EP", "PH", "INDEX", "TAU")),
    *(f"GL{part}_" for part in ("EP", "PH", "F0", "F1", "F2", "F0D", "TD")),
    *(f"PW{part}_" for part in ("PH", "F0", "F1", "F2")),
    *(f"{kind}{part}_" for kind in ("WX", "DMWX", "CMWX") for part in ("SIN", "COS")),
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
_PATTERN = re.compile(r"[A-Z0-9_]+_2$|FD\d+JUMP\d+$")  # PINT's second orbit; jumps of profile evolution
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
    idle = [line for line in par.lines if not _is_read(line, used)]
    for line in idle:
        _refuse(line)
    if idle and unknown == "error":
        raise ValueError(f"the par file's line {idle[0].name} {idle[0].text} is not understood by this model")
    if idle:
        told = ", ".join(f"{line.name} {line.row}" for line in idle)
        warnings.warn(f"lines of the par file that change nothing here, and are passed over: {told}", stacklevel=4)
    names = {line.name for line in idle}
    kept = (line._replace(text=line.row, fit=False, error="") if line.name in names else line for line in par.lines)
    return Par(tuple(kept))


def _is_read(line: Line, used: set[str]) -> bool:
    stem = line.name.rstrip("0123456789")
    known = used | _READ | _RECORDS
    families = _READ_FAMILIES | _RECORD_FAMILIES
    return (
        line.name in known
        or (stem != line.name and stem in families)
        or (line.name in _SWITCHES and says_nothing(line))
    )


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
