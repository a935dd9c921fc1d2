"""Every kind of bad input ends in one line that names file, table and key, and in exit code 2."""

import pytest

MODEL = '[model]\ntype = "Decay"\namp = 1.0\ntau = 1.0\n'
DATA = '[[data]]\nfile = "decay.csv"\n'
INLINE = "[[data]]\nx = [0.0, 1.0, 2.0, 3.0]\ny = [3.0, 2.0, 1.0, 1.0]\n"

BAD = {
    "no TOML": ("[model", "fit.toml: this is not valid TOML"),
    "top key": (MODEL + DATA + "[fitt]\n", "fit.toml: fitt: there is no key 'fitt' here; did you mean 'fit'?"),
    "task": (
        'task = "timings"\n' + MODEL + DATA,
        'fit.toml: task: should be "compsep", "curvefit", "meanfield", "timing" or "xpcs", but',
    ),
    "no data": (MODEL, "data: there is nothing to fit"),
    "data no list": ('data = "decay.csv"\n' + MODEL, "data: should be a list, but it is a text"),
    "no model": (DATA, "data[0]: it has no model"),
    "fit key": (MODEL + DATA + "[fit]\nmaxsteps = 3\n", "fit.maxsteps: there is no key 'maxsteps' here; did you mean"),
    "fit type": (MODEL + DATA + '[fit]\nmax_steps = "x"\n', "fit.max_steps: should be a number, but it is a text"),
    "bool no number": (MODEL + DATA + "[fit]\nmax_steps = true\n", "fit.max_steps: should be a number, but it is true"),
    "no steps": (MODEL + DATA + "[fit]\nmax_steps = 0\n", "fit.max_steps: should be 1 or more"),
    "steps and a half": (
        MODEL + DATA + "[fit]\nmax_steps = 2.5\n",
        "fit.max_steps: should be a whole number, without a point or an exponent, but it is a number, 2.5",
    ),
    "one bracket": (
        MODEL + DATA.replace("[[data]]", "[data]"),
        "data: should be a list, but it is a table, {'file': 'decay.csv'}. Write [[data]] for [data]",
    ),
    "two brackets": (MODEL + DATA + "[[fit]]\nmax_steps = 3\n", "Write [fit] for [[fit]]: there is one"),
    "two models": (MODEL.replace("[model]", "[[model]]") + DATA, "Write [model] for [[model]]: there is one"),
    "folder": (MODEL + '[[data]]\nfile = "."\n', " is a folder: name a file in it"),
    "no file, columns": (
        MODEL + INLINE + 'columns = { x = "a" }\n',
        "data[0].columns: it is about a file, but x and y",
    ),
    "model unused": (
        MODEL + DATA + 'model = { type = "Line" }\nstart = "estimate"\n',
        "model: no [[data]] table uses it",
    ),
    "reference unused": (
        MODEL + DATA + "reference = { tua = 1.0 }\n",
        "data[0].reference.tua: it is not fitted; did you mean 'tau'?",
    ),
    "solver": (
        MODEL + DATA + '[fit]\nsolver = "TFR"\n',
        "fit.solver.type: no solver is called 'TFR'; did you mean 'TRF'",
    ),
    "solver argument": (
        MODEL + DATA + '[fit]\nsolver = { type = "TRF", rtool = 1e-9 }\n',
        "fit.solver.rtool: TRF has no argument 'rtool'; did you mean 'rtol'?",
    ),
    "solver value": (
        MODEL + DATA + '[fit]\nsolver = { type = "TRF", rtol = "x" }\n',
        "fit.solver.rtol: should be a number, but it is a text, 'x'",
    ),
    "loss kind": (MODEL + DATA + "[fit]\nloss = 3\n", "fit.loss: should be a loss: a name, or a table with a type"),
    "no type": (MODEL + DATA + "[fit]\nloss = { scale = 2.0 }\n", "fit.loss: a loss needs type ="),
    "free": (MODEL + DATA + '[fit]\nfree = "tau"\n', "fit.free: should be a list"),
    "free name": (MODEL + DATA + '[fit]\nfree = ["taau"]\n', "no parameter 'taau'; did you mean 'tau'?"),
    "bounds form": (MODEL + DATA + "[fit.bounds]\ntau = 3\n", "fit.bounds.tau: should be [lower, upper]"),
    "bounds order": (MODEL + DATA + "[fit.bounds]\ntau = [3, 1]\n", "lower bound 3.0 lies above the upper bound 1.0"),
    "bounds name": (MODEL + DATA + "[fit.bounds]\ntaau = [0, 1]\n", "no free parameter 'taau'; did you mean 'tau'?"),
    "prior": (
        MODEL + DATA + '[fit.priors]\ntau = { type = "Normal", mean = 1.0 }\n',
        "fit.priors.tau: Normal needs a value for sigma",
    ),
    "prior kind": (MODEL + DATA + "[fit.priors]\ntau = 3\n", "fit.priors.tau: should be a prior"),
    "model name": (
        MODEL.replace("Decay", "Decai") + DATA,
        "model.type: no model is called 'Decai'; did you mean 'Decay'?",
    ),
    "model argument": (
        MODEL.replace("tau", "tua") + DATA,
        "fit.toml: model.tua: Decay has no argument 'tua'; did you mean 'tau'?",
    ),
    "model missing": (MODEL.replace("tau = 1.0", "") + DATA, "model: Decay needs a value for tau"),
    "model value": (MODEL.replace("tau = 1.0", 'tau = "x"') + DATA, "model.tau: Decay.tau should be"),
    "model shape": (MODEL.replace("tau = 1.0", "tau = [1.0, 2.0]") + DATA, "model.tau: Decay.tau should be"),
    "ragged": (MODEL.replace("tau = 1.0", "tau = [1.0, [2.0]]") + DATA, "model.tau: Decay.tau should be"),
    "nested kind": (
        '[model]\ntype = "Sum"\na = { type = "Linear" }\n' + DATA,
        "model.a.type: no model is called 'Linear'",
    ),
    "start": (MODEL + DATA + "start = { taau = 1.0 }\n", "data[0].start: Decay has no parameter 'taau'; did you mean"),
    "start shape": (MODEL + DATA + "start = { tau = [1.0, 2.0] }\n", "data[0].start: tau has shape ()"),
    "starts form": (MODEL + DATA + "starts = [1.0]\n", "data[0].starts: should be a list of tables"),
    "both starts": (MODEL + DATA + "start = {}\nstarts = []\n", "data[0].starts: give either start or starts"),
    "data key": (
        MODEL + '[[data]]\nfil = "decay.csv"\n',
        "data[0].fil: there is no key 'fil' here; did you mean 'file'?",
    ),
    "no file": (MODEL + '[[data]]\nfile = "deay.csv"\n', "data[0].file: there is no file"),
    "no bundled file": (
        MODEL + '[[data]]\nfile = "bundled:nist/Han1.dat"\n',
        "data[0].file: nothing is bundled as 'nist/Han1.dat'; did you mean 'nist/Hahn1.dat'?",
    ),
    "bundled, outside": (MODEL + '[[data]]\nfile = "bundled:../core/_fit.py"\n', "data[0].file: nothing is bundled as"),
    "outside": (
        MODEL + '[[data]]\nfile = "../decay.csv"\n',
        "data[0].file: '../decay.csv' lies outside the config's folder",
    ),
    "absolute": (MODEL + '[[data]]\nfile = "/etc/passwd"\n', "lies outside the config's folder"),
    "neither": (MODEL + '[[data]]\nname = "a"\n', "data[0]: it has no data: give a file, or lists x and y"),
    "both": (MODEL + DATA + "x = [1.0]\n", "data[0].x: the data come from a file already"),
    "column": (
        MODEL + DATA + 'columns = { sigma = "sigm" }\n',
        "data[0].columns.sigma: the file has no column 'sigm'; did you mean 'sigma'? (columns: x, y, sigma)",
    ),
    "columns key": (MODEL + DATA + 'columns = { z = "x" }\n', "data[0].columns.z: there is no key 'z' here"),
    "no table": (MODEL + '[[data]]\nfile = "my_models.py"\n', "data[0].file: my_models.py"),
    "no NIST file": (MODEL + '[[data]]\nfile = "fake.dat"\n', "data[0].file: fake.dat: this is no NIST StRD file"),
    "NIST columns": (
        '[[data]]\nfile = "bundled:nist/Hahn1.dat"\nmodel = "nist.Hahn1"\ncolumns = { x = "a" }\n',
        "data[0].columns: a NIST file (.dat) has no named columns",
    ),
    "lengths": (
        MODEL + "[[data]]\nx = [0.0, 1.0]\ny = [3.0, 2.0, 1.0]\n",
        "data[0]: inputs has shape (2,), observed has",
    ),
    "sigma and noise": (
        MODEL + INLINE + 'sigma = 0.1\nnoise = { type = "White", sigma = 0.1 }\n',
        "data[0].noise: the noise is given twice",
    ),
    "noise": (
        MODEL + INLINE + 'noise = { type = "White", sigmaa = 0.1 }\n',
        "data[0].noise.sigmaa: White has no argument",
    ),
    "same name": (MODEL + DATA + DATA, "data: two members are called 'decay'"),
    "reference": (MODEL + DATA + 'reference = { tau = "x" }\n', "data[0].reference.tau: should be a number"),
    "robust counts": (
        MODEL + INLINE + 'noise = "Poisson"\n[fit]\nloss = "SoftL1"\n',
        "data[0] (data 0): a robust loss needs a Gaussian noise",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config_is_one_line_with_its_place(folder, command, case):
    text, message = BAD[case]
    (folder / "fit.toml").write_text(text)
    (folder / "fake.dat").write_text("1 2\n")
    result = command("check", "fit.toml", "--import", "my_models.py")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: fit.toml")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


CSV = {
    "short row": ("x,y\n1,2\n3\n", "line 3: 1 cells for 2 columns"),
    "text": ("x,y\n1,2\n3,a\n", "line 3, column 'y': 'a' is not a number"),
    "no header": ("1,2\n3,4\n", "the first line should name the columns; it is '1,2'"),
    "same columns": ("x,x\n1,2\n", "the first line should name the columns"),
    "no rows": ("x,y\n", "has no rows"),
    "empty": ("", "has no rows"),
}


@pytest.mark.parametrize("case", CSV)
def test_bad_table_names_line_and_column(folder, command, case):
    text, message = CSV[case]
    (folder / "decay.csv").write_text(text)
    result = command("check", "fit.toml", "--import", "my_models.py")
    assert result.exit_code == 2
    assert "fit.toml: data[0].file: decay.csv" in result.stderr
    assert message in result.stderr


IMPORTS = {
    "missing": (None, "own.py: there is no such Python file"),
    "syntax": ("class A(:\n", "SyntaxError"),
    "raises": ("x = 1\ny = x.tau\n", "own.py, line 2: AttributeError"),
    "nothing": ("x = 1\n", "it defines no class that a config could name"),
    "abstract": ("import jaxsci as js\nclass A(js.AbstractModel):\n    pass\n", "it defines no class"),
    "taken": (
        "import jaxsci as js\nclass Sum(js.AbstractModel):\n    def __call__(self, x):\n        return x\n",
        "there is a model called 'Sum' already",
    ),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_bad_import(folder, command, case):
    text, message = IMPORTS[case]
    if text is not None:
        (folder / "own.py").write_text(text)
    result = command("check", "fit.toml", "--import", "own.py")
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fit.max_steps", "a setting reads table.key=value"),
        ("=3", "a setting reads table.key=value"),
        ("data.7.name=a", "'7' should be a place in a list of 2"),
        ("data.x.name=a", "'x' should be a place in a list of 2"),
        ("model.type.a=3", "holds a text, 'Decay', which has no keys"),
        ("model.type.a.b=3", "there is no 'a' in a text"),
        ("model.tua=3", "fit.toml: model.tua: Decay has no argument 'tua'"),
        ("fit.solver=Nowton", "fit.solver.type: no solver is called 'Nowton'"),
    ],
)
def test_bad_setting(folder, command, setting, message):
    result = command("check", "fit.toml", "--import", "my_models.py", "--set", setting)
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_such_config(folder, command):
    result = command("check", "fits.toml")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "fits.toml: there is no such file" in result.stderr
    assert " is a folder" in command("check", ".").stderr
    assert "did you mean 'quickstart.toml'?" in command("check", "bundled:quikstart.toml").stderr


def test_model_that_cannot_be_called_on_the_data(folder, command):
    (folder / "own.py").write_text(
        "import jaxsci as js\n\nclass Total(js.AbstractModel):\n    a: js.Scalar = js.param()\n\n"
        "    def __call__(self, x):\n        return self.a * x.sum()\n"
    )
    (folder / "fit.toml").write_text('[model]\ntype = "Total"\na = 1.0\n' + DATA)
    result = command("check", "fit.toml", "--import", "own.py")
    assert result.exit_code == 2
    assert "data[0] (decay): Total(inputs) has shape (), observed has shape (12,)" in result.stderr


def test_good_config(folder, command):
    result = command("check", "fit.toml", "--import", "my_models.py", "--set", "data.1.start.tau=3")
    assert result.exit_code == 0
    assert "amp tau base" in result.stdout
    assert "fit.toml is fine: 2 fits in one batch." in result.stdout


def test_bundled_nist_is_all_of_nist(command):
    result = command("check", "bundled:curvefit/nist")
    assert result.exit_code == 0
    assert "36 fits" in result.stdout


def test_outside_is_allowed_on_request(folder, command):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "fit.toml").write_text(MODEL + '[[data]]\nfile = "../decay.csv"\n')
    words = ("check", inner / "fit.toml", "--import", "my_models.py")
    assert command(*words).exit_code == 2
    assert command(*words, "--allow-outside").exit_code == 0


def test_a_link_out_of_the_folder_is_outside(folder, command):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "link.csv").symlink_to(folder / "decay.csv")
    (inner / "fit.toml").write_text(MODEL + '[[data]]\nfile = "link.csv"\n')
    result = command("check", inner / "fit.toml", "--import", "my_models.py")
    assert "lies outside the config's folder" in result.stderr
