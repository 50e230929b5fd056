"""What the benchmarks compare with; the benchmarks themselves are run by hand."""

import dataclasses
import functools
import json
import math
import pathlib
import select
import signal
import sys

import numpy as np
import pytest
import transformers

from benchmarks import decode_profile, limits, turns, workloads
from benchmarks.peers import loop, settings, work
from hir_jax.devices import hardware
from hir_jax.model import shapes


def workload(folder: pathlib.Path, size, prompts):
    (folder / "config.json").write_text(json.dumps(shapes.flan_t5(size)))
    return workloads.Workload("D", folder, [[5] * 256] * prompts, 1, 64, exact=True)


@pytest.mark.parametrize(
    ("size", "rows", "thousands"),
    [
        # An H200 at 4.3 TB/s in bfloat16, worked out apart from this program.
        ("small", 64, 907),
        ("small", 1024, 1190),
        ("base", 256, 371),
        ("large", 64, 106),
        ("xl", 1024, 72),
    ],
)
def test_a_decode_step_reads_weights_keys_and_values_once(tmp_path, size, rows, thousands):
    made = workload(tmp_path, size, rows)
    tokens = rows * 64
    seconds = made.roofline(tokens, rows, limits.Rates(math.inf, 4.3e12), itemsize=2)
    assert tokens / seconds / 1000 == pytest.approx(thousands, rel=0.01)


def test_where_memory_is_fast_the_roofline_is_the_products_limit(tmp_path):
    made = workload(tmp_path, "small", 64)
    seconds = made.roofline(4096, 64, limits.Rates(1e11, math.inf), itemsize=4)
    assert seconds == pytest.approx(made.flops(4096) / 1e11)


def test_rates_and_peaks_are_those_of_all_devices_together(monkeypatch):
    """Eight here: the arrays lie on all of them, and a product on each counts."""
    given = []
    monkeypatch.setitem(limits.SIZES, "cpu", (16, 64))
    monkeypatch.setattr(limits, "_seconds", lambda work, *args: given.append(args[0]) or 0.5)
    assert limits.measured() == (8 * 2 * 64**3 / 0.5, 8 * 16 * 1024 * 4 / 0.5, 8)
    for array in given:
        assert len(array.sharding.device_set) == 8
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {1}
    kind = hardware.Kind("fast", memory=1.0, flops=100.0)
    monkeypatch.setattr(hardware, "kind_of", lambda device: kind)
    assert (limits.peak_flops("bfloat16"), limits.peak_flops("float32")) == (800, 0)


def test_eight_devices_with_eight_times_the_rows_are_eight_times_as_fast(tmp_path):
    """Each reads the weights for rows of its own; so the best share is 1 on any number of them."""
    made = workload(tmp_path, "base", 512)
    one = made.roofline(512 * 64, 64, limits.Rates(1e15, 4e12), itemsize=2)
    eight = made.roofline(512 * 64, 512, limits.Rates(8e15, 32e12, devices=8), itemsize=2)
    assert one / eight == pytest.approx(8)


def test_weights_are_those_of_the_published_model(tmp_path):
    weights = workload(tmp_path, "small", 1).weights
    embedding = 32128 * 512
    # Two norms a block of the encoder, three of the decoder, one after each stack.
    norms = 512 * (8 * 2 + 8 * 3 + 2)
    biases = 2 * 32 * 6
    read = weights.encoder + weights.cross + weights.decoder
    assert read + embedding + norms + biases == 76_961_152


def test_rows_that_wait_for_the_end_of_a_chunk():
    assert decode_profile.rows_at_work(1) == 1
    # Of geometric lengths with mean 12 in chunks of n steps: 12 (1 - (11/12)^n) / n.
    assert decode_profile.rows_at_work(8) == pytest.approx(12 * (1 - (11 / 12) ** 8) / 8)


def test_settings_that_would_be_the_same_are_tried_once():
    grid = settings.Grid(workers=(1, 2), batch=(8, 16, 32, 64), encode_once=(True, False))
    few = grid.settings(prompts=20, samples=1)
    assert [(s.workers, s.batch) for s in few] == [(1, 8), (1, 16), (2, 8)]
    assert all(s.encode_once for s in few)
    many = grid.settings(prompts=128, samples=4)
    assert len(many) == len(set(many)) == 2 * 4 * 2


def test_settings_are_compared_on_prompts_of_all_lengths():
    prompts = [[5] * length for length in range(300, 0, -1)]
    lengths = [len(p) for p in settings.part(prompts)]
    assert lengths == list(range(1, 301, 3))
    assert len(settings.part(prompts[:128])) == 128


def test_the_best_settings_are_timed_twice_and_come_first():
    """One that was unlucky the first time wins, if it was among the best few."""
    seconds = {8: [5, 1], 16: [3, 3], 32: [4, 4], 64: [9, 0]}
    every = [settings.Settings(1, batch) for batch in seconds]
    clock = [0.0]

    def run(tried):
        clock[0] += seconds[tried.batch].pop(0)
        return 60

    found = settings.search(every, run, now=lambda: clock[0])
    assert [(s.batch, rate) for s, rate in found] == [
        (8, 60),
        (16, 20),
        (32, 15),
        (64, pytest.approx(60 / 9)),
    ]


def test_rows_that_ended_are_overwritten_by_the_last():
    rows = {"row": np.arange(5), "tokens": np.arange(5) * 10}
    kept = loop.keep(rows, np.array([False, True, False, True, True]))
    assert kept["row"].tolist() == [3, 1, 4]
    assert kept["tokens"].tolist() == [30, 10, 40]


def test_positions_of_a_cache_with_room():
    bias = np.array([[0.0, 1.0, 2.0, 3.0]])
    assert loop.self_bias(bias, 2, 4).tolist() == [[[[2, 1, loop.NEVER, loop.NEVER, 0]]]]


class Torch:
    """The graphs of the peers, as modules: an engine for `loop.sample`."""

    def __init__(self, model, graphs, torch):
        self.encoder, self.decoder, self.torch = graphs.Encoder(model), graphs.Step(model), torch
        self.names = functools.partial(graphs.names, layers=model.config.num_decoder_layers)
        self.rows = []

    def encode(self, ids, mask):
        made = self.encoder(self.torch.from_numpy(ids), self.torch.from_numpy(mask))
        return dict(zip(self.names("source"), (x.numpy() for x in made), strict=True))

    def step(self):
        self.bound = {}
        return self

    def bind(self, arrays):
        self.bound |= {name: self.torch.from_numpy(array) for name, array in arrays.items()}

    def run(self):
        self.rows.append(len(self.bound["tokens"]))
        names = ["tokens", "self_bias", "cross_bias", "noise"]
        pairs = zip(self.names("own"), self.names("source"), strict=True)
        own, source = zip(*pairs, strict=True)
        for i in range(0, len(own), 2):
            names += [*own[i : i + 2], *source[i : i + 2]]
        made = self.decoder(*(self.bound[name] for name in names))
        return dict(zip(["next", *self.names("new")], (x.numpy() for x in made), strict=True))


def test_the_loop_of_the_peers_gives_what_transformers_gives():
    """Greedy, rows that end at different steps, caches that grow, two samples of a prompt."""
    torch = pytest.importorskip("torch")
    from benchmarks.peers import graphs

    torch.manual_seed(1)  # outputs of 5, 10, 12 and, unfinished, 40 tokens
    config = transformers.T5Config(
        vocab_size=97, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=2, num_heads=3,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
        initializer_factor=3.0,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    rng = np.random.default_rng(0)
    prompts = [[*rng.integers(3, 97, n).tolist(), 1] for n in (4, 9, 6, 2, 7, 12, 3, 5)]
    ids = torch.tensor(work.pad(prompts))
    with torch.inference_mode():
        expected = model.generate(
            input_ids=ids, attention_mask=(ids != 0).long(), do_sample=False, max_new_tokens=40
        )[:, 1:].numpy()
        engine = Torch(model, graphs, torch)
        asked = work.Work("", prompts, samples=2, max_new_tokens=40, exact=False)
        made = loop.sample(engine, prompts, asked, graphs.own_bias(model, 64).numpy(), rng=None)
    width = expected.shape[1]
    assert made[::2, :width].tolist() == made[1::2, :width].tolist() == expected.tolist()
    assert not made[:, width:].any()
    assert engine.rows[0] == 16
    assert len(set(engine.rows)) > 2  # some ended before others


def test_outputs_of_another_length_are_refused(tmp_path):
    exact = workload(tmp_path, "small", 2)
    exact.check_lengths({"ours": 128, "theirs": 128})
    with pytest.raises(RuntimeError, match="expected 128 tokens"):
        exact.check_lengths({"ours": 128, "theirs": 127})
    ends = dataclasses.replace(exact, exact=False)
    ends.check_lengths({"ours": 100, "theirs": 119})
    with pytest.raises(RuntimeError, match="like lengths"):
        ends.check_lengths({"ours": 100, "theirs": 121})


@pytest.mark.parametrize(
    ("program", "patience", "told"),
    [
        ("import time; time.sleep(60)", 0.2, "none came in 0.2 s"),
        ("import sys; sys.stdin.readline()", 60, "the process ended"),
    ],
)
def test_a_runner_that_hangs_or_ends_is_not_waited_for(program, patience, told):
    runner = turns.Runner([sys.executable, "-c", program], patience=patience)
    with pytest.raises(RuntimeError, match=told):
        runner.ask()
    assert runner._process.poll() is not None


def test_the_workers_of_a_runner_that_hangs_end_with_it():
    begins = "import subprocess; subprocess.Popen(['sleep', '60'])"
    program = f"{begins}; print('{{}}', flush=True); import time; time.sleep(60)"
    runner = turns.Runner([sys.executable, "-c", program], patience=60)
    runner.ask()
    runner._patience = 0.2
    with pytest.raises(RuntimeError, match="none came"):
        runner.ask()
    output = runner._process.stdout  # ends when nobody is left who could write to it
    assert select.select([output], [], [], 5)[0] and output.read() == ""


def test_an_interrupt_ends_the_runner_that_is_asked(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    runner = turns.Runner([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(select, "select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.ask()
    assert runner._process.wait(5) == -signal.SIGKILL


def test_a_runner_that_ended_before_it_was_asked_is_told_of_alike():
    runner = turns.Runner([sys.executable, "-c", ""])
    runner._process.wait()
    with pytest.raises(RuntimeError, match="the process ended"):
        runner.ask()
