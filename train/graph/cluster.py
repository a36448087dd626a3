"""Several machines, on TensorFlow's own runtime: one process leads, the others serve it.

    TF_CONFIG='{"cluster": {"chief": ["a:2222"], "worker": ["b:2222"]}, "task": {"type": "worker", "index": 0}}'

The chief (or worker 0 if there is none) builds one graph, with a tower for a part of each batch on every machine:
in-graph replication. The others only run a `tf.distribute.Server` until the chief tells them that the run is over. The
variables are on the chief, or on parameter servers if there are any, so that losing a worker loses no state.

Between-graph replication (`SyncReplicasOptimizer`) would work, too, but is deprecated and needs queue runners;
`MultiWorkerMirroredStrategy` does not run `tf.compat.v1` graphs with a server of their own. Towers need neither.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RecipeError, TrainingError
from ...events import OnEvent, Serving

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

JOBS = ("chief", "worker", "ps")
LOOK = 2.0  # seconds between checks whether the others are reachable
PATIENCE = 5.0  # seconds until a lost machine is found to be unreachable
GONE = 15.0  # seconds without the leader after which serving tasks give up
_MESSAGES = "ckpt_tools_messages"


class MachineLostError(TrainingError):
    """A machine of the cluster was lost during a run."""


@dataclass(frozen=True)
class Cluster:
    """The addresses of all tasks by job, such as "worker", and which task this process is."""

    tasks: Mapping[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def names(self) -> list[tuple[str, int]]:
        """Every task as (job, index): the chief first, then workers, then parameter servers."""
        return [(job, index) for job in JOBS for index in range(len(self.tasks.get(job, ())))]

    @property
    def computing(self) -> list[tuple[str, int]]:
        """The tasks that process images; the first of them leads."""
        return [name for name in self.names if name[0] != "ps"]

    @property
    def own(self) -> tuple[str, int]:
        return self.job, self.index

    @property
    def leads(self) -> bool:
        """Whether this task leads the training; the others serve it."""
        return self.own == self.computing[0]

    @property
    def others(self) -> list[tuple[str, int]]:
        return [name for name in self.names if name != self.own]

    @property
    def machines(self) -> tuple[str, ...]:
        """Devices of the tasks that compute, the leader's first: "/job:worker/task:0"."""
        return tuple(map(device_of, self.computing))

    @property
    def parameter_servers(self) -> int:
        return len(self.tasks.get("ps", ()))

    def address(self, name: tuple[str, int]) -> str:
        job, index = name
        return self.tasks[job][index]

    def shown(self, names: Collection[tuple[str, int]]) -> str:
        """ "worker 1 at b:2222, ..." """
        return ", ".join(f"{job} {index} at {self.address((job, index))}" for job, index in names)


def device_of(name: tuple[str, int]) -> str:
    """The device name of a task."""
    return f"/job:{name[0]}/task:{name[1]}"


def read_cluster(text: str | None) -> Cluster | None:
    """The cluster described by TF_CONFIG; None if it is empty or describes a single task.

    >>> read_cluster('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}').leads
    False

    Raises RecipeError for an invalid TF_CONFIG, and for a task that its cluster does not have.
    """
    if not text:
        return None
    try:
        read = json.loads(text)
        tasks = {str(job): tuple(map(str, addresses)) for job, addresses in read.get("cluster", {}).items()}
        job, index = str(read["task"]["type"]), int(read["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError):
        advice = 'As in {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}.'
        raise RecipeError("TF_CONFIG: not JSON with a cluster and a task", advice=advice) from None
    unknown = sorted(set(tasks) - set(JOBS))
    if unknown:
        raise RecipeError(f"TF_CONFIG: the job {', '.join(unknown)} is not used here: write chief, worker and ps only")
    if sum(map(len, tasks.values())) <= 1:
        return None
    if not 0 <= index < len(tasks.get(job, ())):
        raise RecipeError(f"TF_CONFIG: task {index} of job {job!r} is not in the cluster")
    if not tasks.get("chief") and not tasks.get("worker"):
        raise RecipeError("TF_CONFIG: a cluster of parameter servers alone")
    bad = [address for addresses in tasks.values() for address in addresses if not _host_and_port(address)]
    if bad:
        raise RecipeError(f"TF_CONFIG: {', '.join(bad)}: write HOST:PORT")
    return Cluster(tasks, job, index)


def own_shard(cluster: Cluster) -> tuple[int, int] | None:
    """The number of this task's share of independent work, and the number of shares; None for a parameter server."""
    computing = cluster.computing
    return (computing.index(cluster.own), len(computing)) if cluster.own in computing else None


# --- starting and ending -------------------------------------------------------------------------------------------


def start_server(cluster: Cluster, config: tf.ConfigProto) -> tf.distribute.Server:
    """Starts this task's server. Raises TrainingError if its port is taken."""
    import tensorflow.compat.v1 as tf

    # Calls to a lost machine then fail at once. Otherwise closing a session that lost one takes half a minute.
    os.environ.setdefault("GRPC_FAIL_FAST", "true")
    spec = tf.train.ClusterSpec({job: list(addresses) for job, addresses in cluster.tasks.items()})
    try:
        return tf.distribute.Server(spec, job_name=cluster.job, task_index=cluster.index, config=config)
    except tf.errors.OpError as error:
        fact = f"{cluster.job} {cluster.index} cannot serve at {cluster.address(cluster.own)}"
        raise TrainingError(f"{fact}: {error.message}", advice="Is the port in use?") from None


def wait_for(cluster: Cluster, names: Collection[tuple[str, int]], seconds: float) -> list[tuple[str, int]]:
    """Waits up to `seconds` until all of the tasks can be reached; returns those that could not."""
    until, waited = time.monotonic() + seconds, False
    while True:
        missing = [name for name in names if not reachable(cluster.address(name))]
        if missing and time.monotonic() >= until:
            return missing
        if not missing and not waited:
            return []
        waited = bool(missing)  # pause once more after they appear: gRPC looks for lost machines once a second
        time.sleep(min(LOOK, max(0.0, until - time.monotonic())) if waited else LOOK)


def reachable(address: str) -> bool:
    """Whether something listens at the address."""
    place = _host_and_port(address)
    if place is None:
        return False
    try:
        with socket.create_connection(place, timeout=2.0):
            return True
    except OSError:
        return False


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() else None


def serve(cluster: Cluster, config: tf.ConfigProto, seconds: float, on_event: OnEvent) -> str:
    """Serves the leader until it reports the end of the run; returns the leader's message.

    Raises TrainingError if the leader does not appear within `seconds`, or disappears without a message.
    """
    import tensorflow.compat.v1 as tf

    leader, name = cluster.computing[0], f"{cluster.job} {cluster.index}"
    server = start_server(cluster, config)
    on_event(Serving(name, cluster.shown([leader])))
    with tf.Graph().as_default():
        messages = _messages(cluster.own)
        waiting, message = messages.size(), messages.dequeue()
        with tf.Session(server.target, config=_alone(cluster.own)) as session:
            missing = wait_for(cluster, [leader], seconds)
            seen = time.monotonic()
            while not missing and not session.run(waiting):
                time.sleep(LOOK)
                if reachable(cluster.address(leader)):
                    seen = time.monotonic()
                elif time.monotonic() - seen > GONE:
                    missing = [leader]
            if missing:
                raise TrainingError(f"{name} ends: {cluster.shown(missing)} cannot be reached")
            return session.run(message).decode()


def tell(cluster: Cluster, server: tf.distribute.Server, text: str) -> None:
    """Tells the serving tasks, as far as they can be reached, that the run is over."""
    import tensorflow.compat.v1 as tf

    for name in cluster.others:
        if not reachable(cluster.address(name)):
            continue
        with tf.Graph().as_default():
            put = _messages(name).enqueue([text])
            try:
                with tf.Session(server.target, config=_alone(cluster.own, name)) as session:
                    session.run(put, options=tf.RunOptions(timeout_in_ms=5000))
            except tf.errors.OpError:  # the task ends while it is being told
                continue


def _messages(name: tuple[str, int]) -> tf.FIFOQueue:
    """The queue on a task that receives the leader's message at the end of the run."""
    import tensorflow.compat.v1 as tf

    with tf.device(device_of(name) + "/device:CPU:0"):
        return tf.FIFOQueue(1, tf.string, shapes=[()], shared_name=_MESSAGES)


def _alone(*names: tuple[str, int]) -> tf.ConfigProto:
    """The configuration of a session that needs only these tasks and must not wait for others."""
    import tensorflow.compat.v1 as tf

    return tf.ConfigProto(device_filters=[device_of(name) for name in names])


@contextmanager
def machine_lost(cluster: Cluster | None, save: Callable[[], str]) -> Iterator[None]:
    """Turns TensorFlow's errors for a lost machine into a MachineLostError. `save` saves the state, and returns a
    description of where the run can be continued."""
    import tensorflow.compat.v1 as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if cluster is None:
            raise
        lost = cluster.shown(_gone(cluster)) or error.message.splitlines()[0]
        try:
            kept = save()
        except tf.errors.OpError:  # the variables were on the lost machine
            kept = "only the last checkpoint is left"
        raise MachineLostError(f"lost {lost}; {kept}", advice="Run the same command again to resume.") from error


def _gone(cluster: Cluster) -> list[tuple[str, int]]:
    """The machines that cannot be reached. A machine that was just killed may still accept connections for a moment, so
    this retries for PATIENCE seconds until there is one."""
    until = time.monotonic() + PATIENCE
    while True:
        missing = [name for name in cluster.others if not reachable(cluster.address(name))]
        if missing or time.monotonic() > until:
            return missing
        time.sleep(0.1)


# --- atomic steps --------------------------------------------------------------------------------------------------


def after_all(
    gradients: Sequence[tuple[tf.Tensor | None, tf.Variable]], updates: Sequence[tf.Variable], step: tf.Variable
) -> tuple[list[tuple[tf.Tensor | None, tf.Variable]], list[tf.Operation], tf.Variable]:
    """Makes a step wait with all changes until all machines have done their share.

    Returns the gradients and the updates of moving statistics, which now wait for each other, and `begun`, the number
    of the last step that began to change variables. If `begun` exceeds `step`, a machine was lost during the changes.
    """
    import tensorflow.compat.v1 as tf

    begun = tf.get_variable(
        "begun", [], tf.int64, tf.zeros_initializer(), trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES]
    )
    # An update subtracts its second input. That is computed at any time, but subtracted by an operation made here.
    moves = [(update.op.inputs[0], update.op.inputs[1]) for update in updates]
    there = [gradient for gradient, _ in gradients if gradient is not None]
    with tf.control_dependencies([*there, *(amount for _, amount in moves)]):
        marked = begun.assign(step + 1, read_value=False)
    with tf.control_dependencies([marked]):
        waited = [(g if g is None else tf.identity(g), variable) for g, variable in gradients]
        moved = [tf.raw_ops.AssignSubVariableOp(resource=variable, value=amount) for variable, amount in moves]
    return waited, moved, begun
