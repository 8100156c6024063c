"""A real SLURM of one's own: two nodes on this machine, partitions cpu and gpu, two fake GPUs a node.

For the tests; `python tests/cluster.py` opens a shell on it, as on a login node, and stops it when the shell ends.
"""

import getpass
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun", "sshare")
PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"

# No cgroups, accounting or systemd. Cores and memory are made up; jobs over their memory are ended.
CONFIGURATION = """
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=10
MinJobAge=3600
PropagateResourceLimits=NONE
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=DEFAULT CPUs=8 CoresPerSocket=8 RealMemory=64000 Gres=gpu:2
NodeName=box1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=box2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=cpu Nodes=box1,box2 Default=YES MaxTime=INFINITE DefMemPerCPU=500
PartitionName=gpu Nodes=box1 MaxTime=INFINITE DefMemPerCPU=500
"""


def missing():
    """The programs of SLURM that are not installed."""
    return [name for name in (*DAEMONS, *CLIENTS) if not shutil.which(name, path=PATH)]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """``with Cluster(folder) as cluster``: it runs within."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.daemons = folder, folder / "bin", {}

    def __enter__(self):
        self.folder.chmod(0o755)
        for name in ("bin", "state", "spool.box1", "spool.box2"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o400)
        values = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": self.folder}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values, ports=free_ports(3)))
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null,/dev/zero\n")
        # Not a variable, for Snakemake takes all that begin with SLURM_ from its jobs.
        for name in CLIENTS:
            shim = self.bin / name
            program = shutil.which(name, path=PATH)
            shim.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {program} "$@"\n')
            shim.chmod(0o755)
        try:
            names = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
            files = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
            self.start("munged", "--foreground", "--force", *files)
            self.start("slurmctld", "-D")
            self.start("slurmd", "-D", "-N", "box1")
            self.start("slurmd", "-D", "-N", "box2")
            self.until(lambda: self("sinfo", "--noheader", "--format=%T %D", check=False).startswith("idle 2"), 30)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        try:
            self("scancel", "--user", getpass.getuser())
            self.until(lambda: not self("squeue", "--noheader"), 60)
        finally:
            self.stop()

    def start(self, name, *arguments):
        environment = os.environ | {"SLURM_CONF": f"{self.folder}/slurm.conf"}
        with open(self.folder / f"{name}.out", "a") as log:
            command = [shutil.which(name, path=PATH), *arguments]
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.daemons[" ".join((name, *arguments[1:]))] = process
        return process

    def stop(self):
        for process in reversed(self.daemons.values()):
            process.terminate()
            process.wait(30)

    def __call__(self, *command, check=True):
        """What a command of SLURM prints."""
        command = [self.bin / command[0], *command[1:]]
        done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self):
        """{id: its properties} of all jobs that there were."""
        lines = self("scontrol", "--oneliner", "show", "job").splitlines()
        found = (dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if "JobId=" in line)
        return {job["JobId"]: job for job in found}

    def until(self, condition, seconds):
        """What ``condition`` returns, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"not within {seconds} s: {self.log()}"
            time.sleep(0.1)
        return found

    def log(self):
        return "".join(file.read_text()[-2000:] for file in self.folder.glob("*.out"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        shell = sys.argv[1:] or [os.environ.get("SHELL", "bash")]
        sys.exit(subprocess.run(shell, env=os.environ | {"PATH": f"{cluster.bin}:{os.environ['PATH']}"}).returncode)
