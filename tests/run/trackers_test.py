import json
import math
import struct
import sys
import types

import pytest
from tensorboardX.proto import event_pb2

from configs import common
from hir_jax.data.example import Example
from hir_jax.errors import UserError
from hir_jax.hindsight.sample import Sample
from hir_jax.run import metrics, settings, trackers

CONFIG = common.get_config()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(workdir):
    """Every event in the TFRecord files: (8 bytes of length, 4, data, 4) each."""
    for path in sorted(workdir.glob("tensorboard/*tfevents*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def scalars(workdir):
    return [
        (v.tag, e.step, v.simple_value)
        for e in events(workdir)
        for v in e.summary.value
        if v.HasField("simple_value")
    ]


def write_steps(writer, steps):
    for step in steps:
        writer.write(step, {"phase": "train", "loss": 1 / (step + 1)})


def test_tensorboard_mirrors_numbers_under_their_phase(tmp_path):
    writer = metrics.MetricsWriter(tmp_path, None, CONFIG)
    writer.write(3, {"phase": "evaluate", "accuracy": 0.5, "split": "dev"})
    writer.write(4, {"loss": 2.0})
    writer.timing(4, {"phase": "train", "rate": 8.0})
    writer.close()
    found = scalars(tmp_path)
    assert ("evaluate/accuracy", 3, 0.5) in found
    assert ("loss", 4, 2.0) in found
    assert ("train/rate", 4, 8.0) in found
    assert {tag for tag, *_ in found} == {"evaluate/accuracy", "loss", "train/rate"}


def test_tensorboards_tags_are_of_letters_digits_and_few_others(tmp_path, caplog):
    caplog.set_level("INFO")
    writer = metrics.MetricsWriter(tmp_path, None, CONFIG)
    writer.write(1, {"phase": "sample", "pass@2": 0.5, "reward_my.checks:near": 1.0})
    writer.close()
    found = {tag for tag, *_ in scalars(tmp_path)}
    assert found == {"sample/pass_2", "sample/reward_my.checks_near"}
    assert "pass@2" in lines(tmp_path / "metrics.jsonl")[0]
    assert not caplog.records  # TensorBoard's writer would tell of each, each time


def test_tensorboard_hides_what_was_cut(tmp_path):
    writer = metrics.MetricsWriter(tmp_path, 0, CONFIG)
    write_steps(writer, range(4))
    position = writer.position
    write_steps(writer, range(4, 7))
    writer.close()
    metrics.MetricsWriter(tmp_path, position, CONFIG).close()
    starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert starts == [0, 4]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_number_that_is_none_is_a_curve_too(tmp_path):
    writer = metrics.MetricsWriter(tmp_path, None, CONFIG)
    writer.write(0, {"a": math.nan})
    writer.close()
    assert math.isnan(scalars(tmp_path)[0][2])


def tags(workdir):
    return [v.tag for e in events(workdir) for v in e.summary.value]


def test_tensorboard_has_the_config_and_samples_once(tmp_path):
    writer = metrics.MetricsWriter(tmp_path, 0, CONFIG)
    writer.write(1, {"phase": "sample", "correct": 0.5})
    writer.samples(1, [sample(0, "an </pre>\n\x1b[31m output", True)], EXAMPLES)
    position = writer.position
    writer.close()
    metrics.MetricsWriter(tmp_path, position, CONFIG).close()
    found = tags(tmp_path)
    assert found.count("config/text_summary") == 1
    assert found.count("_hparams_/session_start_info") == 1
    (text,) = (
        v.tensor.string_val[0].decode()
        for e in events(tmp_path)
        for v in e.summary.value
        if v.tag == "samples/text_summary"
    )
    # Indented, Markdown shows it as it is.
    assert text == "    right\n    what is 0?\n    an </pre>\\n\\x1b[31m output"


# Modules ------------------------------------------------------------------------------------------

EXAMPLES = {
    f"q{i}": Example(f"q{i}", f"what is {i}?", (), ("x",), "task", f"q{i}") for i in range(30)
}


def sample(i, text, correct, parsed=True):
    return Sample(f"q{i}", 0, (1,), text, correct, parsed, -1.0, 1)


class Fake(types.ModuleType):
    """A tracker's module that records what it is asked."""

    def __init__(self, name, **raises):
        super().__init__(name)
        self.calls = []
        for method in ("init", "log", "finish", "define_metric"):
            setattr(self, method, self._recorder(method, raises.get(method)))

    def Table(self, columns, data):
        return ("table", tuple(columns), tuple(map(tuple, data)))

    def _recorder(self, method, error):
        def call(*args, **named):
            self.calls.append((method, args, named))
            if error:
                raise error

        return call

    def logged(self):
        return [args[0] for method, args, _ in self.calls if method == "log"]


@pytest.fixture
def module(monkeypatch):
    def install(name, **raises):
        fake = Fake(name, **raises)
        monkeypatch.setitem(sys.modules, name, fake)
        return fake

    return install


def asking(names):
    config = common.get_config()
    config.trackers = names
    return config


def phases(writer, iterations):
    """What a run of so many iterations says; gives the positions at which each began."""
    positions = []
    for i in iterations:
        positions.append(writer.position)
        writer.timing(i, {"phase": "sample", "iteration": i, "seconds": 1.0})
        writer.samples(i, [sample(i, "x", True)], EXAMPLES)
        writer.write(i, {"phase": "sample", "iteration": i, "correct": i / 10})
    return positions


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_tells_nothing_twice_and_leaves_nothing_out(name, module, tmp_path):
    whole = module(name)
    writer = metrics.MetricsWriter(tmp_path / "whole", 0, asking(name))
    phases(writer, range(5))
    writer.close()
    fake = module(name)
    killed = metrics.MetricsWriter(tmp_path / "killed", 0, asking(name))
    positions = phases(killed, range(3))
    killed.timing(3, {"phase": "sample", "iteration": 3, "seconds": 1.0})  # and no more
    resumed = metrics.MetricsWriter(tmp_path / "killed", positions[1], asking(name))
    phases(resumed, range(1, 5))
    resumed.close()
    assert fake.logged() == whole.logged()
    assert len(fake.logged()) == 15
    begun = [named for method, _, named in fake.calls if method == "init"]
    assert len(begun) == 2
    assert begun[0] == begun[1]  # the same run, by its id or name
    assert begun[0]["resume"] == "allow"
    other = next(named for method, _, named in whole.calls if method == "init")
    assert begun[0] != other
    assert fake.calls[-1][0] == "finish"


def test_what_modules_are_told(module, tmp_path):
    wandb, trackio = module("wandb"), module("trackio")
    writer = metrics.MetricsWriter(tmp_path, 0, asking("wandb, trackio"))
    writer.write(7, {"phase": "evaluate", "accuracy": 0.5, "split": "dev"})
    writer.samples(7, [sample(1, "\x07", False)], EXAMPLES)
    writer.close()
    table = ("table", trackers.COLUMNS, (("wrong", "what is 1?", "\\x07"),))
    assert wandb.logged() == [{"evaluate/accuracy": 0.5, "step": 7}, {"samples": table, "step": 7}]
    assert trackio.logged() == [{"evaluate/accuracy": 0.5}, {"samples": table}]
    assert [named for method, _, named in trackio.calls if method == "log"] == [{"step": 7}] * 2
    assert not (tmp_path / "tensorboard").exists()  # nobody asked for it
    begun = next(named for method, _, named in wandb.calls if method == "init")
    assert begun["dir"] == str(tmp_path)
    assert begun["config"]["loss"]["smoothing"] == CONFIG.loss.smoothing


def test_a_module_that_fails_does_not_end_the_run(module, tmp_path, caplog):
    fake = module("wandb", log=ConnectionError("gone"))
    writer = metrics.MetricsWriter(tmp_path, 0, asking("wandb"))
    writer.write(1, {"loss": 1.0})
    writer.write(2, {"loss": 2.0})
    writer.close()
    assert len(fake.logged()) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert [r.getMessage() for r in caplog.records if r.exc_info] == [
        "wandb has failed and is told nothing more; the run goes on"
    ]


def test_a_table_that_cannot_be_made_does_not_end_the_run(module, tmp_path, caplog, monkeypatch):
    fake = module("wandb")
    monkeypatch.setattr(fake, "Table", lambda columns, data: 1 / 0)
    writer = metrics.MetricsWriter(tmp_path, 0, asking("wandb"))
    writer.samples(1, [sample(1, "x", True)], EXAMPLES)
    writer.write(2, {"loss": 2.0})
    writer.close()
    assert fake.logged() == []
    assert [r.getMessage() for r in caplog.records if r.exc_info] == [
        "wandb has failed and is told nothing more; the run goes on"
    ]


@pytest.mark.parametrize("text", ["", '{"wandb"', "[]"])
def test_a_damaged_note_of_what_was_told_is_a_sentence(module, tmp_path, text):
    module("wandb")
    (tmp_path / trackers.FILE).write_text(text)
    with pytest.raises(UserError, match=trackers.FILE):
        metrics.MetricsWriter(tmp_path, 0, asking("wandb"))


def test_a_module_that_cannot_be_imported_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise TypeError('protobuf')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match="wandb is installed and cannot be imported: TypeError"):
        settings.check(asking("wandb"))


def test_a_module_that_does_not_begin_is_a_sentence(module, tmp_path):
    module("wandb", init=ValueError("no key"))
    with pytest.raises(UserError, match="wandb does not begin: no key"):
        metrics.MetricsWriter(tmp_path, 0, asking("wandb"))


def test_trackers_that_are_unknown_or_not_installed_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    config = asking("tensorboard,wandb,mlflow")
    with pytest.raises(UserError) as e:
        settings.check(config)
    assert "wandb is asked for and not installed" in str(e.value)
    assert "expected some of tensorboard, wandb, trackio; found 'mlflow'" in str(e.value)


def test_only_what_is_asked_for_is_imported(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "_imported", None)
    settings.check(CONFIG)
    metrics.MetricsWriter(tmp_path, 0, CONFIG).close()


def test_few_samples_are_right_and_wrong_by_turns():
    right = [sample(i, "x", True) for i in range(20)]
    wrong = [sample(20, "y", False), sample(21, "", False, parsed=False)]
    verdicts = [told.verdict for told in trackers.few([*right, *wrong], EXAMPLES)]
    assert verdicts == ["right", "wrong", "right", "unreadable", *["right"] * 4]
    assert trackers.few([], {}) == []


def test_few_samples_are_of_as_many_questions():
    each = [sample(i, text, text == "a") for i in range(3) for text in "ab"]
    assert [told.output for told in trackers.few(each, EXAMPLES)] == ["a", "a", "a"]


def test_plain_text_shows_what_is_not_seen():
    assert trackers.plain("a\x1b[2J\r\n\u202eb é 猫") == "a\\x1b[2J\\r\\n\\u202eb é 猫"
