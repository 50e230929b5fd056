import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hir_jax.devices import sharding
from hir_jax.errors import UserError
from hir_jax.methods.hir import Hir
from hir_jax.model import remat, t5
from hir_jax.planning import hlo
from hir_jax.run import checkpoint
from hir_jax.training import losses, objective
from hir_jax.training import step as step_module
from hir_jax.training.batch import TWO_PROMPTS, TrainingExample, make_batch
from hir_jax.training.objective import counts_of, loss_terms, total_loss
from hir_jax.training.optimizer import make_optimizer
from hir_jax.training.state import init_state, state_shardings
from hir_jax.training.step import make_step, parts_for
from tests import tiny

CONFIG = tiny.EVEN
ALL_TERMS = Hir(smoothing=0.2, contrastive_weight=1.0, contrastive_smoothing=0.1).objective(
    entropy_weight=0.3, kl_weight=0.5
)
IN_BATCH = Hir(contrastive="in_batch", contrastive_weight=2.0).objective(kl_weight=0.5)
KEY = jax.random.key(7)

init_params = jax.jit(lambda seed: t5.init_params(CONFIG, jax.random.key(seed)))


@pytest.fixture(scope="module")
def params():
    return jax.device_get(init_params(0))


@pytest.fixture(scope="module")
def reference():
    return jax.device_get(init_params(1))


def random_batch(real, size=8, shape=(8, 4)):
    """`real` examples of several lengths, right and wrong outputs, in a batch of `size` rows."""
    rng = np.random.default_rng(real)

    def tokens(longest):
        return (*rng.integers(2, 40, rng.integers(0, longest)).tolist(), 1)

    examples = [
        TrainingExample(tokens(shape[0]), tokens(shape[0]), tokens(shape[1]), bool(i % 3))
        for i in range(real)
    ]
    return make_batch(examples, size, shape, TWO_PROMPTS)


BATCH = random_batch(6)


def descent():
    """Plain gradient descent; its state is the last gradient."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params: (jax.tree.map(lambda g: -0.5 * g, grads), grads),
    )


class Trainer:
    """A compiled step on a mesh, and a state to begin with."""

    def __init__(self, settings, optimizer, mesh=None, config=CONFIG, like=None, **options):
        self.mesh = mesh or tiny.one_device()
        self.optimizer = optimizer
        like = like or jax.eval_shape(init_params, 0)
        shardings = state_shardings(like, optimizer, self.mesh)
        self.step = make_step(config, settings, optimizer, shardings, **options)

    def start(self, params):
        placed = jax.device_put(params, sharding.tree_shardings(self.mesh, params))
        return init_state(placed, self.optimizer, self.mesh)

    def place(self, batch):
        return jax.device_put(batch, sharding.batch_sharding(self.mesh))

    def run(self, params, batches, key=KEY, reference=None):
        """The state after a step a batch, and the last metrics."""
        state = self.start(params)
        for batch in batches:
            state, metrics = self.step(state, self.place(batch), key, reference)
        return jax.device_get((state, metrics))


# The loss ------------------------------------------------------------------------------------


@jax.jit
def logits_of(params, source, source_mask, targets):
    """One example's logits, with the start token before its targets, by `t5.forward` alone."""
    inputs = jnp.concatenate([jnp.zeros(1, jnp.int32), targets[:-1]])
    return t5.forward(params, CONFIG, source[None], source_mask[None], inputs[None])[0]


def separate_logits(params, batch, kind):
    """Each row's logits under p* (0) or p- (1), computed row by row; BxTxV."""
    rows = [
        logits_of(params, source[kind], mask[kind], targets)
        for source, mask, targets in zip(
            batch.sources_BxPxS, batch.source_masks_BxPxS, batch.targets_BxT, strict=True
        )
    ]
    return np.asarray(jnp.stack(rows), np.float64)


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def target_logprobs(logits, targets):
    return np.take_along_axis(log_softmax(logits), targets[..., None], axis=-1)[..., 0]


loss_terms = jax.jit(loss_terms, static_argnames=("config", "objective"))


def check_terms(got, expected):
    assert got.keys() == expected.keys()
    for name, (total, per) in expected.items():
        np.testing.assert_allclose(got[name].sum, total, rtol=2e-5, err_msg=name)
        assert got[name].per == per


def expected_terms(params, reference, batch):
    """Every pairwise term from separate forward passes, in float64, real rows one by one."""
    positive, negative = (separate_logits(params, batch, kind) for kind in (0, 1))
    kept = [separate_logits(reference, batch, kind) for kind in (0, 1)]
    mask, targets = batch.target_mask_BxT, batch.targets_BxT
    score = [
        np.where(mask, target_logprobs(logits, targets), 0).sum(1) / np.maximum(mask.sum(1), 1)
        for logits in (positive, negative)
    ]
    supervised = entropy = contrastive = kl = 0.0
    for i in np.flatnonzero(mask.any(axis=1)):
        own, tokens = log_softmax(positive[i][mask[i]]), targets[i][mask[i]]
        supervised -= 0.8 * own[np.arange(len(tokens)), tokens].sum() + 0.2 * own.mean(1).sum()
        entropy += (np.exp(own) * own).sum()
        right = 1 / (1 + np.exp(score[1][i] - score[0][i]))
        contrastive -= 0.9 * np.log(right) + 0.1 * np.log(1 - right)
        sampled = 0 if batch.correct_B[i] else 1  # the prompt that a sample was drawn under
        policy = log_softmax((positive, negative)[sampled][i][mask[i]])
        kl += (np.exp(policy) * (policy - log_softmax(kept[sampled][i][mask[i]]))).sum()
    return {
        "supervised": (supervised, "tokens"),
        "negative_entropy": (entropy, "tokens"),
        "contrastive": (contrastive, "examples"),
        "kl": (kl, "tokens"),
    }


@pytest.mark.parametrize("real", [8, 6])
def test_terms_are_those_of_separate_forward_passes(params, reference, real):
    batch = random_batch(real)
    assert 0 < batch.correct_B[:real].sum() < real
    got = loss_terms(params, batch, None, CONFIG, ALL_TERMS, reference)
    expected = expected_terms(params, reference, batch)
    assert expected["kl"][0] > 0.01
    check_terms(got, expected)


def test_in_batch_terms_compare_each_output_with_every_prompt(params, reference):
    got = loss_terms(params, BATCH, None, CONFIG, IN_BATCH, reference)
    real = np.flatnonzero(BATCH.target_mask_BxT.any(axis=1))
    total = 0.0
    for i in real:
        swapped = BATCH._replace(targets_BxT=np.tile(BATCH.targets_BxT[i], (8, 1)))
        logprobs = target_logprobs(separate_logits(params, swapped, 0), swapped.targets_BxT)
        under_each_prompt = np.where(BATCH.target_mask_BxT[i], logprobs, 0).sum(axis=1)[real]
        own = under_each_prompt[list(real).index(i)]
        total += np.log(np.exp(under_each_prompt).sum()) - own
    np.testing.assert_allclose(got["contrastive"].sum, total, rtol=2e-5)
    assert len(real) == 6
    expected = expected_terms(params, reference, BATCH)
    np.testing.assert_allclose(got["kl"].sum, expected["kl"][0], rtol=2e-5)


def test_without_the_contrastive_and_kl_terms_there_is_no_pass_under_the_negative(params):
    settings = Hir(smoothing=0.2).objective()
    batch = BATCH._replace(sources_BxPxS=BATCH.sources_BxPxS.copy())
    batch.sources_BxPxS[:, 1] = 39
    terms = loss_terms(params, BATCH, None, CONFIG, settings)
    assert terms.keys() == {"supervised", "negative_entropy"}
    other = loss_terms(params, batch, None, CONFIG, settings)
    assert jax.tree.map(float, terms) == jax.tree.map(float, other)
    assert not settings.opposite and ALL_TERMS.opposite and IN_BATCH.opposite
    assert not Hir(contrastive="in_batch", contrastive_weight=1.0).objective().opposite


def test_kl_of_a_model_with_itself_is_zero(params):
    got = loss_terms(params, BATCH, None, CONFIG, ALL_TERMS, params)
    assert abs(got["kl"].sum) < 1e-5


def test_total_loss_weighs_each_terms_share(monkeypatch):
    sums = {"supervised": 8.0, "negative_entropy": -6.0, "contrastive": 4.0, "kl": 2.0}
    coefficients = {"supervised": 1.0, "negative_entropy": 0.3, "contrastive": 2.0, "kl": 0.0}
    terms = {  # of a part of a batch
        name: losses.Term(
            total, "examples" if name == "contrastive" else "tokens", coefficients[name]
        )
        for name, total in sums.items()
    }
    monkeypatch.setattr(objective, "loss_terms", lambda *args: terms)
    counts = {"tokens": 16.0, "examples": 2.0}
    total, means = total_loss({}, BATCH, None, config=CONFIG, objective=ALL_TERMS, counts=counts)
    assert means == {
        "supervised": 0.5,
        "negative_entropy": -0.375,
        "contrastive": 2.0,
        "kl": 0.125,
    }
    assert total == pytest.approx(0.5 + 0.3 * -0.375 + 2.0 * 2.0)  # the last one is for the log


# Gradients -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainer():
    """On one device, with every term."""
    return Trainer(ALL_TERMS, descent())


@pytest.fixture(scope="module")
def whole(trainer, params, reference):
    """The gradient and metrics of a whole batch of 8 rows, two of them padding."""
    state, metrics = trainer.run(params, [BATCH], reference=reference)
    return state.opt_state, metrics


def distance(tree, other):
    """The norm of the difference of two trees, relative to the second."""
    return float(optax.tree.norm(jax.tree.map(np.subtract, tree, other)) / optax.tree.norm(other))


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_gradients_are_the_whole_batchs(params, reference, whole, accumulation):
    in_parts = Trainer(ALL_TERMS, descent(), accumulation=accumulation)
    state, metrics = in_parts.run(params, [BATCH], reference=reference)
    assert distance(state.opt_state, whole[0]) < 1e-6
    assert metrics.keys() == whole[1].keys()
    for name, value in whole[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_parts_where_nobody_says(monkeypatch):
    class Accelerators:
        devices = np.array([type("Device", (), {"platform": "tpu"})])

    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    batch = random_batch(40, 48, (8, 4))  # 12 rows on each of 4 shards: 24 x 12 tokens
    for most, parts in ((24 * 12 * 16, 1), (24 * 12 * 16 - 1, 2), (24 * 12 * 16 // 5, 6), (1, 12)):
        monkeypatch.setattr(step_module, "ON_A_CPU", most)
        assert parts_for(batch, 16, mesh) == parts
    assert parts_for(batch, 16, Accelerators()) == 1


def test_small_parts_where_nobody_says(monkeypatch, params, reference, whole):
    monkeypatch.setattr(step_module, "ON_A_CPU", 2 * 2 * (8 + 4) * CONFIG.d_model)  # two rows
    in_parts = Trainer(ALL_TERMS, descent(), accumulation=0)
    seen = []
    accumulate = step_module._accumulate
    monkeypatch.setattr(
        step_module, "_accumulate", lambda *args: [seen.append(args[-1]), accumulate(*args)][1]
    )
    state, _ = in_parts.run(params, [BATCH], reference=reference)
    assert seen == [4]
    assert distance(state.opt_state, whole[0]) < 1e-6
    in_batch = Trainer(IN_BATCH, descent(), accumulation=0)
    in_batch.run(params, [BATCH], reference=reference)
    assert seen == [4, 1]  # its candidates are the whole batch


@pytest.mark.parametrize("keeps, accumulation", [("inputs", 1), ("products", 2)])
def test_what_is_computed_again_gives_the_same_gradient(
    params, reference, whole, keeps, accumulation
):
    config = dataclasses.replace(CONFIG, remat=keeps)
    mesh = sharding.make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    options = {"accumulation": accumulation}
    for forgetful in (
        Trainer(ALL_TERMS, descent(), config=config, **options),
        Trainer(ALL_TERMS, descent(), mesh, config, **options),
    ):
        placed = jax.device_put(reference, sharding.tree_shardings(forgetful.mesh, reference))
        state, metrics = forgetful.run(params, [BATCH], reference=placed)
        assert distance(state.opt_state, whole[0]) < 1e-6
        np.testing.assert_allclose(metrics["loss"], whole[1]["loss"], rtol=1e-6)


def test_a_loss_in_pieces_has_the_same_gradient(params, reference, whole):
    settings = dataclasses.replace(ALL_TERMS, logits_at_once=2 * 8 * 40)  # a position at a time
    state, metrics = Trainer(settings, descent()).run(params, [BATCH], reference=reference)
    assert distance(state.opt_state, whole[0]) < 1e-6
    for name, value in whole[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_metrics_are_the_terms_means(params, reference, whole):
    gradient, metrics = whole
    terms = loss_terms(params, BATCH, None, CONFIG, ALL_TERMS, reference)
    assert metrics.keys() == {"loss", "grad_norm", "entropy", *terms}
    for name, term in terms.items():
        count = counts_of(BATCH, "tokens")[term.per]
        np.testing.assert_allclose(metrics[name], term.sum / count, rtol=1e-5)
    assert all(value.shape == () for value in metrics.values())
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-6)


def test_nothing_in_a_padding_row_changes_the_gradient(trainer, params, reference, whole):
    batch = jax.tree.map(np.copy, BATCH)
    batch.sources_BxPxS[6:] = 17
    batch.source_masks_BxPxS[6:] = True
    batch.targets_BxT[6:] = 23
    batch.correct_B[6:] = True
    state, metrics = trainer.run(params, [batch], reference=reference)
    assert distance(state.opt_state, whole[0]) < 1e-6
    np.testing.assert_allclose(metrics["loss"], whole[1]["loss"], rtol=1e-6)


def test_a_batch_of_padding_alone_has_no_gradient(trainer, params, reference):
    state, metrics = trainer.run(params, [random_batch(0)], reference=reference)
    assert metrics["loss"] == 0 and metrics["grad_norm"] == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(state.opt_state))


def test_the_loss_rises_along_the_gradient_by_its_norm(trainer, params, reference, whole):
    gradient, metrics = whole
    norm, step = metrics["grad_norm"], 1e-2

    def loss_at(distance):
        moved = jax.tree.map(lambda p, g: p + distance * g / norm, params, gradient)
        return trainer.run(moved, [BATCH], reference=reference)[1]["loss"]

    assert (loss_at(step) - loss_at(-step)) / (2 * step) == pytest.approx(norm, rel=1e-2)


def test_in_batch_refuses_accumulation():
    with pytest.raises(UserError, match=r"accumulation.*expected 1, found 2.*pairwise"):
        Trainer(IN_BATCH, descent(), accumulation=2)
    unused = Hir(contrastive="in_batch").objective()
    Trainer(unused, descent(), accumulation=2)


# Optimizers ----------------------------------------------------------------------------------


def updated(optimizer, weight, gradients):
    """The values of one weight after each gradient."""
    params = {"w": jnp.array([weight])}
    state, values = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update({"w": jnp.array([gradient])}, state, params)
        params = optax.apply_updates(params, updates)
        values.append(float(params["w"][0]))
    return values


def test_adamw_by_hand():
    optimizer = make_optimizer("adamw", 0.1, weight_decay=0.5)
    first, second = updated(optimizer, 2.0, [0.5, -0.25])
    # Moments corrected for their start: m = 0.5, v = 0.25, so the step is 0.1 (1 + 0.5 * 2).
    assert first == pytest.approx(2 - 0.1 * (1 + 1), rel=1e-6)
    m = (0.9 * 0.1 * 0.5 + 0.1 * -0.25) / (1 - 0.9**2)
    v = (0.999 * 0.001 * 0.25 + 0.001 * 0.0625) / (1 - 0.999**2)
    assert second == pytest.approx(first - 0.1 * (m / v**0.5 + 0.5 * first), rel=1e-5)


def steps_of(**schedule):
    """The rate of each of 8 steps: with a constant gradient AdamW moves by just the rate."""
    values = [0.0, *updated(make_optimizer("adamw", 0.8, **schedule), 0.0, [1.0] * 8)]
    return -np.diff(values)


def test_warm_up_moves_in_its_first_step_and_reaches_the_rate():
    np.testing.assert_allclose(steps_of(), [0.8] * 8, rtol=1e-4)
    np.testing.assert_allclose(steps_of(warmup_steps=1), [0.8] * 8, rtol=1e-4)
    np.testing.assert_allclose(
        steps_of(warmup_steps=4), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8], rtol=1e-4
    )


def test_cosine_decay_follows_the_warm_up():
    cosine = 0.4 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose(
        steps_of(warmup_steps=2, decay_steps=4), [0.4, 0.8, *cosine, 0, 0], rtol=1e-4, atol=1e-5
    )


def test_clipping_limits_the_global_norm():
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}

    def first_moment(clip_norm):
        optimizer = make_optimizer("adamw", 0.1, clip_norm=clip_norm)
        _, state = optimizer.update(grads, optimizer.init(grads), grads)
        mu = optax.tree_utils.tree_get(state, "mu")
        return [float(mu["a"][0]), float(mu["b"][0])]

    assert first_moment(0.0) == pytest.approx([0.3, 0.4])
    assert first_moment(10.0) == pytest.approx([0.3, 0.4])
    assert first_moment(1.0) == pytest.approx([0.06, 0.08])


def test_adafactor_by_hand():
    # A vector of equal entries: the first step is rate * g / |g|, whatever the weight's size.
    def first_step(weight, weight_decay):
        params = {"w": jnp.full(4, weight)}
        optimizer = make_optimizer("adafactor", 0.1, weight_decay=weight_decay)
        updates, _ = optimizer.update({"w": jnp.full(4, 3.0)}, optimizer.init(params), params)
        return np.asarray(updates["w"])

    np.testing.assert_allclose(first_step(2.0, 0.0), [-0.1] * 4, rtol=1e-5)
    np.testing.assert_allclose(first_step(0.01, 0.0), [-0.1] * 4, rtol=1e-5)
    # Decay is decoupled and scaled by the rate: a further 0.1 * 0.5 * 2.
    np.testing.assert_allclose(first_step(2.0, 0.5), [-0.2] * 4, rtol=1e-5)


def test_a_rate_means_the_same_step_in_both_optimizers():
    """The root mean square of the first updates: kernels of small entries, embeddings of large."""
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.full((256, 512), 0.05), "shared": jnp.full((1000, 256), 12.0)}
    params["scale"] = jnp.ones(256)
    grads = {name: 1e-3 * rng.standard_normal(x.shape) for name, x in params.items()}
    grads["shared"][::2] = 0  # tokens that the batch lacks
    grads = jax.tree.map(jnp.float32, grads)

    def sizes(name):
        optimizer = make_optimizer(name, 5e-4, clip_norm=1.0)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return {name: float(jnp.sqrt(jnp.mean(x**2))) for name, x in updates.items()}

    adamw, adafactor = sizes("adamw"), sizes("adafactor")
    assert adamw["kernel"] == pytest.approx(5e-4, rel=0.01)
    for name in params:
        assert adafactor[name] / adamw[name] == pytest.approx(1, abs=0.1), name


def test_unknown_optimizer():
    with pytest.raises(UserError, match=r"config.train.optimizer: .*'adamw'.*found 'sgd'"):
        make_optimizer("sgd", 0.1)


# The step ------------------------------------------------------------------------------------

PLAIN = Hir(smoothing=0.2).objective()


def test_adafactor_learns_and_each_shape_compiles_once(params):
    plain = Trainer(PLAIN, make_optimizer("adafactor", 3e-2))
    _, first = plain.run(params, [BATCH])
    state, last = plain.run(params, [BATCH] * 10)
    assert last["loss"] < first["loss"] - 0.3
    assert state.step == 10
    plain.run(params, [random_batch(8), random_batch(0)], key=jax.random.key(8))
    assert plain.step._cache_size() == 1
    plain.run(params, [random_batch(8, shape=(16, 4))])
    assert plain.step._cache_size() == 2


def test_adamw_learns_in_donated_sharded_state(params):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    plain = Trainer(PLAIN, make_optimizer("adamw", 1e-2), mesh)
    old, history = plain.start(params), []
    for _ in range(10):
        new, metrics = plain.step(old, plain.place(BATCH), KEY, None)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.opt_state)))
        history.append(float(metrics["loss"]))
        old = new
    assert history[-1] < history[0] - 0.3
    assert plain.step._cache_size() == 1
    asked = state_shardings(params, plain.optimizer, mesh)
    for leaf, where in zip(jax.tree.leaves(new), jax.tree.leaves(asked), strict=True):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
    moments = optax.tree.get(new.opt_state, "mu")
    assert {shard.data.shape for shard in moments["shared"].addressable_shards} == {(20, 8)}


def test_dropout_follows_its_key_and_the_part_of_the_batch(params):
    dropping = Trainer(PLAIN, descent(), accumulation=2, use_dropout=True)
    pair = jax.tree.map(lambda x: np.repeat(x[:1], 2, axis=0), BATCH)  # a part each

    def loss(batch, seed):
        return float(dropping.run(params, [batch], key=jax.random.key(seed))[1]["loss"])

    assert loss(pair, 1) == loss(pair, 1)
    assert loss(pair, 1) != loss(pair, 2)
    # Were one mask used in both parts, the mean over equal examples would be that of the first.
    first = jax.tree.map(np.copy, pair)
    first.target_mask_BxT[1] = False
    assert abs(loss(first, 1) - loss(pair, 1)) > 1e-3


def test_without_dropout_the_key_is_not_used(trainer, params, reference, whole):
    _, metrics = trainer.run(params, [BATCH], key=jax.random.key(99), reference=reference)
    assert metrics["loss"] == whole[1]["loss"]


def two_steps(trainer, params, reference):
    placed = jax.device_put(reference, sharding.tree_shardings(trainer.mesh, reference))
    return trainer.run(params, [BATCH, random_batch(8)], reference=placed)


@functools.cache
def on_mesh(shape):
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))
    return Trainer(ALL_TERMS, descent(), mesh)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)], ids=str)
def test_every_mesh_trains_as_one_device_does(trainer, params, reference, shape):
    state, metrics = two_steps(on_mesh(shape), params, reference)
    expected, expected_metrics = two_steps(trainer, params, reference)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(close, state.params, expected.params)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), state.params, params)
    assert min(jax.tree.leaves(moved)) > 1e-4  # no weight stood still


def test_devices_exchange_weights_and_gradients_not_activations(params):
    settings = Hir(smoothing=0.2, contrastive_weight=1.0).objective()
    mesh = sharding.make_mesh({"data": 1, "fsdp": 8, "tensor": 1})
    sharded = Trainer(settings, descent(), mesh)
    batch = sharded.place(random_batch(64, 64, (32, 8)))
    text = sharded.step.lower(sharded.start(params), batch, KEY, None).compile().as_text()
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    activation = batch.sources_BxPxS.size * CONFIG.d_model * 4
    assert activation > 4 * weights
    # Weights are gathered, and their gradients summed, twice at most.
    assert sum(each.bytes for each in hlo.parse(text).cost.collectives) < 4 * weights


def test_with_remat_weights_are_gathered_again_for_the_gradient(params):
    mesh = sharding.make_mesh({"data": 1, "fsdp": 8, "tensor": 1})
    gathers = []
    for keeps in ("", remat.INPUTS, remat.PRODUCTS):
        config = dataclasses.replace(CONFIG, remat=keeps)
        made = Trainer(PLAIN, descent(), mesh, config)
        text = made.step.lower(made.start(params), made.place(random_batch(8)), KEY, None).as_text()
        gathers.append(text.count("sdy.sharding_constraint"))
    split = [x for x in jax.tree.leaves(params) if x.ndim > 1]
    assert min(gathers[1:]) - gathers[0] >= len(split)


def test_where_products_are_kept_only_scores_and_their_biases_are_computed_again(params):
    products = []
    for keeps in ("", remat.PRODUCTS, remat.INPUTS):
        made = Trainer(PLAIN, descent(), config=dataclasses.replace(CONFIG, remat=keeps))
        text = made.step.lower(made.start(params), BATCH, KEY, None).as_text()
        products.append(text.count("dot_general"))
    scores = CONFIG.num_layers + 2 * CONFIG.num_decoder_layers
    biases = CONFIG.num_layers + CONFIG.num_decoder_layers
    assert products[1] - products[0] == scores + biases
    assert products[2] - products[1] >= 4 * biases  # kernels


def test_a_part_of_an_accumulated_batch_is_compiled_once(params):
    made = Trainer(PLAIN, descent(), accumulation=4)
    text = made.step.lower(made.start(params), BATCH, KEY, None).as_text()
    whole = Trainer(PLAIN, descent())
    once = whole.step.lower(whole.start(params), BATCH, KEY, None).as_text()
    assert text.count("dot_general") == once.count("dot_general") > 0


@pytest.mark.parametrize(
    "first, then", [((1, 8, 1), None), (None, (2, 2, 2)), ((2, 2, 2), (1, 8, 1))], ids=str
)
def test_training_goes_on_from_a_checkpoint_of_another_mesh(
    trainer, params, reference, first, then, tmp_path
):
    before, after = (on_mesh(shape) if shape else trainer for shape in (first, then))
    placed = [
        jax.device_put(reference, sharding.tree_shardings(t.mesh, reference))
        for t in (before, after)
    ]
    state, _ = before.step(before.start(params), before.place(BATCH), KEY, placed[0])
    checkpoints = checkpoint.Checkpoints(str(tmp_path))
    checkpoints.save(1, state, {})
    checkpoints.wait()
    _, state, _ = checkpoints.restore_latest(sharding.abstract(state, after.mesh))
    checkpoints.close()
    state, metrics = after.step(state, after.place(random_batch(8)), KEY, placed[1])
    expected, expected_metrics = two_steps(trainer, params, reference)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(close, jax.device_get(state.params), expected.params)
