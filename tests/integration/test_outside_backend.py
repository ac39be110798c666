"""A backend from outside: a package of a few files, its environment, a trial, the report, and the contract suite."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

# The package that is adapted: in no environment but its own.
POTENTIALS = {
    "foo_potentials/__init__.py": "WIDENING = 1.5\n",
    "foo_potentials-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: foo-potentials\nVersion: 1.2\n",
    "foo_potentials-1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "foo_potentials-1.2.dist-info/RECORD": "foo_potentials/__init__.py,,\nfoo_potentials-1.2.dist-info/METADATA,,\n"
    "foo_potentials-1.2.dist-info/WHEEL,,\nfoo_potentials-1.2.dist-info/RECORD,,\n",
}
# What its authors write.
PACKAGE = {
    "mlpbench_foo-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: mlpbench-foo\nVersion: 0.1\n",
    "mlpbench_foo-0.1.dist-info/entry_points.txt": "[mlpbench.backends]\nfoo = mlpbench_foo\n",
    "mlpbench_foo/__init__.py": "import foo_potentials  # which the core does not have\n",
    "mlpbench_foo/adapter.py": """
from mlpbench.worker.adapters.toy import ToyAdapter
from mlpbench_foo.native import widened

class FooAdapter(ToyAdapter):
    packages = ("foo-potentials",)

    def __init__(self, request):
        super().__init__(widened(request))
""",
    "mlpbench_foo/native.py": """
from dataclasses import replace
import foo_potentials

def widened(request):
    cutoff = request.architecture["cutoff"] * foo_potentials.WIDENING
    return replace(request, architecture={**request.architecture, "cutoff": cutoff})
""",
    "mlpbench_foo/foo.requirements.txt": "foo-potentials==1.2\n",
    "mlpbench_foo/foo.bib": """@article{foo2026,
    author = "Foo, Ada and Bar, Ben",
    title = "Foo potentials",
    journal = "Journal of Examples",
    year = "2026",
    doi = "10.1234/foo"
}
""",
    # numpy and ASE are those of the core, so that the test needs no network: real packages have them in their pins
    "mlpbench_foo/conf/backend/foo.yaml": f"""
foo:
  adapter: mlpbench_foo.adapter:FooAdapter
  requirements: foo.requirements.txt
  pythonpath: [{json.dumps(str(Path(np.__file__).parents[1]))}]
  distribution: foo-potentials
  licence: BSD-3-Clause
  cite: [foo2026]
  bibliography: foo.bib
  architectures:
    foo: {{title: FooNet, cite: [foo2026]}}
  labels: [energy, forces]
  periodic: false
""",
    "mlpbench_foo/conf/architecture/foo.yaml": "name: foo\nbackend: foo\nnative: null\n",
    "mlpbench_foo/conf/preset/foo/tiny.yaml": """# @package _global_
architecture:
  cutoff: 3.0
  n_basis: 8
  ridge: 1.0e-6
""",
}
SUITE = 'from mlpbench.testing import *\n\nARCHITECTURES = ("foo",)\n'
RUN = ("run", "study=outside", "architecture=foo", "dataset.n_train=20", "dataset.n_valid=10", "budget.steps=10",
       "evaluation=none")  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """``command("-m", "mlpbench", ...)`` in a folder of its own, with the package beside the core's."""
    root = tmp_path_factory.mktemp("outside")
    for name, text in PACKAGE.items():
        (root / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "site" / name).write_text(text, encoding="utf-8")
    (root / "wheels").mkdir()
    with zipfile.ZipFile(root / "wheels" / "foo_potentials-1.2-py3-none-any.whl", "w") as wheel:
        for name, text in POTENTIALS.items():
            wheel.writestr(name, text)
    (root / "work").mkdir()
    (root / "work" / "test_foo.py").write_text(SUITE, encoding="utf-8")
    core = Path(__file__).parents[2]
    variables = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(root / "site"), str(core)]),
        "MLPBENCH_HOME": str(root / "home"), "OMP_NUM_THREADS": "1", "COLUMNS": "100",
    }  # fmt: skip

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=root / "work", env={**variables, **more}, capture_output=True, text=True,
            timeout=900, check=False,
        )  # fmt: skip

    return run


def mlpbench(command: Command, *arguments: str) -> str:
    done = command("-m", "mlpbench", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(command: Command) -> Command:
    """The same, with the environment built."""
    missing = command("-m", "mlpbench", *RUN)
    assert missing.returncode == 2
    assert "mlpbench env build foo" in missing.stderr
    mlpbench(command, "env", "build", "foo", "--wheels", "../wheels", "--offline")
    return command


def test_a_trial_of_an_outside_backend_and_its_report(built: Command) -> None:
    said = mlpbench(built, "env", "check", "foo")
    assert "foo-potentials 1.2" in said
    mlpbench(built, *RUN)
    root = Path(built("-c", "import os; print(os.getcwd())").stdout.strip())
    (path,) = (root / "results" / "outside").glob("foo-tiny-*/record.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == "done", record["reason"]
    assert record["provenance"]["backend"]["versions"]["foo-potentials"] == "1.2"
    mlpbench(built, "report", "outside")
    page = (root / "reports" / "outside" / "index.html").read_text(encoding="utf-8")
    assert "FooNet" in page
    assert "BSD-3-Clause" in page
    assert "Foo and Bar 2026, doi:10.1234/foo" in page
    assert "Journal of Examples" in page

    elsewhere = built("-m", "mlpbench", "report", "outside", PYTHONPATH=str(Path(__file__).parents[2]))
    assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr
    page = (root / "reports" / "outside" / "index.html").read_text(encoding="utf-8")
    assert "FooNet" in page
    assert "BSD-3-Clause" in page


def test_its_trial_has_a_process_of_its_own_as_well(built: Command) -> None:
    """Neither a fork of a resident worker nor a fresh process finds the package by itself."""
    done = built("-m", "mlpbench", *RUN, "repetition=1", MLPBENCH_RESIDENT="0")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_authors_run_the_contract_suite(built: Command) -> None:
    some = "whole or gradient or symmetries or batched or refused"
    done = built("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_foo.py", "-k", some)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"\b(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= 6  # as many as the words above match
    assert "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_whole_contract_suite_passes(built: Command) -> None:
    done = built("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_foo.py")
    assert done.returncode == 0, done.stdout + done.stderr
