"""Which job of which scheduler a process belongs to, and by which commands people ask after a job and end it.

Schedulers say it by variables: sbatch(1), qsub(1) of PBS and of Grid Engine, bsub(1) of LSF, flux-environment(7). An
array of jobs counts as one job, for its jobs come and go by the thousand: `squeue -j` and `scancel` take its id, too.

A pod of Kubernetes has no variable with its name for certain, but its host has that name ("The hostname of a Container
is the name of the Pod", kubernetes.io), unless it uses the network of its node. `POD_NAME` and `POD_NAMESPACE`, which
many set by the downward API, count before it.

Variables can be set to anything by anybody. What does not look like a job's id is shown without what a terminal would
obey, and gets no command.
"""

from __future__ import annotations

from envsync.launch import command
from envsync.launch.reading import content
from envsync.system import core, processes, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SLURM, PBS, LSF, FLUX, GRID_ENGINE, KUBERNETES = "slurm", "pbs", "lsf", "flux", "grid-engine", "kubernetes"
OTHER = "job"
"""A variable says that there is a job, and nothing says of which scheduler."""
NONE = "host"
"""No scheduler: all that runs on one host stands for one job."""
VARIABLES = dict(zip(command.JOBS, (SLURM, PBS, LSF, FLUX, GRID_ENGINE), strict=True))
"""Variable → whose it is."""
GRID_ENGINES = ("SGE_ROOT", "SGE_TASK_ID", "SGE_CELL")
"""Variables that Grid Engine sets besides, for `JOB_ID` is set by others, too."""
NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
COMMANDS = {
    SLURM: ("Slurm job", "squeue -j {}", ",", "scancel {}"),
    PBS: ("PBS job", "qstat {}", " ", "qdel {}"),
    LSF: ("LSF job", "bjobs {}", " ", "bkill {}"),
    FLUX: ("Flux job", "flux jobs {}", " ", "flux cancel {}"),
    GRID_ENGINE: ("Grid Engine job", "qstat -j {}", ",", "qdel {}"),
    KUBERNETES: ("Kubernetes pod", "kubectl get pod {}", " ", "kubectl delete pod {}"),
    OTHER: ("job", "", "", ""),
}
"""Scheduler → what a job of it is called, how to ask after jobs, what is between their ids, and how to end them."""
LONGEST = 128
"""Characters of an id."""
CHARACTERS = frozenset("._-[]@:/ƒ")
"""What an id has besides letters and digits of ASCII; the last is how those of Flux begin."""


def job_of(variables: Mapping[str, str], host: str = "") -> tuple[str, str]:
    """Return the scheduler and the job that somebody with these variables belongs to; NONE and nothing if to none.

    :param host: its name, which is that of a pod
    """
    for variable, kind in VARIABLES.items():
        job = variables.get(variable)
        if job and kind == SLURM:
            return kind, variables.get(command.ARRAY) or job
        if job and kind == PBS and "[" in job:  # `17[4].server` is of the array `17[].server`
            number, _, rest = job.partition("[")
            return kind, f"{number}[]{rest.partition(']')[2]}"
        if job and kind == GRID_ENGINE and not any(map(variables.get, GRID_ENGINES)):
            return OTHER, job
        if job:
            return kind, job
    if variables.get(command.POD):
        pod = variables.get("POD_NAME") or host
        namespace = variables.get("POD_NAMESPACE") or _namespace()
        return KUBERNETES, f"{namespace}/{pod}" if namespace else pod
    return NONE, ""


def own() -> dict[str, object]:
    """Return what a record of this process says of its job; nothing outside of jobs."""
    kind, job = job_of(core.variables(), processes.host())
    return {"scheduler": kind, "job": job[: LONGEST + 1]} if job else {}


def of_record(said: Mapping[str, object]) -> tuple[str, str]:
    """Return what people call the job of whoever has written a record, and the command that ends it; empty: none.

    The first may have anything in it that somebody has put there.
    """
    kind, job = records.text(said, "scheduler"), records.text(said, "job")
    return (called(kind, job), end(kind, [job])) if job else ("", "")


def _namespace() -> str:
    """Return the namespace of the pod in which this process is, where that is not hidden from it."""
    try:
        return content(NAMESPACE).decode("ascii", "replace").strip()
    except OSError:
        return ""


def is_plain(job: str) -> bool:
    """Tell whether something looks like a job's id, so that a command may have it."""
    known = all((each.isascii() and each.isalnum()) or each in CHARACTERS for each in job)
    return known and 0 < len(job) <= LONGEST and (job[0].isalnum())


def end_of(variables: Mapping[str, str]) -> float:
    """Return when a job ends at the latest, by its time limit, in seconds since the epoch; 0 if that is not known.

    Slurm says so of late; a limit that is changed is not seen.
    """
    text = variables.get("SLURM_JOB_END_TIME", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 15 else 0.0


def called(kind: str, job: str) -> str:
    """Return what people call a job."""
    what = COMMANDS.get(kind, COMMANDS[OTHER])[0]
    if kind == KUBERNETES and "/" in job:
        namespace, _, pod = job.partition("/")
        return f"{what} {pod} in {namespace}"
    return f"{what} {job}".strip()


def ask(kind: str, jobs: Sequence[str]) -> str:
    """Return the command that says whether jobs of one scheduler still run; empty if there is none to be named."""
    _, pattern, between, _ = COMMANDS.get(kind, COMMANDS[OTHER])
    return _filled(kind, pattern, jobs, between)


def end(kind: str, jobs: Sequence[str]) -> str:
    """Return the command that ends jobs of one scheduler; empty if there is none to be named."""
    return _filled(kind, COMMANDS.get(kind, COMMANDS[OTHER])[3], jobs, " ")


def _filled(kind: str, pattern: str, jobs: Sequence[str], between: str) -> str:
    meant = [job for job in jobs if is_plain(job)]
    if not pattern or not meant:
        return ""
    if kind == KUBERNETES:
        namespace, slash, _ = meant[0].rpartition("/")
        meant = [job.rpartition("/")[2] for job in meant if job.rpartition("/")[0] == namespace]
        pattern = pattern.replace("kubectl", f"kubectl --namespace {_quoted(namespace)}") if slash else pattern
    return pattern.format(between.join(map(_quoted, meant)))


def _quoted(job: str) -> str:
    if all((each.isascii() and each.isalnum()) or each in "._-@:/" for each in job):
        return job
    from shlex import quote  # 5 ms to load, and few ids need it

    return quote(job)
