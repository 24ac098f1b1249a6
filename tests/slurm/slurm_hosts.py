"""A real Slurm on hosts out of Linux namespaces: `ops` is the login node and runs slurmctld, h1 and so on slurmd.

Each host runs its own munged. What the daemons keep lies in the /run of their host, so that a killed host loses it,
as a machine loses its memory; slurm.conf is in `/tmp/shared/slurm`. The nodes claim more CPUs than the machine has,
and GPUs that are none: Slurm hands out what is declared.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from namespace_hosts import CHECKOUT, Hosts, wait_until

CONF = "/tmp/shared/slurm/slurm.conf"
HOME = "/tmp/shared/home"  # one of a user's on all hosts, as sites have it
RAYSWEEP = ("env", "-C", "/tmp/shared", "python", "-m", "raysweep")
NEEDED = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
PACKAGES = "slurmctld, slurmd, slurm-client, munge"
SLURM_CONF = """
ClusterName=raysweep
SlurmctldHost=ops
SlurmUser=root
AuthInfo=cred_expire=5
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/spool
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.pid
SlurmctldLogFile=/run/slurm/slurmctld.log
SlurmdLogFile=/run/slurm/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU={memory_per_cpu}
GresTypes=gpu
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=10
ReturnToService=2
NodeName=h[1-{count}] CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
"""
# Slurm holds a requeued job back until the credential of its last go is surely void: 2 minutes, or `cred_expire`.


class SlurmHosts(Hosts):
    """`count` nodes of a Slurm cluster with its login node `ops`; `close` removes all traces.

    Args:
        script: netns_cluster.sh.
        count: of nodes.
        cpus: of each node.
        memory: of each node, in megabytes.
        gpus: of each node; they are only claimed.
    """

    def __init__(self, script: Path, count: int = 3, cpus: int = 4, memory: int = 8000, gpus: int = 2) -> None:
        self.gpus = gpus
        super().__init__(script, count, environment=f"export SLURM_CONF={CONF} HOME={HOME} PYTHONPATH={CHECKOUT}\n")
        try:
            folder = self.shared / "slurm"
            folder.mkdir()
            (self.shared / "home").mkdir()
            conf = SLURM_CONF.format(count=count, cpus=cpus, memory=memory, gpus=gpus, memory_per_cpu=memory // cpus)
            (folder / "slurm.conf").write_text(conf)
            (folder / "gres.conf").write_text("".join(f"Name=gpu File=/run/slurm/gpu{n}\n" for n in range(gpus)))
            subprocess.run(["mungekey", "--create", "--keyfile", folder / "munge.key"], check=True)
            for host in ("ops", *(f"h{n + 1}" for n in range(count))):
                self._start_daemons(host)
            wait_until(lambda: self.nodes() == {"idle": count}, 60, "all nodes are idle")
        except BaseException:
            self.close()
            raise

    def _start_daemons(self, host: str) -> None:
        """Start munged, and what the host is for: slurmctld or slurmd."""
        commands = f"""
        mkdir -p /run/munge /run/slurm/state /run/slurm/spool
        for n in $(seq 0 {self.gpus - 1}); do ln -s /dev/null /run/slurm/gpu$n; done  # Slurm asks for devices
        munged --force --key-file=/tmp/shared/slurm/munge.key --seed-file=/run/munge/seed --log-file=/run/munge/log
        {"slurmctld" if host == "ops" else "slurmd"}
        """
        self.run("bash", "-ec", commands, host=host)

    def nodes(self) -> dict[str, int]:
        """How many nodes are in each state, as `sinfo` says: idle, mixed, allocated, down."""
        states = [line.rstrip("*") for line in self.run("sinfo", "-hNo", "%T").split()]
        return {state: states.count(state) for state in states}

    def kill(self, host: str) -> None:
        """Pull a node's plug."""
        self.control("kill", host)

    def boot(self, host: str) -> None:
        """Boot a killed node again, with its daemons."""
        self.control("start", host)
        self._start_daemons(host)

    def raysweep(self, *words: str, code: int | None = 0, timeout: float = 240) -> str:
        """Run raysweep on the login node, in /tmp/shared; return what it printed."""
        return self.run(*RAYSWEEP, *words, code=code, timeout=timeout)

    def submit(self, *words: str) -> Any:
        """Start `raysweep submit --slurm` on the login node, in /tmp/shared."""
        return self.start(*RAYSWEEP, "submit", "--slurm", *words)

    def time_is_nearly_up(self, job: int) -> None:
        """Send a job what Slurm sends it before its time limit."""
        self.run("scancel", "--batch", "--signal=USR1", str(job))

    def job(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Restarts, BatchHost, NodeList, ExitCode."""
        shown = self.run("scontrol", "--oneliner", "show", "job", str(job))
        return dict(field.split("=", 1) for field in shown.split() if "=" in field)

    def state(self, job: int) -> str:
        return self.job(job)["JobState"]
