"""What each step of ``acceptance.py`` does: mlpbench, and probes in its backends' environments, as processes."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runner import Clock, Kept, Rows, Trouble, after, read_csv

ROOT = Path(__file__).parents[2]
ORDER = ["schnet", "painn", "nequip", "mace"]  # first, as they are compared; others follow
DRY, DRY_TORCH = "toy", "schnet"  # --dry times the toy, which needs no torch, and this where torch is needed
LIMITS = {"float64": 1e-6, "float32": 5e-3}  # eV, eV/Å, eV/Å³: largest difference between CPU and GPU
AIM = 20.0  # times the ASE loop's steps per second
PER_DEVICE = 1000  # replicas at which the aim counts

_ASK = """
import json, sys
from mlpbench.backends.environment import resolve
from mlpbench.config import load_backends
backends = load_backends(sys.argv[2:])
found = {}
for name in sys.argv[1].split(","):
    try:
        there = resolve(backends[name])
        found[name] = {"python": str(there.python), "pythonpath": list(there.pythonpath)}
    except Exception as error:
        found[name] = {"problem": str(error)}
print("ask:" + json.dumps(found))
"""
_MACHINE = """
import json, torch
there = torch.cuda.is_available()
print("machine:" + json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda,
    "card": torch.cuda.get_device_name() if there else None,
    "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9 if there else None}))
"""


class Bench:
    """Where everything lies, and the steps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.dry: bool = options.dry
        self.budget = [f"budget.steps={options.steps}"]
        if self.dry:
            self.budget = ["budget.steps=20", "budget.interval=5", "dataset.n_valid=10"]
        self.bundle: Path | None = options.bundle.absolute() if options.bundle else None
        self.work: Path = options.work.absolute()
        self.site, self.results = self.work / "site", self.work / "results"
        self.device = "cpu" if self.dry else "cuda"
        found = {p.stem: _backend_of(p) for p in sorted((ROOT / "conf" / "architecture").glob("*.yaml"))}
        found = {name: backend for name, backend in found.items() if self._wanted(backend, options.also)}
        names = [n for n in ORDER if n in found] + sorted(set(found) - set(ORDER) - {"toy"})
        self.architectures = {name: found[name] for name in names}
        self.timed = [DRY] if self.dry else names
        self.with_torch = [DRY_TORCH] if self.dry else names
        self.backend_of = found
        self.backends = list(dict.fromkeys([*self.architectures.values(), *(["toy"] if self.dry else [])]))
        self.size = "tiny" if self.dry else "small"
        self.asked: dict[str, dict[str, Any]] = {}
        self.alone: dict[str, float] = {}  # architecture -> training seconds by itself; "wall" -> mean of a command's

    def _wanted(self, backend: str, also: list[str]) -> bool:
        """Whether it is to be tried: what the bundle has, else the default set and what was asked for."""
        if backend == DRY:
            return True
        if self.bundle is not None:
            return (self.bundle / f"{backend}.requirements.txt").is_file()
        declared = (ROOT / "conf" / "backend" / f"{backend}.yaml").read_text(encoding="utf-8")
        return backend in also or not re.search(r"^\s*default:\s*false\b", declared, re.MULTILINE)

    def remember(self, kept: Kept) -> None:
        """Take from an earlier call what later steps compare with."""
        for row in kept.state["rows"].get("packing", []):
            if row["how"] == "one after another" and row["finished"] == row["trainings"]:
                pairs = (part.split("=") for part in row["training_seconds"].split())
                self.alone = {"wall": row["wall_seconds"] / row["trainings"], **{n: float(s) for n, s in pairs}}

    # -- processes ------------------------------------------------------------------------------------------------

    def variables(self, core: bool = True) -> dict[str, str]:
        """The environment of a child: for the core with its packages, for a probe without."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLPBENCH_", "VIRTUAL_ENV"))}
        named = {"OMP_NUM_THREADS": "1", "COLUMNS": "150", "PYTHONUNBUFFERED": "1"}
        if core:
            named["PYTHONPATH"] = os.pathsep.join([*([str(self.site / "core")] if self.bundle else []), str(ROOT)])
        if self.dry:  # its timings mean nothing, and need not wait for other work on this machine
            named["MLPBENCH_TURNS"] = str(self.work / "turns")
        if self.bundle:
            named |= {"MLPBENCH_HOME": str(self.work / "home"), "MLPBENCH_TURNS": str(self.work / "turns")}
            named |= {"MLPBENCH_DATA": str(self.bundle / "data"), "MLPBENCH_OFFLINE": "1"}
        return kept | named

    def adopted(self) -> list[str]:
        """The overrides that make every backend run in this interpreter, the bundle's packages first on its path."""
        if not self.bundle:
            return []
        overrides = []
        for name in self.backends:
            folder = self.site / (name if name != "toy" else "core")
            overrides += [f"backend.{name}.python={sys.executable}", f"backend.{name}.pythonpath=[{folder}]"]
        return overrides

    def mlpbench(self, clock: Clock, *arguments: str, **more: Any) -> str:
        """Run mlpbench; see :meth:`Clock.call`."""
        variables = self.variables() | more.pop("variables", {})
        log = self.work / "logs" / f"{clock.name.replace(':', '-')}.log"
        return clock.call([sys.executable, "-m", "mlpbench", *arguments], variables, log, **more)

    def run(self, clock: Clock, study: str, architecture: str, *overrides: str, **more: Any) -> str:
        """``mlpbench run`` of one trial, or several with ``-m`` among the overrides."""
        given = [f"study={study}", f"architecture={architecture}"]
        given += [] if any(o.startswith("device=") for o in overrides) else [f"device={self.device}"]
        flags = [o for o in overrides if o.startswith("-")]
        settings = [o for o in overrides if not o.startswith("-")]
        results = f"results_dir={self.results}"
        return self.mlpbench(clock, "run", *flags, *given, results, *self.adopted(), *settings, **more)

    def probe(self, clock: Clock, backend: str, script: str, *arguments: str) -> Any:
        """What a script of ``tests`` printed as JSON, run in the backend's environment."""
        asked = self.ask(clock, backend)
        variables = self.variables(core=False) | {"PYTHONPATH": os.pathsep.join(asked["pythonpath"])}
        log = self.work / "logs" / f"{clock.name.replace(':', '-')}.log"
        text = clock.call([asked["python"], "-W", "ignore", str(ROOT / "tests" / script), *arguments], variables, log)
        start = min((i for i in (text.find("\n{"), text.find("\n[")) if i >= 0), default=-1) + 1
        return json.JSONDecoder().raw_decode(text[start:])[0]

    def ask(self, clock: Clock, backend: str) -> dict[str, Any]:
        """Interpreter and path of a backend; asked once."""
        if backend in self.asked:
            return self.asked[backend]
        log = self.work / "logs" / f"{clock.name.replace(':', '-')}.log"
        text = clock.call([sys.executable, "-c", _ASK, backend, *self.adopted()], self.variables(), log)
        found: dict[str, Any] = after("ask:", text)[backend]
        if "problem" in found:
            raise Trouble(found["problem"].splitlines()[0])
        self.asked[backend] = found
        return found

    def record(self, study: str, architecture: str, n_train: int | None = None) -> tuple[Path, dict[str, Any]]:
        """Folder and record of the newest trial, which must be done."""
        paths = (self.results / study).glob(f"{architecture}-*/record.json")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
            record = json.loads(path.read_text(encoding="utf-8"))
            if n_train is not None and record["config"]["dataset"]["n_train"] != n_train:
                continue
            if record["status"] != "done":
                raise Trouble(f"{path.parent.name} is {record['status']}: {record['reason']}"[:300])
            return path.parent, record
        raise Trouble(f"{architecture} left no record in study {study}")

    # -- steps ----------------------------------------------------------------------------------------------------

    def machine(self, kept: Kept) -> None:
        """What this is, said first and kept: card, driver, versions, date."""
        clock = Clock("machine", time.monotonic() + (600 if self.dry else 120))
        log = self.work / "logs" / "machine.log"
        found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "dry": self.dry, "python": sys.version.split()[0]}
        try:
            found |= after("machine:", clock.call([sys.executable, "-c", _MACHINE], self.variables(core=False), log))
        except Trouble as trouble:
            found["problem"] = str(trouble)
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
            found["nvidia_smi"] = clock.call(query, self.variables(core=False), log, may_fail=True).strip()
        kept.state["machine"] = found
        kept.write()
        kept.say("machine: " + ", ".join(f"{key} {value}" for key, value in found.items()))
        if not found.get("card") and not self.dry:
            kept.say(
                "machine: torch sees no CUDA device here (no card, no driver, or one too old): say --dry for a CPU"
            )

    def install(self, clock: Clock, name: str) -> Rows:
        """The bundle's wheels for the core or one backend, in a folder of its own."""
        assert self.bundle is not None
        listed, folder = self.bundle / f"{name}.requirements.txt", self.site / name
        if not listed.is_file():
            raise Trouble(f"{listed} is missing: make the bundle anew (python -m tests.gpu.bundle)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target",
                   str(folder), "--find-links", str(self.bundle / "wheels"), "-r", str(listed)]  # fmt: skip
        clock.call(command, self.variables(core=False), self.work / "logs" / f"install-{name}.log")
        return {}

    def importing(self, clock: Clock, name: str) -> Rows:
        """``mlpbench env check``."""
        text = self.mlpbench(clock, "env", "check", name, *self.adopted())
        if self.device == "cuda" and "device: cuda" not in text:
            raise Trouble(next((li.strip() for li in text.splitlines() if "device:" in li), "no device line"))
        return {}

    def train(self, clock: Clock, name: str) -> Rows:
        """Train, be interrupted, go on; then the device against the CPU."""
        steps, interval = (60, 2) if self.dry else (600, 10)  # long enough to be interrupted
        small = ["size=tiny", "dtype=float64", "dataset.n_train=20", "dataset.n_valid=10", f"budget.steps={steps}",
                 f"budget.interval={interval}"]  # fmt: skip
        self.run(clock, "device", name, *small, until=lambda: self._under_way(name), may_fail=True)
        self.run(clock, "device", name, *small)
        folder, record = self.record("device", name)
        training = record["training"]
        row = {
            "architecture": name, "device": record["provenance"]["hardware"].get("device"), "dtype": "float64",
            "steps": training["steps"], "resumed": training["resumed"],
            "train_seconds": training["wall_seconds"], "recorded_peak_mb": training["peak_device_memory_mb"],
            "not_resident": _not_resident(folder),
        }  # fmt: skip
        rows: Rows = {"agreement": [row]}
        wrong = [] if training["resumed"] else ["it was not resumed (it ended before it was interrupted)"]
        if self.device == "cuda" and not (training["on_device"] and training["peak_device_memory_mb"]):
            wrong.append("the record shows no memory on the device")
        try:
            frames = ["--device", self.device, "--frames", "4" if self.dry else "8"]
            found = self.probe(clock, self.backend_of[name], "gpu/agreement.py", str(folder), *frames)
        except Trouble as trouble:
            raise Trouble(str(trouble), rows, trouble.status) from trouble
        rows["agreement"] += found
        for off in found:
            worst = [off[key] for key in ("energy_eV", "forces_eV_per_A", "stress_eV_per_A3")]
            if not all(value <= LIMITS[off["dtype"]] for value in worst if value is not None):
                wrong.append(f"{off['dtype']} differs from the CPU by {worst} (at most {LIMITS[off['dtype']]:g})")
            if off["allocated_mb"] and not off["allocated_mb"] <= off["reserved_mb"] <= off["in_use_mb"]:
                wrong.append(f"{off['dtype']} memory does not add up: {off}")
        if wrong:
            raise Trouble("; ".join(wrong), rows)
        return rows

    def on_cpu(self, clock: Clock, name: str) -> Rows:
        """A trial with ``device=cpu`` must count as one, whatever device stands in the machine."""
        small = ["size=tiny", "dataset.n_train=20", "dataset.n_valid=10", "budget.steps=10", "budget.interval=5"]
        self.run(clock, "cpu", name, *small, "device=cpu")
        _, record = self.record("cpu", name)
        training, hardware = record["training"], record["provenance"]["hardware"]
        row = {
            "architecture": name, "device": hardware.get("device"), "steps": training["steps"],
            "train_seconds": training["wall_seconds"], "recorded_peak_mb": training["peak_device_memory_mb"],
        }  # fmt: skip
        if training["on_device"] or training["peak_device_memory_mb"] is not None or hardware.get("device") != "cpu":
            raise Trouble(f"a trial on the CPU is recorded as {row}", {"agreement": [row]})
        return {"agreement": [row]}

    def _under_way(self, name: str) -> bool:
        """Whether the training has validated twice and left a checkpoint that it can go on from."""
        for folder in (self.results / "device").glob(f"{name}-*"):
            events, checkpoint = folder / "events.jsonl", folder / "checkpoint"
            text = events.read_text(encoding="utf-8") if events.is_file() else ""
            if text.count('"event": "epoch"') >= 2 and checkpoint.is_dir() and any(checkpoint.iterdir()):
                return True
        return False

    def accuracy(self, clock: Clock, name: str, n_train: int) -> Rows:
        """A trial at the real budget and its errors."""
        self.run(clock, "gpu", name, f"size={self.size}", f"dataset.n_train={n_train}", *self.budget)
        return {"accuracy": [self._errors(*self.record("gpu", name, n_train))]}

    def published(self, clock: Clock) -> Rows:
        """AcAc, three trainings each of the published networks, side by side, for as long as the step may last.

        A step costs launches there, not arithmetic: so batches of 25 where the authors take 5, and MPS where it is.
        """
        if not self.bundle or not (self.bundle / "data" / "acac").is_dir():
            raise Trouble("AcAc's files are not in the bundle: mlpbench data fetch acac, then make the bundle anew")
        names, repetitions, seconds = self.timed[:4], range(1 if self.dry else 3), max(clock.left - 100.0, 3.0)
        size, given = "tiny" if self.dry else "medium", ["dataset=acac", "dataset.n_valid=50", "evaluation=none"]
        given += ["training=common", "training.batch_size=25", "budget=seconds", f"budget.seconds={seconds:.0f}"]
        given += ["study=acac", f"size={size}", f"dataset.n_train={20 if self.dry else 450}", "budget.interval=100"]
        given += [f"device={self.device}", f"results_dir={self.results}", *self.adopted()]
        commands = [["run", f"architecture={n}", f"repetition={r}", *given] for r in repetitions for n in names]
        variables = {} if self.dry else self._start_mps(clock)
        try:
            self._together(clock, commands, variables)
        finally:
            self._end_mps(variables)
        records = [json.loads(p.read_text(encoding="utf-8")) for p in (self.results / "acac").glob("*/record.json")]
        done = [record for record in records if record["status"] == "done"]
        rows: Rows = {"accuracy": [self._errors(self.results / "acac" / r["trial"], r) for r in done]}
        if len(done) < len(commands):
            raise Trouble(f"{len(done)} of {len(commands)} trainings ended well", rows)
        return rows

    def _errors(self, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
        training, wanted = record["training"], {"energy_mae", "force_mae"}
        errors = {
            f"{m['metric']}@{m['split']} ({m['unit']})": m["value"] for m in record["metrics"] if m["metric"] in wanted
        }
        head = {
            "trial": folder.name,
            "device": record["provenance"]["hardware"].get("device"),
            "status": record["status"],
        }
        spent = {key: training.get(key) for key in ("steps", "wall_seconds", "peak_device_memory_mb", "at_rest")}
        return head | spent | {"not_resident": _not_resident(folder)} | errors

    def speed(self, clock: Clock, name: str) -> Rows:
        """Latency, throughput, growth and MD steps of the trained potential, eager and compiled."""
        deployments = "eager,compiled,accelerated" if self.dry else "eager,compiled"  # the kernels are not carried
        n_train = 50 if self.dry else 200
        self.run(clock, "gpu", name, f"size={self.size}", f"dataset.n_train={n_train}", *self.budget)
        # What is left once it is trained is shared by the paths.
        left = f"evaluation.speed.path_seconds={max(clock.left * 0.45, 20):.0f}"
        return self._timed(clock, "gpu", name, f"evaluation.speed.deployments=[{deployments}]", left)

    def tf32(self, clock: Clock, name: str) -> Rows:
        """The same with and without TF32, in a copy of the study, so that it replaces nothing."""
        n_train = 50 if self.dry else 200
        self.run(clock, "gpu", name, f"size={self.size}", f"dataset.n_train={n_train}", *self.budget)
        folder, _ = self.record("gpu", name, n_train)
        copy = self.results / "gpu-tf32"
        shutil.copytree(self.results / "gpu" / "splits", copy / "splits", dirs_exist_ok=True)
        shutil.copytree(folder, copy / folder.name, dirs_exist_ok=True, symlinks=True)
        short = ["tf32=[false,true]", "deployments=[eager]", "memory_fraction=null", "copies=[1]", "batch_sizes=[64]"]
        return self._timed(clock, "gpu-tf32", name, *(f"evaluation.speed.{option}" for option in short))

    def _timed(self, clock: Clock, study: str, name: str, *options: str) -> Rows:
        """Rows of ``speed.csv`` of a trial that is trained already."""
        n_train = 50 if self.dry else 200
        given = [f"size={self.size}", f"dataset.n_train={n_train}", *self.budget, "evaluation=speed"]
        short: dict[str, Any] = {"blocks": 5, "block_seconds": 0.1, "batch_sizes": "[1,64]", "md_block_steps": 30}
        short |= {"copies": "[1,8]", "max_seconds_per_call": 3}
        if self.dry:
            short = {"blocks": 2, "block_seconds": 0.05, "batch_sizes": "[1,4]", "md_block_steps": 3, "copies": "[1]"}
            short |= {"memory_fraction": "null", "path_seconds": 120, "n_frames": 2}
        # How it is timed is no part of what is trained: the trial of the step 'accuracy' is measured.
        given += [f"evaluation.speed.{key}={value}" for key, value in short.items()]
        self.run(clock, study, name, *given, *options)
        text = self.mlpbench(clock, "table", study, "--speed", "--results", str(self.results))
        folder, _ = self.record(study, name, n_train)
        rows = [row for row in read_csv(self.results / study / "speed.csv") if row["trial"] == folder.name]
        if not rows:
            raise Trouble(f"nothing was timed: {text.strip().splitlines()[-1][:200]}")
        return {"speed": rows}

    def md(self, clock: Clock, name: str) -> Rows:
        """Replica-steps per second of batched MD against the package's own ASE calculator."""
        if not self.dry:  # trained by the step 'accuracy', unless that was on another machine
            self.run(clock, "gpu", name, f"size={self.size}", "dataset.n_train=200", *self.budget)
        folder, _ = self.record("device", name) if self.dry else self.record("gpu", name, 200)
        counts = ["1", "8"] if self.dry else ["1", "10", "100", "1000"]
        short = ["--rounds", "1", "--steps", "2"] if self.dry else ["--rounds", "3", "--steps", "10"]
        arguments = [str(folder), "--device", self.device, "--replicas", *counts, "--starts", "1"]
        arguments += ["--engines", "torch-sim", *short]
        found = self.probe(clock, self.backend_of[name], "benchmarks/md_throughput.py", *arguments)
        rows = []
        for size in found["sizes"]:
            rates = {f"{engine}_steps_per_s": rate for engine, rate in size["replica_steps_per_second"].items()}
            ratio = size["ratio_to_ase"]["torch-sim"]
            rows.append({
                "architecture": name, "device": found["device_name"] or found["device"], "dtype": found["dtype"],
                "replicas": size["replicas"], **rates, "times_ase": ratio, "peak_memory_mb": size["peak_memory_mb"],
                "memory_of": size["memory_of"], "reaches_20": ratio >= AIM,
            })  # fmt: skip
        most = max(rows, key=lambda row: row["times_ase"])
        if not self.dry and most["times_ase"] < AIM:
            raise Trouble(
                f"{most['times_ase']:.1f} times the ASE loop at most, less than the aim of {AIM:g}", {"md": rows}
            )
        return {"md": rows}

    def packing(self, clock: Clock, count: int, mps: bool = False) -> Rows:
        """``count`` trainings of unlike architectures at the same time; the first step also one after another."""
        names = (self.timed[:4] * count)[:count]
        study = f"packing-{count}{'-mps' if mps else ''}"
        shutil.rmtree(self.results / study, ignore_errors=True)  # of an earlier try: what is cached costs no time
        variables = self._start_mps(clock) if mps else {}
        try:
            commands = [self._short(study, n, i // len(self.timed[:4])) for i, n in enumerate(names)]
            together = self._together(clock, commands, variables)
        finally:
            if mps:
                self._end_mps(variables)
        row = self._packed(study, "side by side, MPS" if mps else "side by side", names, together)
        if row["finished"] < count:
            raise Trouble(f"{row['finished']} of {count} trainings ended well", {"packing": [row]})
        return {"packing": [row]}

    def one_by_one(self, clock: Clock) -> Rows:
        """The same trainings one after another, one of each architecture: the yardstick of packing."""
        shutil.rmtree(self.results / "packing-alone", ignore_errors=True)
        begin, names = time.monotonic(), self.timed[:4]

        def rows() -> Rows:
            return {"packing": [self._packed("packing-alone", "one after another", names, time.monotonic() - begin)]}

        try:
            for name in names:
                self.mlpbench(clock, *self._short("packing-alone", name, 0))
        except Trouble as trouble:
            raise Trouble(str(trouble), rows(), trouble.status) from trouble
        return rows()

    def _packed(self, study: str, how: str, names: list[str], wall: float) -> dict[str, Any]:
        """A row: seconds with all that a command does, and of the trainings alone.

        ``times_faster``: what as many trainings would take one after another, over what they took;
        ``times_faster_training``: likewise without starting up, from the seconds of the slowest training.
        """
        records = [json.loads(p.read_text(encoding="utf-8")) for p in (self.results / study).glob("*/record.json")]
        seconds = {r["trial"]: float(r["training"]["wall_seconds"]) for r in records if r["status"] == "done"}
        per_name = {n: [s for trial, s in seconds.items() if trial.startswith(f"{n}-")] for n in names}
        if how == "one after another" and len(seconds) == len(names):
            self.alone = {"wall": wall / len(names), **{n: s[0] for n, s in per_name.items() if s}}
        known = [self.alone[n] for n in names if n in self.alone]
        complete, beside = len(known) == len(seconds) == len(names), how != "one after another"
        return {
            "how": how, "trainings": len(names), "finished": len(seconds), "device": self.device, "wall_seconds": wall,
            "slowest_training_seconds": max(seconds.values(), default=None),
            "sum_of_training_seconds": sum(seconds.values()),
            "times_faster": self.alone["wall"] * len(names) / wall if "wall" in self.alone else None,
            "times_faster_training": sum(known) / max(seconds.values()) if complete and beside else None,
            "training_seconds": " ".join(f"{n}={sum(s) / len(s):.1f}" for n, s in per_name.items() if s),
        }  # fmt: skip

    def _short(self, study: str, name: str, repetition: int) -> list[str]:
        steps = 20 if self.dry else 300
        given = [f"study={study}", f"architecture={name}", f"device={self.device}", f"results_dir={self.results}"]
        given += [f"size={self.size}", "dataset.n_train=50", f"budget.steps={steps}", f"repetition={repetition}"]
        return ["run", *given, *self.adopted(), *(["dataset.n_valid=10"] if self.dry else [])]

    def _together(self, clock: Clock, commands: list[list[str]], variables: dict[str, str]) -> float:
        begin = time.monotonic()
        clocks = [Clock(f"{clock.name}-{i}", clock.end) for i in range(len(commands))]

        def one(task: tuple[Clock, list[str]]) -> None:
            self.mlpbench(task[0], *task[1], variables=variables, may_fail=True)

        with ThreadPoolExecutor(max_workers=len(commands)) as pool:
            list(pool.map(one, zip(clocks, commands, strict=True)))
        clock.cpu_seconds += sum(other.cpu_seconds for other in clocks)
        clock.tail = next((other.tail for other in clocks if other.tail), "")
        return time.monotonic() - begin

    def _start_mps(self, clock: Clock) -> dict[str, str]:
        control = shutil.which("nvidia-cuda-mps-control")
        if control is None:
            raise Trouble("there is no nvidia-cuda-mps-control here, so MPS was not tried", status="skipped")
        folders = {"CUDA_MPS_PIPE_DIRECTORY": "pipe", "CUDA_MPS_LOG_DIRECTORY": "log"}
        variables = {key: str(self.work / "mps" / name) for key, name in folders.items()}
        for folder in variables.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        clock.call([control, "-d"], os.environ | variables, self.work / "logs" / "mps.log")
        return variables

    def _end_mps(self, variables: dict[str, str]) -> None:
        control = shutil.which("nvidia-cuda-mps-control")
        if control is not None and variables:
            command = ["sh", "-c", f"echo quit | {control}"]
            Clock("mps", time.monotonic() + 30).call(
                command, os.environ | variables, self.work / "logs" / "mps.log", may_fail=True
            )

    def dft(self, clock: Clock) -> Rows:
        """What the reference method costs: published times; the frames' own wall times stand in the report."""
        self.mlpbench(clock, "dft", "time", "gpu", "--recorded", "--results", str(self.results))
        return {}

    def report(self, clock: Clock, out: Path) -> Rows:
        """The page of the study, beside the tables."""
        page = self.work / "page"
        self.mlpbench(clock, "report", "gpu", "--results", str(self.results), "--out", str(page))
        shutil.copy(page / "index.html", out / "report.html")
        return {}


def _not_resident(folder: Path) -> str:
    """Why the trial had a process of its own although it could have been a fork; empty if it was one."""
    mark = "a resident one cannot: "
    lines = (folder / "worker.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(mark)[2] for line in lines if mark in line), "")


def _backend_of(path: Path) -> str:
    found = re.search(r"^backend:\s*(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else path.stem
