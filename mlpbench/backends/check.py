"""``mlpbench env check``: import the packages inside the environment and say what is there."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mlpbench.backends.environment import check, needs
from mlpbench.backends.probe import normalise, probe, run_python
from mlpbench.backends.registry import BackendConfig, Environment
from mlpbench.worker import bootstrap

# The adapter imports the package it adapts, so importing it is the whole test.
_INSIDE = """
import importlib, json, os, runpy, sys, time
if {package!r}:
    os.environ["MLPBENCH_PACKAGE"] = {package!r}
start = time.perf_counter()
runpy.run_path({bootstrap!r}, run_name="mlpbench_bootstrap")["_mount"]()
module, _, name = {adapter!r}.partition(":")
adapter = getattr(importlib.import_module(module), name)
found = {{"seconds": time.perf_counter() - start, "packages": list(getattr(adapter, "packages", ()))}}
torch = sys.modules.get("torch")
if torch is None:
    import importlib.util
    if importlib.util.find_spec("torch"):
        import torch
if torch is not None:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["torch"] = {{"version": torch.__version__, "cuda": torch.version.cuda, "devices": names,
                      "tf32": bool(torch.backends.cuda.matmul.allow_tf32)}}
print("mlpbench-check:" + json.dumps(found))
"""


@dataclass(frozen=True)
class Report:
    """What ``env check`` prints, and whether the backend can be used."""

    works: bool
    lines: list[str]


def check_inside(backend: BackendConfig, environment: Environment) -> Report:
    """Import the backend's adapter in ``environment``.

    Raises:
        UserError: the interpreter cannot be started.
    """
    installed = probe(environment.python, environment.pythonpath)
    errors, notes = check(backend, installed)
    kind = "adopted" if environment.adopted else "built"
    lines = [f"{backend.name}: {kind}, Python {installed.python}, {environment.python}"]
    lines += [f"  first on its path: {folder}" for folder in environment.pythonpath]
    code = _INSIDE.format(bootstrap=bootstrap.__file__, adapter=backend.adapter, package=environment.package)
    done = run_python(environment.python, code, environment.pythonpath, timeout=600)
    found = next((line for line in done.stdout.splitlines() if line.startswith("mlpbench-check:")), None)
    if found is None:
        last = done.stderr.strip().splitlines()[-8:] or ["it printed nothing"]
        return Report(False, [*lines, *_marked("error", errors), "  the adapter cannot be imported:", *last])
    data = json.loads(found.removeprefix("mlpbench-check:"))
    names = dict.fromkeys(
        ["numpy", "ase", *(normalise(n) for n in data["packages"]), *(n.name for n in needs(backend))]
    )
    lines += [f"  {name} {installed.versions.get(name, 'missing')}" for name in names]
    lines.append(f"  imported in {data['seconds']:.1f} s")
    lines += _device_lines(data.get("torch"))
    return Report(not errors, [*lines, *_marked("note", notes), *_marked("error", errors)])


def _device_lines(torch: dict[str, object] | None) -> list[str]:
    if torch is None:
        return ["  device: cpu (no torch)"]
    devices = torch["devices"]
    assert isinstance(devices, list)
    built = f"torch built for CUDA {torch['cuda']}" if torch["cuda"] else "torch built for the CPU only"
    if not devices:
        return [f"  device: cpu ({built}; it sees no CUDA device)"]
    shown = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(devices))
    return [f"  device: {shown} ({built}; TF32 {'on' if torch['tf32'] else 'off'})"]


def _marked(kind: str, texts: list[str]) -> list[str]:
    return [f"  {kind}: {text}" for text in texts]
