"""``segbatch submit`` and ``segbatch jobs``. Heavy imports stay inside the commands."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbatch.redaction import redact

if TYPE_CHECKING:
    from segbatch.submit.job import Cluster, Wanted

Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The cluster's dashboard, http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS."),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Of the job, as submit and list tell it.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Show what the job prints, and end with its exit code.")]
Seconds = Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Give a job up that has not started by then.")]

jobs = typer.Typer(help="The jobs of a Ray cluster: list, status, logs, stop.", no_args_is_help=True)


def add_submit(app: typer.Typer) -> None:
    """Give a command line the commands ``submit``, ``jobs`` and ``drain``."""
    # Options that submit does not know are the submitted command's.
    app.command(context_settings={"ignore_unknown_options": True})(submit)
    app.add_typer(jobs, name="jobs")
    app.command()(drain)


def drain(
    seconds: Annotated[int, typer.Option(metavar="N", min=1, help="Until this machine is gone.")] = 25,
    on_notice: Annotated[
        bool, typer.Option("--on-notice", help="Wait until AWS says that this spot machine is taken away.")
    ] = False,
) -> None:
    """Tell Ray that this machine is about to be taken away: nothing more begins on it, and trainings save.

    For hooks of machines that vanish; the files in cluster/ have them.
    """
    import time

    from segbatch.commands.progress import counted
    from segbatch.submit import drain as draining

    if on_notice:
        notice = draining.wait_for_notice()
        seconds = draining.seconds_left(notice, time.time()) or seconds
    nodes = draining.ray_nodes()
    draining.drain(nodes, seconds)
    typer.echo(f"{counted(len(nodes), 'Ray node')} of this machine will begin nothing more ({seconds} s left).")


def submit(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="A command of segbatch and all its arguments.")
    ],
    address: Address = None,
    wait: Wait = True,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="Variable of the job; KEY alone has the value it has here. Repeat."),
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to send along and to run in. Default: this one.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Do not send this, as in a .gitignore. Repeat.")
    ] = None,
    entrypoint_cpus: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="CPUs for the command itself, beside its workers.")
    ] = None,
    entrypoint_gpus: Annotated[float | None, typer.Option(metavar="N", min=0, help="GPUs likewise.")] = None,
    entrypoint_memory: Annotated[int | None, typer.Option(metavar="BYTES", min=0, help="Memory likewise.")] = None,
    entrypoint_resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="A resource of the cluster's own likewise. Repeat.")
    ] = None,
    pending_timeout: Seconds = 600,
) -> None:
    """Run a command as a job of a Ray cluster.

    segbatch submit run landcover.yaml --address http://HEAD:8265

    Submitting the same again shows the job that is at it, or goes on with what an ended one has left.
    Ctrl-C ends the watching, not the job.
    """
    from segbatch.commands.progress import out, say
    from segbatch.submit.client import RayCluster, find_address
    from segbatch.submit.command import check_inputs, parse
    from segbatch.submit.job import Wanted
    from segbatch.submit.package import pack
    from segbatch.submit.pending import lacking
    from segbatch.submit.send import read_environment, send

    folder = working_dir or Path.cwd()
    url = find_address(address)
    environment = read_environment(env or (), os.environ)
    wanted = Wanted(entrypoint_cpus, entrypoint_gpus, entrypoint_memory, _amounts(entrypoint_resource or ()))
    parsed = parse(context.find_root(), command, folder)
    cluster = RayCluster(url)  # first of all that imports Ray, which looks for a token when it is imported
    package = pack(folder, exclude or (), parsed.output)
    check_inputs(parsed, package)
    job_id, is_new = send(cluster, parsed, package, environment, wanted)
    if is_new:
        say(f"Submitted {job_id}, which writes to {parsed.output}")
        lack = lacking(cluster, wanted)
        if lack:
            say(f"  It has to wait for a node: {lack}.")
    else:
        say(f"{job_id} is at it already: nothing is sent.")
    if wait:
        _watch(cluster, job_id, wanted, pending_timeout, environment)
    else:
        out.print(job_id, markup=False, soft_wrap=True)


@jobs.command("list")
def list_(address: Address = None) -> None:
    """The jobs that the cluster remembers, the oldest first."""
    from segbatch.commands.progress import out, say
    from segbatch.submit.show import job_lines

    found = _connect(address).jobs()
    if not found:
        say("There are no jobs.")
        return
    for line in job_lines(found):
        out.print(line, markup=False, soft_wrap=True)


@jobs.command()
def status(job_id: JobId, address: Address = None) -> None:
    """What the cluster knows of a job."""
    from segbatch.commands.progress import out
    from segbatch.submit.show import status_lines

    for name, value in status_lines(_connect(address).job(job_id)):
        out.print(f"{name:<10}{redact(value)}", markup=False, soft_wrap=True)


@jobs.command()
def logs(
    job_id: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on to the job's end, and end with its code.")] = False,
) -> None:
    """What a job has printed."""
    from segbatch.commands.progress import out

    cluster = _connect(address)
    cluster.job(job_id)  # says so where there is none
    if follow:
        _watch(cluster, job_id)
    else:
        out.print(cluster.log(job_id), end="", markup=False, soft_wrap=True)


@jobs.command()
def stop(job_id: JobId, address: Address = None) -> None:
    """Ask a job to stop, and wait until it has.

    A training saves its step first, a mapping keeps the blocks that are done. Submit the same again to go on.
    """
    from segbatch.commands.progress import say
    from segbatch.submit.follow import stop as stop_job
    from segbatch.submit.show import ending

    cluster = _connect(address)
    job = cluster.job(job_id)
    say(ending(job if job.is_over else stop_job(cluster, job_id)))


def _connect(address: str | None) -> "Cluster":
    from segbatch.submit.client import RayCluster, find_address

    return RayCluster(find_address(address))


def _watch(
    cluster: "Cluster",
    job_id: str,
    wanted: "Wanted | None" = None,
    pending_seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Show a job to its end, and end with its exit code."""
    from segbatch.commands.progress import out, say
    from segbatch.submit.follow import follow
    from segbatch.submit.job import EXIT_STOPPED
    from segbatch.submit.show import ending, hide

    secrets = environment or {}
    try:
        job = follow(
            cluster,
            job_id,
            lambda line: out.print(hide(line, secrets), markup=False, soft_wrap=True),
            wanted,
            pending_seconds,
        )
    except KeyboardInterrupt:
        where = f"{job_id} --address {cluster.address}"
        say(
            f"\n{job_id} goes on. To watch it again: segbatch jobs logs --follow {where}\n"
            f"To end it: segbatch jobs stop {where}"
        )
        raise typer.Exit(EXIT_STOPPED) from None
    say(hide(ending(job), secrets))
    raise typer.Exit(job.code)


def _amounts(words: list[str] | tuple[()]) -> dict[str, float]:
    """Resources from words like NAME=2."""
    found = {}
    for word in words:
        name, _, amount = word.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            raise typer.BadParameter(f"--entrypoint-resource {word}: write NAME=AMOUNT, as in tpu=1.") from None
    return found
