"""`ckpt-finetune` as a task of a cluster: the leader trains, the others serve it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...errors import TrainingError
from ...events import ClusterReady, MachineLost, OnEvent
from ..graph.cluster import Cluster, MachineLostError, machine_lost, serve, start_server, tell, wait_for
from ..graph.devices import placement_of
from ..graph.towers import session_config
from ..options.training import Options
from .finetune import Result, finetune
from .written import read_list


def finetune_as_task(cluster: Cluster, options: Options, on_event: OnEvent) -> Result | str:
    """What the task of this process has to do. The leader's result; what the leader said last to the others.

    Raises TrainingError naming the machines that cannot be reached, MachineLostError for one that went away and did
    not come back within --worker-timeout: everything is saved then.
    """
    config, _ = session_config(options.device, placement_of(options, cluster).cpus)
    if not cluster.leads:
        return serve(cluster, config, options.start_timeout, on_event)
    server = start_server(cluster, config)
    said = "it failed"
    try:
        missing = wait_for(cluster, cluster.others, options.start_timeout)
        if missing:
            fact = f"cannot be reached after {options.start_timeout:g} s: {cluster.shown(missing)}"
            raise TrainingError(fact, advice="Start the same command there, with its own TF_CONFIG.")
        on_event(ClusterReady(len(cluster.names), cluster.shown(cluster.names)))
        result = _lead(cluster, options, on_event, server.target)
        said = "the run was stopped" if result.stopped else "the run is done"
    except MachineLostError as error:
        said = f"the run stopped: {error.fact}"
        raise
    finally:
        tell(cluster, server, said)
    return result


def _lead(cluster: Cluster, options: Options, on_event: OnEvent, target: str) -> Result:
    """Trains; after the loss of a machine that comes back in time, goes on from what was saved."""
    folder = Path(options.train_dir)
    before = read_list(folder).run
    while True:
        try:
            # Lost before the first step or after the last one:
            with machine_lost(cluster, lambda: "nothing was trained since the last checkpoint"):
                return finetune(options, on_event, cluster=cluster, target=target)
        except MachineLostError as error:
            if not options.worker_timeout:
                raise
            on_event(MachineLost(error.fact, options.worker_timeout))
            if wait_for(cluster, cluster.others, options.worker_timeout):
                raise
            if read_list(folder).run != before:  # --fresh has begun: what is there now is this run
                options = replace(options, fresh=False)
