"""Several machines, simulated by local processes: the same weights as on one, and no loss of work with a machine."""

import json
import os
import re
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny_net
from telling import at_step, lines_to

from ckpt_tools import from_arrays, open_checkpoint
from ckpt_tools.errors import RecipeError, TrainingError
from ckpt_tools.train.graph import cluster as cluster_module
from ckpt_tools.train.graph.cluster import Cluster, after_all, own_shard, reachable, read_cluster, serve, wait_for
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.lead import finetune_as_task
from ckpt_tools.train.run.run_directory import RunDirectory

TOLERANCE = 2e-5  # of the largest value of each tensor: float32 gradients added in another order
STEPS = 10


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Options of a run in which everything moves; the batch norms are frozen, since they see parts of a batch."""
    return tiny_net.write_job(
        tmp_path_factory.mktemp("cluster"),
        bn=("*=frozen",),
        batch_size=9,
        optimizer="momentum",
        learning_rate=0.05,
        steps=STEPS,
        start_timeout=120.0,
    )


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cluster_of(*jobs):
    """The cluster of so many tasks on free ports, as its first one sees it: cluster_of("worker", "worker")."""
    tasks = {}
    for name, port in zip(jobs, free_ports(len(jobs)), strict=True):
        tasks.setdefault(name, []).append(f"127.0.0.1:{port}")
    return Cluster({name: tuple(addresses) for name, addresses in tasks.items()}, jobs[0], 0)


def start(cluster, name, job, folder, **environment):
    """`ckpt-finetune` as that task, in a process of its own."""
    argv = [sys.executable, tiny_net.__file__, "--train-dir", str(folder)]
    for option, value in job.items():
        argv += ["--" + option.replace("_", "-"), *(value if isinstance(value, tuple) else [str(value)])]
    config = {"cluster": cluster.tasks, "task": {"type": name[0], "index": name[1]}}
    variables = {**os.environ, "TF_CONFIG": json.dumps(config), **environment}
    return subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tensors(folder, step=STEPS):
    return open_checkpoint(folder / f"model.ckpt-{step}").tensors


def difference(a, b):
    """The largest difference of two checkpoints, each tensor measured by its own largest value."""
    assert set(a) == set(b)
    pairs = [(a[name].load(), b[name].load()) for name in a]
    return max(np.abs(x - y).max() / max(np.abs(x).max(), 1e-3) for x, y in pairs)


@pytest.fixture(scope="module")
def two_workers(job, tmp_path_factory):
    """The folder of a run on two machines, what its leader said, and what the other one wrote and returned."""
    folder = tmp_path_factory.mktemp("two_workers")
    cluster, said = cluster_of("worker", "worker"), []
    with start(cluster, ("worker", 1), job, folder) as other:
        finetune_as_task(cluster, Options(**job, train_dir=str(folder)), lines_to(said))
        written, _ = other.communicate(timeout=60)
    return folder, said, written.splitlines(), other.returncode


@pytest.fixture(scope="module")
def one(job, tmp_path_factory):
    """The folder of a run on this machine alone."""
    folder = tmp_path_factory.mktemp("one")
    finetune(Options(**job, train_dir=str(folder)))
    return folder


def test_two_workers_train_to_the_weights_of_one(one, two_workers):
    folder, said, written, code = two_workers
    assert difference(tensors(folder), tensors(one)) < TOLERANCE
    assert "parts          2 of each batch of 9 images: worker:0 5, worker:1 4" in said
    assert any(re.fullmatch(r"worker 1 serves worker 0 at 127\.0\.0\.1:\d+", line) for line in written)
    assert (written[-1], code) == ("worker 1 ends: the run is done", 0)


def test_the_comparison_can_fail():
    ones = np.ones(3, np.float32)
    assert difference(from_arrays({"a": ones}), from_arrays({"a": ones * np.float32(1.0001)})) > TOLERANCE


def test_a_worker_is_lost_and_nothing_with_it(job, two_workers, tmp_path):
    # The command: one sentence, an exit code, and a checkpoint of the last whole step.
    cluster = cluster_of("chief", "worker")
    with start(cluster, ("worker", 0), job, tmp_path) as victim:
        killing = {"KILL_AT": "3", "KILL_PID": str(victim.pid)}
        with start(cluster, ("chief", 0), job, tmp_path, **killing) as leader:
            written, _ = leader.communicate(timeout=180)
    assert leader.returncode == 2, written
    # TensorFlow's threads may still complain behind it.
    last = [line for line in written.splitlines() if line.startswith("ckpt-finetune: ")][-1]
    found = re.fullmatch(
        r"ckpt-finetune: lost worker 0 at 127\.0\.0\.1:\d+; everything up to step (\d) is saved\. "
        r"Run the same command again to resume\.",
        last,
    )
    assert found, written
    assert RunDirectory(tmp_path).steps()[-1] == int(found[1])

    # Continued, with a worker that is lost as well, and comes back in time.
    cluster, said = cluster_of("worker", "worker"), []
    processes = [start(cluster, ("worker", 1), job, tmp_path)]

    def replace():
        if len(processes) == 1:
            processes[0].kill()
            processes[0].communicate()
            processes.append(start(cluster, ("worker", 1), job, tmp_path))

    on_event = at_step(7, replace, lines_to(said))
    result = finetune_as_task(cluster, Options(**job, train_dir=str(tmp_path), worker_timeout=120.0), on_event)
    written, _ = processes[1].communicate(timeout=60)
    assert result.step == STEPS
    assert [line for line in said if line.startswith("continuing")] == [
        f"continuing     after step {found[1]} of {STEPS}",
        f"continuing     after step 7 of {STEPS}",
    ]
    assert any(line.endswith("everything up to step 7 is saved; waiting 120 s for it to come back") for line in said)
    assert written.splitlines()[-1] == "worker 1 ends: the run is done"
    assert changed_tensors(tensors(tmp_path), tensors(two_workers[0])) == []


def test_a_parameter_server_holds_the_variables(job, one, tmp_path):
    cluster, said = cluster_of("worker", "ps"), []
    with start(cluster, ("ps", 0), job, tmp_path) as server:
        finetune_as_task(cluster, Options(**job, train_dir=str(tmp_path / "run")), lines_to(said))
        written, _ = server.communicate(timeout=60)
    assert difference(tensors(tmp_path / "run"), tensors(one)) < TOLERANCE
    assert written.splitlines()[-1] == "ps 0 ends: the run is done"


# --- who cannot be reached ---


def test_a_machine_that_was_not_started_is_named(job, tmp_path):
    cluster = cluster_of("chief", "worker", "worker")
    options = Options(**{**job, "start_timeout": 0.0}, train_dir=str(tmp_path))
    with pytest.raises(TrainingError) as caught:
        finetune_as_task(cluster, options, lambda line: None)
    addresses = cluster.tasks["worker"]
    expected = f"cannot be reached after 0 s: worker 0 at {addresses[0]}, worker 1 at {addresses[1]}. Start the same"
    assert str(caught.value).startswith(expected)
    assert list(tmp_path.iterdir()) == []


def test_who_serves_does_not_wait_for_a_leader_that_is_gone(monkeypatch):
    import tensorflow.compat.v1 as tf

    monkeypatch.setattr(cluster_module, "LOOK", 0.05)
    monkeypatch.setattr(cluster_module, "GONE", 0.1)
    leader = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{leader.getsockname()[1]}"
    cluster = Cluster({"chief": (address,), "worker": (f"127.0.0.1:{free_ports(1)[0]}",)}, "worker", 0)

    def once():
        leader.accept()
        leader.close()

    thread = threading.Thread(target=once)
    thread.start()
    said = []
    with pytest.raises(TrainingError, match=f"worker 0 ends: chief 0 at {address} cannot be reached"):
        serve(cluster, tf.ConfigProto(), 60.0, lines_to(said))
    thread.join()
    assert said == [f"worker 0 serves chief 0 at {address}"]


def test_reachable_and_not():
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        cluster = Cluster({"worker": (address, f"127.0.0.1:{free_ports(1)[0]}")}, "worker", 0)
        assert reachable(address)
        assert wait_for(cluster, cluster.names, 0.0) == [("worker", 1)]


# --- a step is whole or not at all ---


@pytest.mark.parametrize("fails", [True, False])
def test_a_step_whose_gradients_do_not_all_come_changes_nothing(fails):
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.get_or_create_global_step()
        early, late, moving = (tf.get_variable(name, initializer=1.0) for name in ("early", "late", "moving"))
        with tf.control_dependencies([tf.Assert(tf.constant(not fails), ["the machine is gone"])]):
            gradient = tf.constant(0.5)
        update = tf.assign_sub(moving, 0.25)
        pairs, updates, begun = after_all([(tf.constant(0.5), early), (gradient, late)], [update], step)
        changed = [tf.assign_sub(variable, value) for value, variable in pairs]
        with tf.control_dependencies([*updates, *changed]):
            train = tf.assign_add(step, 1)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        if fails:
            with pytest.raises(tf.errors.InvalidArgumentError):
                session.run(train)
        else:
            session.run(train)
        found = session.run([early, late, moving, begun, step])
        assert found == ([1, 1, 1, 0, 0] if fails else [0.5, 0.5, 0.75, 1, 1])


# --- TF_CONFIG ---


def config(cluster, job="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


def test_what_tf_config_says():
    everything = {"worker": ["b:1", "c:1"], "ps": ["d:1"], "chief": ["a:1"]}
    found = read_cluster(config(everything, "worker", 1))
    assert (found.own, found.leads, own_shard(found)) == (("worker", 1), False, (2, 3))
    assert found.machines == ("/job:chief/task:0", "/job:worker/task:0", "/job:worker/task:1")
    assert (found.parameter_servers, own_shard(read_cluster(config(everything, "ps")))) == (1, None)
    assert read_cluster(config({"worker": ["a:1", "b:1"]})).leads
    assert read_cluster(None) is None
    assert read_cluster(config({"worker": ["a:1"]})) is None
    assert read_cluster(json.dumps({"cluster": {}, "task": {"type": "worker", "index": 0}})) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON with a cluster and a task"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "not JSON with a cluster and a task"),
        (config({"worker": ["a:1", "b:1"]}, index=2), "task 2 of job 'worker' is not in the cluster"),
        (config({"worker": ["a:1"], "evaluator": ["b:1"]}), "the job evaluator is not used here"),
        (config({"worker": ["a:1", "b"]}), "b: write HOST:PORT"),
        (config({"ps": ["a:1", "b:1"]}, "ps"), "a cluster of parameter servers alone"),
    ],
)
def test_tf_config_that_cannot_be(text, message):
    with pytest.raises(RecipeError, match=message):
        read_cluster(text)
