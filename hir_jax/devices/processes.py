"""Many processes that run one program, by JAX's own multi-controller runtime.

Every process runs the same code on the same data, in the same order, and holds a share of every
array. Arrays move by collectives, in `replicate`; short records move as JSON through the key-value
store of JAX's coordination service. In one process all of this is free: nothing is sent, nothing
is copied.
"""

import concurrent.futures
import functools
import importlib.metadata
import itertools
import json
import platform
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from jax._src import distributed  # the coordination service's client has no public name
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

import hir_jax
from hir_jax.errors import UserError

T = TypeVar("T")

# Seconds. A process that is silent for so long is taken for dead, and all others end.
HEARTBEAT_SECONDS = 60
# For all processes to be started, by hand or by a scheduler.
START_SECONDS = 600
# Between two lines that say that others are still waited for.
TELL_SECONDS = 30
# A user's verifier may keep a process for hours; a dead one is found by its heartbeat.
PATIENCE_SECONDS = 7 * 24 * 3600

_numbers = itertools.count()


def start(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes; to be called before JAX looks for devices.

    Without arguments JAX finds them by itself on TPU pods, under Slurm and Open MPI, and in
    Kubernetes where the package `kubernetes` is installed.

    Args:
        coordinator: "host:port" of process 0, reachable from all.
        processes: how many there are.
        process_id: this one's number, from 0.

    Raises:
        UserError: they are not found, or do not all come within `START_SECONDS`; or the place or
            the number cannot be one.
    """
    _check_place(coordinator, processes, process_id)
    # Its C++ handler of SIGTERM would only note the signal; `Interrupts` does so where it can be
    # obeyed, and elsewhere SIGTERM must end the process.
    jax.config.update("jax_enable_preemption_service", False)
    found = "by itself" if coordinator is None else f"at {coordinator}"
    joining = apart(
        jax.distributed.initialize,
        coordinator,
        processes,
        process_id,
        initialization_timeout=2 * START_SECONDS,  # at which JAX would abort the process
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
    try:
        _wait_and_tell(joining, f"waiting for the other processes to join {found}")
    except BaseException as e:
        distributed.global_state.num_processes = 1  # there is no one to tell of the end
        if not isinstance(e, ValueError | RuntimeError | TimeoutError):
            raise
        raise UserError(
            f"Expected to join the other processes {found}, found a fault: {e}\nGive --distributed "
            "alone on a TPU pod, under Slurm or Open MPI, or in Kubernetes (with the package "
            "'kubernetes'); elsewhere give --coordinator=HOST:PORT, --processes and --process_id, "
            "the same to all but for the last, which counts from 0."
        ) from e


def _check_place(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    if coordinator is not None and not re.fullmatch(r"\S+:\d{1,5}", coordinator):
        raise UserError(
            f"--coordinator: expected HOST:PORT of process 0, as in localhost:8476; found "
            f"{coordinator!r}. Give a port that is free there."
        )
    if None not in (processes, process_id) and process_id >= processes:
        raise UserError(
            f"--process_id: expected 0 to {processes - 1}, since --processes={processes}; found "
            f"{process_id}."
        )


def _wait_and_tell(joining: concurrent.futures.Future, what: str) -> None:
    for waited in range(TELL_SECONDS, START_SECONDS + 1, TELL_SECONDS):
        if concurrent.futures.wait([joining], TELL_SECONDS).done:
            return joining.result()
        logging.warning("%s, for %d s of %d", what, waited, START_SECONDS)
    raise TimeoutError(
        f"not all have come within {START_SECONDS} s. Does process 0 run there, is its port open, "
        "do as many run as --processes says?"
    )


def versions() -> dict[str, str]:
    """What must be the same on all processes for them to compile the same programs."""
    packages = ("jax", "jaxlib", "numpy", "flax", "optax", "orbax-checkpoint", "transformers")
    found = {f"the version of {name}": importlib.metadata.version(name) for name in packages}
    return found | {
        "the version of hir_jax": hir_jax.__version__,
        "the version of Python": platform.python_version(),
    }


def many() -> bool:
    """Whether there are others; asks no backend for its devices."""
    return distributed.global_state.num_processes > 1


def count() -> int:
    """How many processes there are."""
    return distributed.global_state.num_processes if many() else 1


def index() -> int:
    """This one's number, from 0."""
    return distributed.global_state.process_id if many() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return index() == 0


def client() -> Any:
    """The coordination service's client: keys, values and barriers. Only with `many()`."""
    return distributed.global_state.client


# Arrays -------------------------------------------------------------------------------------------


def place(tree: Any, sharding: Sharding) -> Any:
    """Host arrays, the same on every process, as global arrays that are split by `sharding`.

    Each process copies its own shards; nothing is compared between processes.
    """
    if not many():
        return jax.device_put(tree, sharding)

    def split(array: Any) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return jax.tree.map(split, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays, whole on every device, so that each process can read them by `device_get`.

    It is a program of its own, enqueued without waiting. In one process the arrays stay as they
    are, since all of their shards are at hand.
    """
    return _replicate(mesh)(tree) if many() else tree


def fetch(tree: Any, mesh: Mesh) -> Any:
    """The values of global arrays, as NumPy arrays on every process."""
    return jax.device_get(replicate(tree, mesh))


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


# Records ------------------------------------------------------------------------------------------


def gather(record: Any, seconds: float = PATIENCE_SECONDS) -> list[Any]:
    """The records of all processes, in their order, on every process; JSON, so tuples are lists.

    All must call it, as often and in the same order. It waits for the slowest, not for devices.

    Raises:
        UserError: not all came within `seconds`.
    """
    if not many():
        return [record]
    service, number = client(), next(_numbers)
    folder = "hir_jax/records"
    service.key_value_set(f"{folder}/{number}/{index()}", json.dumps(record))
    try:
        apart(service.wait_at_barrier, folder, int(1000 * seconds)).result()
    except jax.errors.JaxRuntimeError as e:
        if "DEADLINE_EXCEEDED" not in str(e):
            raise
        raise UserError(
            f"Expected all {count()} processes to come to the same point within {seconds:.0f} s, "
            f"found that some did not. Look at what the others say; give the same command to go on."
        ) from e
    found = service.key_value_dir_get(f"{folder}/{number}/")
    # Whoever came to this barrier has read all records of the one before.
    service.key_value_delete(f"{folder}/{number - 1}/{index()}")
    records = {int(key.rpartition("/")[2]): json.loads(value) for key, value in found}
    if len(records) != count():
        raise UserError(
            f"--processes: expected {len(records)}, as process 0 says and there are; found "
            f"{count()}. Give every process the same."
        )
    return [records[i] for i in range(count())]


def apart(call: Callable[..., T], *args: Any, **kwargs: Any) -> "concurrent.futures.Future[T]":
    """A call on another thread: no signal's handler runs while the main one is in C++."""
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(call(*args, **kwargs))
        except Exception as e:
            outcome.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    return outcome


def on_first(work: Callable[[], T]) -> T:
    """What `work` gives on process 0, as JSON, on every process; the others do not call it.

    An exception that it raises there is raised on all: a UserError as it is, others on the other
    processes as RuntimeError.
    """
    if not many():
        return work()
    error: Exception | None = None
    outcome: dict[str, Any] = {}
    if is_first():
        try:
            outcome = {"value": work()}
        except Exception as e:  # whatever it is, the others must not wait for ever
            error = e
            outcome = {"error": str(e), "mendable": isinstance(e, UserError)}
    outcome = gather(outcome)[0]
    if error is not None:
        raise error
    if "error" in outcome:
        raise (UserError if outcome["mendable"] else RuntimeError)(outcome["error"])
    return outcome["value"]


def shared_out(items: list[Any], work: Callable[[Any], Any]) -> list[Any]:
    """`work` of each item, in order, on every process, each of which does a share.

    What `work` gives must be JSON. A UserError that it raises is raised on all processes.
    """
    if not many():
        return [work(item) for item in items]
    fault, done = None, []
    try:
        done = [work(item) for item in items[index() :: count()]]
    except UserError as e:
        fault = str(e)
    shares = gather({"done": done, "fault": fault})
    for share in shares:
        if share["fault"] is not None:
            raise UserError(share["fault"])
    return [shares[i % count()]["done"][i // count()] for i in range(len(items))]


def check_same(digests: Mapping[str, Any]) -> None:
    """Raises UserError on all processes where they differ in something that must be the same.

    Args:
        digests: of each thing, by its name for the message; JSON.
    """
    found = gather(dict(digests))
    first = found[0]
    differing = [
        f"{name}: on {numbers}"
        for name in dict.fromkeys(itertools.chain(*found))
        if (numbers := [i for i, other in enumerate(found) if other.get(name) != first.get(name)])
    ]
    if differing:
        raise UserError(
            "Expected the same on every process, found other things than process 0's:\n  "
            + "\n  ".join(differing)
            + "\nGive every process the same command, the same files and the same versions of the "
            "program and its packages."
        )
