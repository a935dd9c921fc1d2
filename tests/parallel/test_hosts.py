"""Several devices and several processes give what one gives; who is missing, fails or does not fit is named."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import START, TIMES, decay_data

import jaxsci as js
from benchmarks import _hosts
from jaxsci.parallel import Hosts, Placement, exchange, start_hosts, together

QUICK = ("failed", "fit_batch small", "resumed", "fit stream", "evolve interacting", "separate_blocks", "correlate")
EIGHT = ("fit_batch small", "resumed", "fit stream", "evolve interacting")  # the others compile for each device
ALL = (*QUICK, "fit_batch", "sample", "fit rows", "evolve", "separate")


def same(one, other, doors):
    found = _hosts.differences(one, other)
    assert set(found) == set(doors)
    for door, difference in found.items():
        assert difference == 0 if door in _hosts.EXACT else difference < 1e-12, f"{door}: {difference}"


@pytest.fixture(scope="module", autouse=True)
def _quick_programs():
    """The processes find each other's programs, and spend little on each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield


def compare(folder, doors, of_eight):
    """On eight devices of a process and in two processes doors give what they give alone."""
    (alone,) = _hosts.run(folder / "alone", "alone", doors)
    same(alone, *_hosts.run(folder / "eight", "mesh", of_eight, devices=8), of_eight)
    for found in _hosts.run(folder / "two", "mesh", doors, processes=2):
        same(alone, found, doors)


@pytest.mark.timeout(1800)  # two minutes of two processors, which may have much else to do
def test_devices_and_processes_give_what_one_gives(tmp_path):
    compare(tmp_path, QUICK, EIGHT)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_devices_and_processes_give_what_one_gives_through_all_doors(tmp_path):
    compare(tmp_path, ALL, ALL)


@pytest.mark.slow
def test_a_killed_pair_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    (alone,) = _hosts.run(tmp_path / "alone", "alone", ("killed",))
    monkeypatch.setenv("HOSTS_KILL", "1")
    with pytest.raises(RuntimeError, match=r"processes ended with \[-9, -"):
        _hosts.run(tmp_path / "two", "mesh", ("killed",), processes=2)
    monkeypatch.delenv("HOSTS_KILL")
    for found in _hosts.run(tmp_path / "two", "mesh", ("killed",), processes=2):
        same(alone, found, ("killed",))


class TestAlone:
    def test_one_process_tells_itself(self):
        assert Hosts.here() == Hosts(0, 1)
        assert exchange(b"x") == together(lambda: b"x") == [b"x"]

    def test_a_mesh_is_all_devices(self):
        mesh = js.mesh()
        assert mesh.axis_names == ("devices",)
        assert list(mesh.devices) == jax.devices()
        assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}

    def test_an_error_stays_what_it_is(self):
        with pytest.raises(OSError, match="disk full"):
            together(_full)


def _full():
    raise OSError("disk full")


class TestStarting:
    def test_the_environment_says_who_belongs_together(self, monkeypatch):
        given = []
        monkeypatch.setattr(jax.distributed, "initialize", lambda *args: given.append(args))
        monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
        monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
        with pytest.raises(RuntimeError, match="JAX_PROCESS_ID is not: set all of"):
            start_hosts()
        monkeypatch.setenv("JAX_PROCESS_ID", "1")
        start_hosts()
        assert given == [("host:1234", 2, 1)]
        monkeypatch.setenv("JAX_PROCESS_ID", "one")
        with pytest.raises(RuntimeError, match=r"invalid literal.*'one'.*start them by `srun"):
            start_hosts()

    def test_nothing_says_so(self, monkeypatch):
        from jax._src import distributed

        for name in [name for name in os.environ if name.startswith(("SLURM_", "KUBERNETES_", "OMPI_"))]:
            monkeypatch.delenv(name)
        # as before anything was computed
        monkeypatch.setattr(jax.distributed, "initialize", distributed.global_state.initialize)
        with pytest.raises(RuntimeError, match=r"do not know of each other.*srun -n N.*JAX_COORDINATOR_ADDRESS"):
            start_hosts()

    def test_too_late(self):
        jax.devices()
        with pytest.raises(RuntimeError, match="before any JAX"):
            start_hosts()


def device(process):
    return types.SimpleNamespace(process_index=process)


class TestDealing:
    @pytest.mark.parametrize("count", [0, 1, 7, 64, 1000])
    @pytest.mark.parametrize("processes", [(0, 1), (0, 0, 1, 1, 2, 2)])
    def test_each_member_is_of_one_process(self, count, processes, monkeypatch):
        placement = Placement(tuple(map(device, processes)))
        assert placement.dealing == processes
        shares = []
        for rank in sorted(set(processes)):
            monkeypatch.setattr(jax, "process_index", lambda rank=rank: rank)
            shares.append(placement.share(count, 8))
        has_work = [rank for rank in set(processes) if count > 8 * processes.index(rank)]
        dealt = np.concatenate([shares[rank] for rank in has_work]) if count else np.zeros(0)
        np.testing.assert_array_equal(np.sort(dealt), np.arange(count))
        for rank in set(processes) - set(has_work):  # who has nothing to do learns the form of an answer
            np.testing.assert_array_equal(shares[rank], np.arange(min(count, 8)))

    def test_devices_of_one_process_deal_nothing(self, tmp_path):
        placement = Placement.of(js.mesh())
        assert placement.dealing == ()
        np.testing.assert_array_equal(placement.share(5, 2), np.arange(5))
        assert placement.file(tmp_path / "x") == tmp_path / "x"

    def test_a_mesh_of_other_processes_is_refused(self, monkeypatch):
        mesh = js.mesh()  # of process 0
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        with pytest.raises(ValueError, match=r"processes \[0\], but 3 were started: give mesh=jaxsci.mesh"):
            Placement.of(mesh)


DATA = js.Dataset(TIMES, jnp.asarray(decay_data(0)), js.White(0.05))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": js.Dense(jnp.eye(len(TIMES)))}, "Dense couples all rows"),
        ({"solver": js.Adam()}, r"need TRF\(\) or GaussNewton\(\), not Adam"),
        ({"free": ("*", "noise.sigma")}, "free noise parameters cannot be fitted with rows on several"),
        ({"stream": True}, "an iterator gives its rows in order"),
    ],
)
def test_rows_that_devices_cannot_share(change, message):
    change = dict(change)
    data = js.Dataset(DATA.inputs, DATA.observed, change.pop("noise", DATA.noise))
    if change.pop("stream", False):
        data = js.StreamedDataset.from_iterator(lambda: [(np.asarray(TIMES), decay_data(0))])
    with pytest.raises(ValueError, match=message):
        js.fit(START, data, mesh=js.mesh(), **change)


def test_a_fit_within_a_transformation_shares_no_rows():
    with pytest.raises(ValueError, match="part of a larger program: leave mesh= out"):
        jax.jit(lambda y: js.fit(START, js.Dataset(TIMES, y, DATA.noise), mesh=js.mesh(), throw=False).y)(DATA.observed)
