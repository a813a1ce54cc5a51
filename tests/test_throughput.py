"""Throughput: statistics by hand, clocks that are not the machine's, counting, meters, peers that answer, sweeps that are cut off. No test asserts a time that was measured."""
import io
import json
import math
import os
import select
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backends import BACKEND, on_tensorflow
from signver_kit import throughput
from signver_kit.throughput import (EnergyMeter, Setup, TorchPeer, ending, epoch_cost, failed_row, throughput_figures, forward_flops, grid_of, layer_flops, measure, measure_apart,
                                    measured_peak, peak_memory, ready_feed, real_feed, rows_table, setup_from, shares_of, step_statistics, sweep, take_turns, time_steps,
                                    times_as_fast, training_job, turn_of)

# ---- statistics ----


def test_statistics_by_hand():
    # rates of 10 images: 100, 50, 33.3, 25 a second
    found = step_statistics([0.1, 0.2, 0.3, 0.4], 10)
    expected = {"images_per_second": (50 + 100 / 3) / 2, "images_per_second_p10": 25 + 0.3 * (100 / 3 - 25), "images_per_second_p90": 85, "images_per_second_mean": 40,
                "step_ms_p50": 250, "step_ms_p95": 385, "step_ms_p99": 397, "timed_steps": 4}
    assert found == pytest.approx(expected)


seconds = st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60)


@given(seconds, st.integers(1, 512))
def test_percentiles_are_in_order_and_rates_scale_with_the_images(times, images):
    found, one = step_statistics(times, images), step_statistics(times, 1)
    assert found["step_ms_p50"] <= found["step_ms_p95"] * (1 + 1e-12) <= found["step_ms_p99"] * (1 + 1e-11) <= 1000 * max(times) * (1 + 1e-10)
    assert found["images_per_second_p10"] <= found["images_per_second"] <= found["images_per_second_p90"]
    assert found["images_per_second"] == pytest.approx(images * one["images_per_second"]) and found["timed_steps"] == len(times)


@given(st.lists(st.floats(0.01, 1.0), min_size=20, max_size=40), st.floats(10, 100))
def test_one_interrupted_step_moves_the_mean_and_hardly_the_median(times, hiccup):
    times = [0.1 + t / 1000 for t in times]
    calm, disturbed = step_statistics(times, 8), step_statistics(times + [hiccup], 8)
    assert disturbed["images_per_second"] == pytest.approx(calm["images_per_second"], rel=0.011) and disturbed["images_per_second_mean"] < 0.5 * calm["images_per_second_mean"]


@pytest.mark.parametrize("times, images", [([], 8), ([0.1, 0.0], 8), ([0.1, -1], 8), ([[0.1]], 8), ([0.1], 0), ([float("nan")], 8)])
def test_statistics_of_nothing_are_refused(times, images):
    with pytest.raises(ValueError, match="positive step times"):
        step_statistics(times, images)


# ---- the clock ----

class Machine:
    """A machine on its own clock: making a batch, handing a step over and computing it take what is said, in seconds."""

    def __init__(self, make=0.0, hand=0.001, work=0.01):
        self.now, self.free, self.made, self.make_seconds, self.hand, self.work = 0.0, 0.0, 0, make, hand, work

    def clock(self):
        return self.now

    def batches(self, count=10**6):
        for n in range(count):
            self.now += self.make_seconds
            self.made += 1
            yield n, -n

    def step(self, x, y):
        self.now += self.hand
        self.free = max(self.free, self.now) + self.work

    def wait(self):
        self.now = max(self.now, self.free)


@given(st.integers(0, 6), st.integers(1, 30), st.floats(0, 0.5))
def test_a_step_takes_its_batch_its_handing_over_and_its_work(warmup, steps, make):
    machine = Machine(make)
    times = time_steps(machine.step, machine.batches(), warmup=warmup, steps=steps, wait=machine.wait, clock=machine.clock)
    assert (len(times.warmup), len(times.seconds), machine.made) == (warmup, steps, 1 + warmup + steps)
    assert np.allclose([times.first, *times.warmup, *times.seconds], make + 0.011) and machine.now == pytest.approx((1 + warmup + steps) * (make + 0.011))


def test_without_waiting_only_the_handing_over_is_seen():
    machine = Machine()
    assert np.allclose(time_steps(machine.step, machine.batches(), clock=machine.clock).seconds, 0.001)


def test_too_few_batches_are_refused():
    machine = Machine()
    with pytest.raises(ValueError, match=r"1 \+ 5 \+ 40 steps need as many batches, got 7"):
        time_steps(machine.step, machine.batches(7), clock=machine.clock)


# ---- turns ----

def test_a_turn_drops_its_first_step_prepares_one_batch_more_and_closes_its_feed():
    machine, asked, closed = Machine(), [], []

    def feed(count):
        asked.append(count)
        try:
            yield from machine.batches(count)
        finally:
            closed.append(True)
    took = turn_of(machine.step, feed, machine.wait, machine.clock)(4)
    assert len(took) == 4 and asked == [6] and machine.made == 5 and closed == [True]


def test_turns_alternate_in_changing_order():
    order = []

    def contestant(name):
        def turn(steps):
            order.append(name)
            return [1.0] * steps
        return turn
    rounds = take_turns({name: contestant(name) for name in "ABC"}, rounds=3, steps=2)
    assert "".join(order) == "ABCCBAABC" and {name: [len(turn) for turn in turns] for name, turns in rounds.items()} == dict.fromkeys("ABC", [2, 2, 2])


@pytest.mark.parametrize("contestants, rounds, steps", [({}, 1, 1), ({"A": list}, 0, 1), ({"A": list}, 1, 0)])
def test_turns_of_nothing_are_refused(contestants, rounds, steps):
    with pytest.raises(ValueError, match="turns need"):
        take_turns(contestants, rounds, steps)


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    # rounds: 0.2 / 0.1 = 2, 3, and one in which the other was held up, 50
    assert times_as_fast([(0.1, 0.1), (0.1,), (0.1,)], [(0.2, 0.2), (0.3,), (5.0,)]) == pytest.approx(3)
    with pytest.raises(ValueError):
        times_as_fast([(0.1,)], [(0.1,), (0.2,)])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_real_feed_goes_on_where_it_ended(counts):
    made = []
    feed = real_feed(lambda n: made.append(n) or (n, n))
    seen = [x for count in counts for x, _ in feed(count)]
    assert seen == made == list(range(sum(counts)))


def test_a_real_feed_makes_the_next_batch_meanwhile_and_stops_when_closed():
    made = []
    batches = real_feed(lambda n: made.append(n) or (n, n))(10)
    next(batches), next(batches)
    batches.close()
    assert made in ([0, 1], [0, 1, 2])                                         # the third was asked for when the second was taken


# ---- jobs ----

@given(st.integers(1, 600))
def test_a_batch_is_shared_out_to_the_last_image(batch):
    if batch % 2 or batch < 4:
        with pytest.raises(ValueError, match="at least two signers"):
            shares_of(batch)
    else:
        people, genuine, forgeries = shares_of(batch)
        assert people * (genuine + forgeries) == batch and people >= 2 and genuine >= 2 and forgeries >= 0


def test_an_extractors_batches_are_all_full():
    job = training_job("extractor", 8, (64, 96), "float32", width=4, examples=6)
    shapes = {(x.shape, y.shape) for x, y in map(job.make, range(9))}
    assert shapes == {((8, 64, 96, 1), (8,))} and job.images == 8 and job.noise[0].dtype == np.float32
    assert job.model.loss is not None and type(job.model.optimizer).__name__ == "AdamW" and job.model.jit_compile is (BACKEND == "jax")


@pytest.mark.parametrize("given, message", [
    ({"job": "matcher"}, "job must be one of"),
    ({"job": "cleaner", "size": (150, 220)}, "multiples of 32"),
    ({"job": "detector", "size": (96, 100)}, "multiples of 32"),
    ({"job": "extractor", "size": (16, 200)}, "at least 32"),
    ({"job": "extractor", "size": (64,)}, "height, width"),
    ({"job": "extractor", "batch": 9}, "at least two signers"),
])
def test_jobs_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        training_job(**given)


# ---- counting ----

def test_flops_by_hand():
    import keras
    image = keras.Input((None, None, 2))
    once = keras.layers.Conv2D(4, 3, padding="same", groups=2, name="grouped")(image)             # 9 · 1 · 4 products at each place
    head = keras.layers.Conv2D(5, 1, name="head")                                                  # 4 · 5, at two sizes
    small = keras.layers.MaxPooling2D(2)(once)
    up = keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same", name="up")(small)           # 16 · 3 · 4 at each place of its input
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in (head(once), head(small), up)]
    y = keras.layers.Dense(7, name="dense")(keras.layers.Concatenate()(pooled))                    # 13 · 7
    model = keras.Model(image, y)
    model.compile("sgd", lambda a, b: a - b)                                                       # a loss that nobody could copy
    assert layer_flops(model, (8, 12)) == {"grouped": 2 * 36 * 96, "head": 2 * 20 * (96 + 24), "up": 2 * 192 * 24, "dense": 2 * 91}
    assert forward_flops(model, (16, 24)) - 2 * 91 == 4 * (forward_flops(model, (8, 12)) - 2 * 91)


@pytest.mark.parametrize("kind, options", [("DepthwiseConv2D", {"kernel_size": 3}), ("SeparableConv2D", {"filters": 2, "kernel_size": 3})])
def test_a_layer_that_is_not_known_is_an_error_not_a_zero(kind, options):
    import keras
    model = keras.Sequential([keras.Input((8, 8, 3)), getattr(keras.layers, kind)(name="odd", **options)])
    with pytest.raises(ValueError, match=f"got odd .{kind}."):
        forward_flops(model, (8, 8))


def test_the_kits_networks_are_counted_whole():
    from signver_kit.anchors import anchor_boxes
    from signver_kit.cleaner import build_cleaner
    from signver_kit.detector import DetectorConfig, build_detector
    assert forward_flops(build_cleaner(), (160, 256)) == 1_310_392_320                              # TensorFlow's profiler: 0.2 % more, with what is no product
    config = DetectorConfig(width=8, pyramid=8, depth=1)
    places = len(anchor_boxes((64, 96), config.shapes)) // len(config.shapes)                      # of all maps of the pyramid: a head slides over each
    assert layer_flops(build_detector(config), (64, 96))["what0"] == 2 * 9 * 8 * 8 * places


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_peak_is_found(precision):
    peak = measured_peak(precision, sizes=(32, 64), seconds=0.005)
    assert peak["flops"] > 0 and peak["size"] in (32, 64) and peak["products"] >= 2


def test_figures_by_hand():
    class Job:
        images = 10
    rounds = {"real": [(0.2, 0.2), (0.2, 0.2)], "random": [(0.1, 0.1), (0.16, 0.16)], "torch_float32": [(0.3,), (0.32,)], "py_function": [(0.8,), (0.4,)]}
    found = throughput_figures(Job, rounds, 2_000_000, {"flops": 3e9})
    assert found["images_per_second"] == pytest.approx(50) and found["step_ms_p50"] == pytest.approx(200) and found["timed_steps"] == 4
    assert found["pipeline_ratio"] == pytest.approx((0.5 + 0.8) / 2)
    assert found["vs_torch_float32"] == pytest.approx((3 + 2) / 2) and "vs_torch_bfloat16" not in found
    assert found["vs_py_function"] == pytest.approx((4 + 2) / 2)
    assert found["training_flops_per_image"] == 6_000_000 and found["peak_gflops"] == pytest.approx(3)
    assert found["peak_share"] == pytest.approx(6e6 * 50 / 3e9) and found["random_peak_share"] == pytest.approx(6e6 * found["random_images_per_second"] / 3e9)


# ---- memory, energy, money ----

def test_a_childs_memory_is_its_own():
    block = np.ones(400 * 2**20 // 8)                                          # this process has had 400 MiB at least
    own = peak_memory()["memory_peak_mib"]
    child = subprocess.run([sys.executable, "-c", "from signver_kit.throughput import peak_memory; print(peak_memory()['memory_peak_mib'])"], capture_output=True, text=True, check=True)
    assert own >= block.nbytes / 2**20 and 5 < float(child.stdout) < 400


def zone(folder, name, kind, counter, top=999_999):
    (folder / name).mkdir()
    for file, text in (("name", kind), ("energy_uj", counter), ("max_energy_range_uj", top)):
        (folder / name / file).write_text(f"{text}\n")
    return folder / name / "energy_uj"


def test_energy_is_summed_over_packages_and_counters_go_round(tmp_path):
    first, second = zone(tmp_path, "intel-rapl:0", "package-0", 900_000), zone(tmp_path, "intel-rapl:1", "package-1", 100)
    part, whole = zone(tmp_path, "intel-rapl:0:0", "core", 5), zone(tmp_path, "intel-rapl:2", "psys", 5)
    meter = EnergyMeter("cpu", root=tmp_path)
    with meter:
        first.write_text("150000"), second.write_text("500100"), part.write_text("900"), whole.write_text("900")
    assert meter.joules == pytest.approx(0.25 + 0.5) and meter.reason is None


def test_where_nothing_is_reported_there_is_a_reason(tmp_path):
    for meter in (EnergyMeter("cpu", root=tmp_path), EnergyMeter("hpu"), EnergyMeter("gpu", command=("no-such-program",))):
        with meter:
            pass
        assert meter.joules is None and meter.reason


def test_a_cards_power_becomes_joules(monkeypatch):
    program = "import sys, time; print('100.0\\n[N/A]\\n300.0', flush=True); time.sleep(60)"
    meter = EnergyMeter("gpu", command=(sys.executable, "-c", program))
    with meter:
        assert select.select([meter.process.stdout], [], [], 60)[0]            # the program has told
        begun = meter.begun
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: begun + 2.0)
    assert meter.joules == pytest.approx(400) and meter.reason is None


@given(st.floats(1, 1e7), st.floats(0.01, 1e5), st.floats(0, 100))
def test_cost_is_time_times_price(images, rate, price):
    took, cost = epoch_cost(images, rate, price)
    assert took == pytest.approx(images / rate) and cost == pytest.approx(took / 3600 * price) and epoch_cost(images, rate)[1] is None


@pytest.mark.parametrize("given", [(0, 1), (1, 0), (1, 1, -1)])
def test_impossible_costs_are_refused(given):
    with pytest.raises(ValueError, match="above 0"):
        epoch_cost(*given)


# ---- peers ----

SETTINGS = {"width": 8, "size": [64, 96], "labels": [0, 0, 1, 1, -1], "threads": 1, "device": "cpu", "seed": 0}


def fake_peer(folder, body):
    path = folder / "throughput.py"
    path.write_text("import json, sys\n\n\ndef serve_torch():\n" + textwrap.indent(textwrap.dedent(body), "    "))
    return str(path)


def test_the_peer_is_asked_in_turns(tmp_path):
    file = fake_peer(tmp_path, """
        settings = json.loads(sys.stdin.readline())
        print("a library says hello")
        print("signver-peer: " + json.dumps({"parameters": settings["width"]}), flush=True)
        for line in sys.stdin:
            word, precision, steps = line.split()
            assert word == "go"
            print("signver-peer: " + json.dumps([{"float32": 2.0, "bfloat16": 1.0}[precision]] * int(steps)), flush=True)
        """)
    with TorchPeer(None, SETTINGS, file) as peer:
        rounds = take_turns({name: peer.turn(name) for name in ("float32", "bfloat16")}, rounds=2, steps=3)
        assert peer.about == {"parameters": 8}
    assert rounds == {"float32": [(2.0,) * 3] * 2, "bfloat16": [(1.0,) * 3] * 2} and peer.process.returncode == 0


def test_a_peer_that_dies_says_why(tmp_path):
    file = fake_peer(tmp_path, """
        sys.stdin.readline()
        print("signver-peer: {}", flush=True)
        sys.stdin.readline()
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        """)
    with TorchPeer(None, SETTINGS, file) as peer, pytest.raises(RuntimeError, match="can't allocate memory"):
        peer.turn("float32")(2)
    with pytest.raises(RuntimeError, match="cannot be run"):
        TorchPeer("/no/such/python", SETTINGS, file).__enter__()


def test_the_peers_file_needs_neither_the_kit_nor_keras(tmp_path):
    """Where torch is missing, torch is all that is missing."""
    blocked = f"import sys\nfor name in ('signver_kit', 'keras', 'tensorflow', 'torch', 'cv2', 'tqdm', 'pandas', 'PIL'):\n    sys.modules[name] = None\nsys.argv[1] = {throughput.__file__!r}\n"
    done = subprocess.run([sys.executable, "-c", blocked + throughput.PEER, "file"], capture_output=True, text=True, input="{}", cwd=tmp_path)
    assert done.returncode == 1 and "import of torch halted" in done.stderr.splitlines()[-1]


def test_pytorchs_network_is_the_kits():
    """Needs torch, here or in SIGNVER_TORCH_PYTHON; the benchmark itself refuses networks that differ in size."""
    python = os.environ.get("SIGNVER_TORCH_PYTHON")
    if not python:
        pytest.importorskip("torch", reason="PyTorch is not installed, and SIGNVER_TORCH_PYTHON names no Python that has it")
    from signver_kit.extractor import ExtractorConfig, build_extractor
    model = build_extractor(ExtractorConfig(width=8, input_size=(64, 96)))
    with TorchPeer(python, SETTINGS) as peer:
        assert peer.about["parameters"] == sum(math.prod(weight.shape) for weight in model.trainable_weights)
        assert all(len(peer.turn(precision)(2)) == 2 for precision in ("float32", "bfloat16"))


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_signvers_recipe_only_adds(seed):
    from signver_kit.documents import open_fonts
    picture = np.full((120, 200), 255, np.uint8)
    picture[40:60, 30:150] = 0
    [scan], fonts = throughput.scans_of([picture]), [family[0] for family in open_fonts()]
    assert Image.open(io.BytesIO(scan)).size == (600, 360)
    dirty, clean = throughput.draw_dirt(scan, np.random.default_rng(seed), (120, 200), fonts)
    assert dirty.shape == clean.shape == (120, 200, 3) and dirty.dtype == np.float32
    assert (dirty >= clean).all() and dirty.sum() > clean.sum() and clean.sum() == pytest.approx(3 * 20 * 120, rel=0.05)
    again = throughput.draw_dirt(scan, np.random.default_rng(seed), (120, 200), fonts)
    assert np.array_equal(again[0], dirty)


@on_tensorflow
def test_pairs_come_through_tensorflow_in_batches():
    picture = np.full((60, 90), 255, np.uint8)
    picture[20:30, 10:80] = 0
    batches = throughput.py_function_pairs([picture], (32, 64), 3).as_numpy_iterator()
    (x, y), (z, _) = next(batches), next(batches)
    assert x.shape == y.shape == (3, 32, 64, 3) and np.array_equal(y[0], y[1]) and not np.array_equal(x, z)


# ---- rows ----

def test_a_setup_is_checked_and_keeps_plain_values():
    assert Setup(size=[64, 96]).size == (64, 96) and Setup(steps=40, rounds=6).steps_a_turn == 7
    for wrong in ({"job": "matcher"}, {"rounds": 0}, {"steps": 2, "rounds": 3}, {"warmup": -1}, {"batch": 0}):
        with pytest.raises(ValueError):
            Setup(**wrong)
    with pytest.raises(ValueError, match="no batchsize: it knows"):
        setup_from({"batchsize": 3})


@pytest.mark.parametrize("problem, shown", [
    (MemoryError(), "MemoryError: (no message)"),
    (RuntimeError("OOM when allocating tensor\nwith shape"), "RuntimeError: OOM when allocating tensor"),
])
def test_what_fails_is_a_row_with_its_error(monkeypatch, problem, shown):
    def fail(*_, **__):
        raise problem
    monkeypatch.setattr(throughput, "training_job", fail)
    row = measure(Setup())
    assert row["error"] == shown and row["metrics"] == {} and json.loads(json.dumps(row))["setup"]["job"] == "extractor"


def test_an_absent_device_and_another_backend_are_rows_too():
    assert "gpu was asked for" in measure(Setup(device="gpu"))["error"] or "cannot be used" in measure(Setup(device="gpu"))["error"]
    other = "jax" if BACKEND != "jax" else "torch"
    assert f"KERAS_BACKEND={other}" in measure(Setup(backend=other))["error"]


def test_a_busy_machine_is_noted():
    cores = os.cpu_count()
    assert throughput.busy_note(0.1) == {} and f"load average {4.0 * cores:.1f} on {cores} cores" in throughput.busy_note(4.0 * cores)["load"]


def test_a_grid_is_every_combination():
    setups = grid_of({"batch": [16, 32], "precision": ["float32", "mixed_bfloat16"]}, job="cleaner", steps=10)
    assert [(setup.batch, setup.precision) for setup in setups] == [(16, "float32"), (16, "mixed_bfloat16"), (32, "float32"), (32, "mixed_bfloat16")]
    assert {(setup.job, setup.steps) for setup in setups} == {("cleaner", 10)}
    for wrong in ({}, {"batch": []}, {"batch": 16}, {"batchsize": [16]}):
        with pytest.raises(ValueError):
            grid_of(wrong)


def pretend(setup):
    return {**failed_row(setup, None), "metrics": {"images_per_second": float(setup.batch)}, "used": {"batch": setup.batch}} if setup.batch < 64 else failed_row(setup, "MemoryError: 64")


def test_a_sweep_that_was_cut_off_goes_on_where_it_stood(tmp_path):
    setups, calls = grid_of({"batch": [16, 32, 64, 128]}), []

    def cut_off(setup):
        if setup.batch == 64 and calls.count(64) == 0:
            calls.append(64)
            raise KeyboardInterrupt
        calls.append(setup.batch)
        return pretend(setup)
    with pytest.raises(KeyboardInterrupt):
        sweep(setups, tmp_path, run=cut_off, progress=False)
    rows = sweep(setups, tmp_path, run=cut_off, progress=False)
    assert calls == [16, 32, 64, 64, 128] and [row["error"] for row in rows] == [None, None, "MemoryError: 64", "MemoryError: 64"]
    assert sweep(setups, tmp_path, run=pytest.fail, progress=False) == rows                        # failed rows are rows: not run again either
    table = rows_table(rows)
    assert table["batch"].tolist() == [16, 32, 64, 128] and table["images_per_second"].isna().tolist() == [False, False, True, True] and "job" not in table


def test_other_settings_and_other_machines_are_refused(tmp_path, monkeypatch):
    sweep(grid_of({"batch": [16]}), tmp_path, run=pretend, progress=False)
    for other in (grid_of({"batch": [16, 32]}), grid_of({"batch": [16]}, steps=80), grid_of({"batch": [16]}, job="cleaner")):
        with pytest.raises(ValueError, match="begun with other setups"):
            sweep(other, tmp_path, run=pretend, progress=False)
    monkeypatch.setattr(throughput, "machine_stamp", lambda: {"processor": "another"})
    with pytest.raises(ValueError, match="begun with other machine"):
        sweep(grid_of({"batch": [16]}), tmp_path, run=pretend, progress=False)


@pytest.mark.parametrize("child, shown", [
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL: out of memory"),
    ("raise MemoryError('too large')", "ended with code 1: MemoryError: too large"),
    ("import time; time.sleep(60)", "TimeoutExpired: not done after 1 seconds"),
    ("pass", "ended with code 0: it said nothing"),
])
def test_a_child_that_dies_is_a_row(monkeypatch, child, shown):
    monkeypatch.setattr(throughput, "CHILD", child)
    row = measure_apart(Setup("cleaner", batch=8), timeout=1 if "sleep" in child else 60)
    assert shown in row["error"] and row["setup"]["batch"] == 8 and row["metrics"] == {}


def test_a_child_gets_its_setup_and_its_backend(monkeypatch):
    monkeypatch.setattr(throughput, "CHILD", "import json, os, sys\nfrom signver_kit.throughput import failed_row, setup_from\nsetup = setup_from(json.loads(sys.argv[1]))\n"
                        "open(sys.argv[2], 'w').write(json.dumps(failed_row(setup, os.environ['KERAS_BACKEND'] + os.environ['CUDA_VISIBLE_DEVICES'] + os.environ['JAX_PLATFORMS'])))")
    row = measure_apart(Setup("detector", backend="jax", device="cpu", size=(64, 96)))
    assert row["error"] == "jaxcpu" and row["setup"]["size"] == [64, 96]


def test_endings_in_words():
    assert ending(-15, "") == "killed by SIGTERM" and ending(3, "a\nb\n") == "ended with code 3: b" and ending(-1000, "") == "killed by signal 1000"


def test_ready_batches_are_the_same_ones():
    assert list(ready_feed(1, 2)(3)) == [(1, 2)] * 3
