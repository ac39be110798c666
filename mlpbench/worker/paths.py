"""The deployments of one trained potential (deployment × dtype × TF32), their check against eager, and the process that
each runs in.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.frames import Float
from mlpbench.protocol import CHECKPOINT, EVENTS, LOG, REQUEST, ProtocolError, Request, Result, Task
from mlpbench.worker import process as worker_process

DEPLOYMENTS = ("eager", "compiled", "accelerated")

# Largest difference from the eager path of the same weights: (eV/atom, eV/Å). A path beyond it computes something else.
# float32 sums in another order (ethanol: up to 1e-6 and 4e-6), TF32 keeps 10 bits of the mantissa.
TOLERANCE = {"float64": (1e-8, 1e-7), "float32": (1e-4, 1e-3), "tf32": (5e-3, 5e-2)}


@dataclass(frozen=True)
class Deployment:
    """One way to run a potential.

    Attributes:
        deployment: ``eager``, ``compiled`` or ``accelerated`` (kernels of other packages, for GPUs).
        means: the package's implementation of it, e.g. ``TorchScript``; empty for eager.
        dtype: ``float32`` or ``float64``.
        tf32: whether float32 products may be rounded to TF32 (NVIDIA GPUs).
        reason: why it cannot run here; empty if that is not known before trying.
    """

    deployment: str
    means: str
    dtype: str
    tf32: bool
    reason: str = ""

    @property
    def label(self) -> str:
        """A name that a folder can have, e.g. ``compiled-TorchScript-float32``."""
        parts = [self.deployment, self.means, self.dtype, "tf32" if self.tf32 else ""]
        return "-".join(part for part in parts if part)

    @property
    def precision(self) -> str:
        """The key of its tolerance."""
        return "tf32" if self.tf32 else self.dtype

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it, without ``reason``."""
        values = asdict(self)
        del values["reason"]
        return values


def plan(
    options: Mapping[str, Any], dtype: str, device: str, means: Mapping[str, Sequence[str]]
) -> Iterator[Deployment]:
    """Every path that ``options`` ask for, but eager in the trial's own dtype, which is always timed.

    Args:
        options: ``deployments``, ``dtypes`` (None: the trial's), ``tf32``.
        dtype: the trial's.
        device: where it runs.
        means: deployment -> names of the backend's implementations of it.
    """
    for deployment in options["deployments"]:
        for chosen in options["dtypes"] or [dtype]:
            for tf32 in options["tf32"]:
                if tf32 and chosen != "float32":
                    continue  # TF32 rounds float32 products; there is nothing of it in float64
                if (deployment, chosen, tf32) == ("eager", dtype, False):
                    continue
                names = [""] if deployment == "eager" else means.get(deployment) or [""]
                for name in names:
                    yield Deployment(deployment, name, chosen, tf32, _hindrance(deployment, name, tf32, device))


def _hindrance(deployment: str, means: str, tf32: bool, device: str) -> str:
    if deployment != "eager" and not means:
        return f"the backend has no {deployment} path"
    if deployment == "accelerated" and not device.startswith("cuda"):
        return f"its kernels are for GPUs; this trial runs on {device}"
    if tf32 and not device.startswith("cuda"):
        return f"TF32 is a mode of NVIDIA GPUs; this trial runs on {device}"
    return ""


def differences(answer: tuple[Float, list[Float]], reference: tuple[Float, list[Float]]) -> tuple[float, float]:
    """Largest absolute difference in energy (eV/atom) and force component (eV/Å); NaN if either is not finite."""
    energy = float(np.max(np.abs(answer[0] - reference[0])))
    force = max(float(np.max(np.abs(a - b))) for a, b in zip(answer[1], reference[1], strict=True))
    return energy, force


def disagreement(path: Deployment, energy: float, force: float) -> str:
    """Why the path is refused; empty if its labels agree with the eager ones."""
    allowed = TOLERANCE[path.precision]
    if energy <= allowed[0] and force <= allowed[1]:  # not so for NaN
        return ""
    return (
        f"its labels are not those of the eager path: energies differ by up to {energy:.3g} eV/atom and forces by up "
        f"to {force:.3g} eV/Å; allowed are {allowed[0]:g} and {allowed[1]:g}"
    )


BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
POLL = 0.05  # s; a process that takes memory at 5 GB/s gains 250 MB between two looks


def run_child(
    request: Request, folder: Path, task: str, options: dict[str, Any], *, seconds: float, cap_mb: float | None = None
) -> Result:
    """Carry out ``task`` on the trained potential of ``request`` in a child process and return its result.

    Args:
        request: of the trial; the child sees its checkpoint, and writes below ``folder``.
        folder: of the child's own request, log, events and result; what an earlier child left there is removed.
        task: a module of :mod:`mlpbench.worker.tasks`.
        options: of the task.
        seconds: after these the child is ended (status ``timeout``).
        cap_mb: largest resident memory (10⁶ bytes) before it is ended (status ``out_of_memory``); None: no limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (EVENTS, LOG):
        (folder / name).unlink(missing_ok=True)
    (folder / "tasks" / f"{task}.json").unlink(missing_ok=True)
    link = folder / CHECKPOINT
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(Path(request.directory) / CHECKPOINT, folder))
    replace(request, directory=str(folder), tasks=[Task(task, options=options)]).write(folder / REQUEST)
    # Locks of its own: the parent holds those of this machine, and waiting for them would never end.
    variables = {**os.environ, worker_process.VARIABLE: str(os.getpid()), "MLPBENCH_TURNS": str(folder / "turns")}
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-u", str(BOOTSTRAP), str(folder)],
            cwd=folder, env=variables, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            ended = _follow(process, seconds, cap_mb)
        finally:
            process.kill()
            process.wait()
    return _result(folder, task, ended, process.returncode, seconds, cap_mb)


def _follow(process: subprocess.Popen[bytes], seconds: float, cap_mb: float | None) -> str:
    """Wait for the child; ``""``, ``timeout`` or ``out_of_memory``."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return "timeout"
        if cap_mb is not None and resident_mb(process.pid) > cap_mb:
            return "out_of_memory"
        time.sleep(POLL)
    return ""


def _result(folder: Path, task: str, ended: str, code: int, seconds: float, cap_mb: float | None) -> Result:
    try:
        return Result.read(folder, task)
    except (FileNotFoundError, ProtocolError):
        pass  # it did not get that far; why, is told below
    if ended == "timeout":
        return Result(task, "", "timeout", f"not done after {seconds:g} s")
    if ended == "out_of_memory":
        return Result(task, "", "out_of_memory", f"it needs more than the cap of {cap_mb:.0f} MB")
    if code == -signal.SIGKILL:
        return Result(task, "", "out_of_memory", "the system ended it, most likely because memory ran out")
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Result(task, "", "failed", f"its process ended with code {code}: {lines[-1] if lines else 'no output'}")


def resident_mb(pid: int) -> float:
    """Resident memory of a process now (10⁶ bytes); 0 once it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        pass  # no /proc, or no such process any more
    answer = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return int(answer) * 1024 / 1e6 if answer.strip() else 0.0


def total_memory_mb() -> float:
    """The machine's memory (10⁶ bytes), or the limit of its control group where that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text) / 1e6)
    return total
