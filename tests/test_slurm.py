"""The workflow on a real SLURM, as docs/cluster.md has it: jobs get what is asked for, and what dies is found out.

Each fault strikes at a state that was seen; afterwards the results are those of a run that nothing disturbed.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from contextlib import suppress
from datetime import datetime

import pandas as pd
import psutil
import pytest
from cluster import Cluster, missing
from conftest import BIN, REPOSITORY, run

from lspipe import open_dataset
from lspipe.verify import verify

# Of the profile, what is no fact of the workflow but of this small machine.
PROFILE = ("--workflow-profile", REPOSITORY / "profiles/slurm", "--slurm-init-seconds-before-status-checks", 1)
WHERE = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", REPOSITORY / "config/test.yaml")
THREADS = ("--set-threads", "train=1")  # as the pipeline fixture has it
FIELDS = "results/test/fields/c10/test"
MODEL = "results/test/models/fln/seed0"
ONE_NETWORK = ("--config", "networks=[{name: fln, architecture: fln, train_on: [c10]}]")
STEPS = 360
LONGER = (f"{MODEL}/model.json", "--config", "training={epochs: 30, batch: 1}")  # to be caught in the middle


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    plugin = "snakemake_executor_plugin_slurm"
    if absent := missing() or [plugin] * (importlib.util.find_spec(plugin) is None):
        give_up = pytest.fail if "CI" in os.environ else pytest.skip
        give_up(f"needs a SLURM of its own; not installed: {', '.join(absent)} (.ci/run does it)")
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


class Login:
    """A folder on the login node."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder, self.path = cluster, folder, os.pathsep.join(map(str, (cluster.bin, BIN)))

    def start(self, *arguments):
        """Snakemake on the cluster, in the background."""
        command = list(map(str, ("snakemake", *arguments, *PROFILE, *WHERE, *THREADS)))
        env = os.environ | {"PATH": f"{self.path}{os.pathsep}{os.environ['PATH']}"}
        with open(self.folder / "snakemake.out", "w") as out:
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=out, stderr=out)
        return self.process

    def until(self, condition):
        """Waits for it while Snakemake works."""

        def holds():
            assert self.process.poll() is None, self.said()
            return condition()

        return self.cluster.until(holds, 300)

    def finish(self, process, code=0):
        assert process.wait(timeout=900) == code, self.said()

    def said(self):
        return (self.folder / "snakemake.out").read_text()

    def run(self, *command, **options):
        return run(*command, cwd=self.folder, PATH=f"{self.path}{os.pathsep}{os.environ['PATH']}", **options)

    def jobs(self, rule):
        """The jobs of a rule that were submitted from here, the first one first."""
        jobs = self.cluster.jobs().values()
        here = [job for job in jobs if job["WorkDir"] == str(self.folder) and rule in job.get("Comment", "")]
        return sorted(here, key=lambda job: int(job["JobId"]))

    def running(self, rule, attempt=1):
        """The job of a rule, once it runs."""
        return self.until(lambda: [j for j in self.jobs(rule)[attempt - 1 :] if j["JobState"] == "RUNNING"])[0]

    def processes(self, command):
        """Those of ``lspipe command`` here, workers aside."""
        called = [f"{BIN}/lspipe", command]
        processes = psutil.process_iter(["cmdline", "cwd"])
        return [p for p in processes if p.info["cwd"] == str(self.folder) and (p.info["cmdline"] or [])[1:3] == called]


@pytest.fixture
def login(cluster, pipeline, tmp_path):
    """With a finished run of config/test.yaml in it."""
    login = Login(cluster, shutil.copytree(pipeline.folder, tmp_path / "run"))
    yield login
    login.process.kill()  # where the test failed; the jobs are the cluster's to end


@pytest.fixture(scope="module")
def whole(cluster, compiled, tmp_path_factory):
    """A whole run with one network, begun. The other tests disturb the cluster meanwhile."""
    login = Login(cluster, tmp_path_factory.mktemp("whole"))
    process = login.start(*ONE_NETWORK, "--cores", 4)  # fewer cores than the group `pages` could use at once
    yield login, process
    process.kill()


@pytest.fixture(scope="module")
def undisturbed(pipeline, tmp_path_factory):
    """The weights of a longer training, by one job on this machine."""
    folder = shutil.copytree(pipeline.folder, tmp_path_factory.mktemp("undisturbed") / "run")
    run("snakemake", *LONGER, *WHERE, *THREADS, "--cores", 1, cwd=folder)
    return (folder / MODEL / "model.safetensors").read_bytes()


def training(login):
    """Waits for the first step."""
    log = login.folder / "results/test/logs/train/fln/seed0.log"
    login.until(lambda: log.exists() and f"0/{STEPS}" in log.read_text())


def assert_continued(login, undisturbed):
    """Not from the beginning, and to the same end."""
    first, *_ = (login.folder / "results/test/logs/train/fln/seed0.log").read_text().splitlines()
    assert 0 < int(re.search(rf"(\d+)/{STEPS}", first)[1]) < STEPS
    assert (login.folder / MODEL / "model.safetensors").read_bytes() == undisturbed


def test_the_controller_dies_and_comes_back(whole):
    """The controller is killed in the middle of the run that the last tests look at. SLURM forgets a start or an end
    that it has not saved, and leaves a job without a step that is only starting."""
    login, process = whole
    cluster, saved = login.cluster, login.cluster.folder / "state/job_state"

    def at_work():
        is_asked = "Finished jobid" in login.said()  # then Snakemake knows how long SLURM remembers jobs
        steps = cluster("squeue", "--noheader", "--steps", "--format=%i %S").splitlines()
        started = dict(line.split() for line in steps)
        jobs = login.jobs("rule_")  # last, because only a moment may pass until the controller is killed
        left = [job for job in jobs if job["JobState"] in ("RUNNING", "PENDING")]
        if not (is_asked and left and all(f"{job['JobId']}.0" in started for job in left)):
            return False
        changes = [started[f"{job['JobId']}.0"] if job in left else job["EndTime"] for job in jobs]
        with suppress(FileNotFoundError):  # while SLURM replaces it
            return saved.stat().st_mtime > max(map(datetime.fromisoformat, changes)).timestamp() + 1

    login.until(at_work)
    controller = cluster.daemons.pop("slurmctld")
    controller.kill()
    controller.wait()
    # It comes back at once: where it does not answer and there is no accounting, Snakemake forgets its jobs. `squeue`
    # would ask it for nine seconds.
    assert "is DOWN" in cluster("scontrol", "ping", check=False)
    cluster.start("slurmctld", "-D")
    cluster.until(lambda: "UP" in cluster("scontrol", "ping", check=False), 60)
    assert process.poll() is None


def test_a_job_that_fails_gets_more_memory_and_one_that_is_cancelled_is_found_out(login, pipeline):
    """A job of the solver is killed, as for want of memory; its second one is cancelled, and no third is allowed."""
    name = f"{FIELDS}.zarr/strain/c/0/0/0/0/0"
    (login.folder / name).unlink()
    target = (name, "--retries", 1)
    process = login.start(*target)
    (command, *_) = login.until(lambda: login.processes("solve"))
    command.kill()
    second = login.running("rule_solve_test_0", attempt=2)
    login.cluster("scancel", second["JobId"])
    login.finish(process, code=1)
    first, second = login.jobs("rule_solve_test_0")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "CANCELLED")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("1104M", "2208M")
    assert f"SLURM-job '{second['JobId']}' failed" in login.said()

    login.finish(login.start(*target))
    assert not verify(login.folder / f"{FIELDS}.zarr").faults
    assert (login.folder / name).read_bytes() == (pipeline.folder / name).read_bytes()


def test_training_goes_on_in_the_next_job(login, undisturbed):
    """SLURM sends SIGTERM to the steps of a job whose time is up, or that it preempts."""
    process = login.start(*LONGER, "--set-resources", "train:runtime=30", "train:gpu=0", "train:gres=gpu:2")
    job = login.running("rule_train")
    training(login)
    (command,) = login.processes("train")
    assert "--minutes 30" in " ".join(command.cmdline())
    login.cluster("scancel", "--signal=TERM", job["JobId"])
    login.finish(process)
    first, second = login.jobs("rule_train")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert (first["TimeLimit"], second["TimeLimit"]) == ("00:30:00",) * 2
    assert first["TresPerNode"] == "gres:gpu:2"
    assert first["MinMemoryNode"] == second["MinMemoryNode"]
    assert_continued(login, undisturbed)


def test_a_killed_snakemake_is_recovered_from(login, undisturbed):
    """Its job goes on without it, and must not when the run is started again."""
    recover = ("bash", REPOSITORY / "workflow/scripts/recover.sh", *WHERE)
    other = login.run("sbatch", "--parsable", "--wrap=sleep 600").stdout.strip()
    process = login.start(*LONGER)
    job = login.running("rule_train")
    training(login)
    (command,) = login.processes("train")
    command.suspend()  # so that it has not finished before the job is cancelled, which wakes it
    refused = login.run(*recover, check=False)
    assert refused.returncode == 1
    assert f"process {process.pid}: end it first" in refused.stderr
    process.kill()
    process.wait()
    assert login.processes("train"), "training ended with Snakemake"
    assert "LockException" in login.run("snakemake", *LONGER, *WHERE, "--cores", 1, check=False).stderr

    login.run(*recover)
    states = {id: login.cluster.jobs()[id]["JobState"] for id in (job["JobId"], other)}
    assert states == {job["JobId"]: "CANCELLED", other: "RUNNING"}
    assert not login.processes("train")
    login.cluster("scancel", other)
    login.finish(login.start(*LONGER))
    assert_continued(login, undisturbed)


def test_jobs_get_what_rules_and_profile_ask_for(whole):
    login, process = whole
    login.finish(process)
    asked = {}
    for job in reversed(login.jobs("rule_")):  # the first attempt is the last to be noted
        name = re.sub("^rule_|_wildcards(_c[15]0|_test)?|_seed0", "", job["Comment"])
        cores, memory = re.search("cpu=(.*?),mem=(.*?)M", job["TRES"]).groups()
        name = re.sub("^(cells|pages)_.*", rf"\1 on {cores}", re.sub("^evaluate_.*", f"evaluate in {memory}", name))
        asked[name] = (job["Partition"], int(cores), int(memory), job["TimeLimit"], job.get("TresPerJob"))
    assert asked == {
        "cells on 1": ("cpu", 1, 1000, "01:00:00", None),  # one case, after the microstructures
        "cells on 2": ("cpu", 2, 2000, "01:00:00", None),  # two cases at a time
        # a core and 300 MB a shard, 500 beside; the samples are tiny
        "solve_train_0": ("cpu", 2, 1104, "00:30:00", None),
        "solve_train_1": ("cpu", 1, 802, "00:30:00", None),
        "solve_valid_0": ("cpu", 1, 802, "00:30:00", None),
        "solve_test_0": ("cpu", 2, 1104, "00:30:00", None),
        "homogenize_c10": ("cpu", 2, 1104, "00:30:00", None),
        "train_fln": ("gpu", 1, 4027, "04:00:00", "gres:gpu:1"),
        "evaluate in 1277": ("cpu", 1, 1277, "04:00:00", None),  # inside the solver: 1.1 kB for a voxel of a batch
        "evaluate in 1959": ("cpu", 1, 1959, "04:00:00", None),  # the networks of the paper: 2.4 kB
        "pages on 4": ("cpu", 4, 4000, "01:30:00", None),  # 6 jobs of figures and tables, at most four at a time
    }


def test_a_run_on_the_cluster_is_a_run_on_this_machine(whole, pipeline):
    login, process = whole
    login.finish(process)
    here, there = pipeline.results, login.folder / "results/test"
    stores = [store.relative_to(there) for store in there.glob("fields/*/*.zarr")]
    assert len(stores) == 4  # Those of c50 that only a network would need are missing.
    for store in stores:
        assert open_dataset(there / store).equals(open_dataset(here / store))
    assert (login.folder / MODEL / "model.safetensors").read_bytes() == (
        pipeline.folder / MODEL / "model.safetensors"
    ).read_bytes()
    times = ["ms", "equal_ms", "training_seconds", "pays_after"]
    tables = [pd.read_csv(results / "tables/mase.csv").drop(columns=times) for results in (here, there)]
    is_shared = tables[0]["predictor"].isin(["cg", "fln"])
    pd.testing.assert_frame_equal(tables[0][is_shared].reset_index(drop=True), tables[1])
    assert (there / "report.html").exists()
