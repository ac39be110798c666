"""What the configuration says about a data set: one YAML in ``conf/dataset``, one :class:`DatasetConfig`."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Label = Literal["energy", "forces", "stress"]
UNVERIFIED = "unverified"
ALL = -1  # n_train=all, until the data say how many these are


class _Strict(BaseModel):
    """A node that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitConfig(_Strict):
    """How frames are divided where the data set brings no test files of its own."""

    strategy: Literal["auto", "random", "blocked", "key", "official"] = Field(
        default="auto",
        description="how test frames are held out of the pool: random; blocked (contiguous stretches of a trajectory); "
        "key (by the value of split.key); official (test_path or test_paths only); auto: official where test files are "
        "named, blocked where consecutive frames resemble each other, else random",
    )
    test_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="share of the frames held out as split 'test' (random, blocked)"
    )
    blocks: int = Field(
        default=10, ge=2, description="a trajectory is cut into this many stretches; whole stretches are held out"
    )
    gap: int | None = Field(
        default=None,
        ge=0,
        description="frames dropped beside a held-out stretch; null: until frames stop resembling each other",
    )
    key: str | None = Field(
        default=None, description="for strategy key: an info key of the file, or one of n_atoms, composition, group"
    )
    test_values: list[str] = Field(
        default_factory=list, description="for strategy key: each value becomes a test split of its own"
    )
    seed: int = Field(default=0, ge=0, description="seed of the held-out frames; the same for every repetition")


class Download(_Strict):
    """One file that is fetched once per machine and verified before it is used."""

    url: str = Field(description="address of the file")
    filename: str = Field(description="name in the cache; also what to place there by hand when offline")
    sha256: str = Field(
        default=UNVERIFIED, description="hex digest; 'unverified': recorded at first use and checked from then on"
    )
    sha256_starts: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8,64}$",
        description="first digits of the sha256, where only these are published",
    )
    git_blob: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{40}$",
        description="git's object id of the file, from the repository's own tree",
    )
    size_bytes: int | None = Field(default=None, gt=0, description="size where it is known")
    extract: bool = Field(default=False, description="unpack the zip or tar archive after the check")
    git_folder: str | None = Field(
        default=None,
        description="the item is this folder of the git repository at url, fetched without the rest of it",
    )
    git_commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$", description="of that repository")
    git_tree: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{40}$",
        description="git's object id of that folder at that commit: verifies every file in it",
    )
    address: Literal["verified", "unverified"] = Field(
        default="unverified", description="verified: the publisher's own listing, with a checksum, names the file"
    )

    @field_validator("filename")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePath(value)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError("a filename lies below the data set's folder in the cache")
        return value

    @field_validator("sha256")
    @classmethod
    def _hex(cls, value: str) -> str:
        if value != UNVERIFIED and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError("a sha256 is 64 hexadecimal digits, or the word 'unverified'")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Download:
        if len({self.git_folder is None, self.git_commit is None, self.git_tree is None}) > 1:
            raise ValueError("a folder of a repository needs git_folder, git_commit and git_tree, all three")
        return self


class DatasetConfig(_Strict):
    """A data set: where it lies, what its labels mean, how it is split. Also its entry in the registry."""

    name: str = Field(default="", description="as in every table; {variant} is filled in; a file without one: its stem")
    description: str = Field(default="", description="one line for 'data list'")
    kind: Literal["embedded", "file", "download"] = Field(
        description="embedded: ships with mlpbench; file: yours; download: fetched into the cache"
    )
    variant: str | None = Field(default=None, description="which of the variants (a molecule, an element)")
    variants: list[str] = Field(default_factory=list, description="the variants there are; {variant} stands for one")
    per_variant: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of single variants, where the common ones are null"
    )
    contents: str = Field(default="", description="how many frames of what, for 'data list'")

    n_train: int = Field(
        ge=ALL, description="frames for training, or 'all' that validation leaves; larger subsets contain smaller ones"
    )
    n_valid: int = Field(gt=0, description="frames for validation; labels that were paid for, so they count as cost")

    path: str | list[str] | None = Field(
        default=None,
        description="file, folder or glob (or a list) with the pool that training and validation come from; "
        "relative to the embedded set, the working directory, or the cached download",
    )
    extend_paths: list[str] = Field(
        default_factory=list,
        description="files whose frames extend the pool: test and validation frames and all training subsets that fit "
        "into the pool stay what they were; in the order in which they were added",
    )
    valid_path: str | None = Field(
        default=None, description="file of validation frames, all of them used; null: n_valid frames of the pool"
    )
    test_path: str | None = Field(default=None, description="file of a test split named 'test'")
    test_paths: dict[str, str] = Field(default_factory=dict, description="split name -> file, for several test splits")
    in_distribution: str | None = Field(
        default=None,
        description="the test split from the same distribution as the pool; the others are measured against it",
    )
    pool_indices: str | list[int] | None = Field(
        default=None,
        description="the pool is these frames of path: frame numbers from 0, or a file with one a line",
    )
    valid_indices: str | list[int] | None = Field(
        default=None, description="validation is these frames of path, which leave the pool; likewise"
    )
    test_indices: dict[str, str | list[int]] = Field(
        default_factory=dict, description="split name -> frame numbers into path, or a file of them: official splits"
    )
    index: str = Field(default=":", description="which frames of the pool's file, as ASE slices: ':', '::10', ':5000'")
    format: str = Field(
        default="auto",
        description="layout of the files: extxyz, sgdml (npz), deepmd, fitsnap, mlearn, qm22, qm9, ani, ase, or "
        "one of 'ase info --formats' (vasp-out, cp2k-dcd, db ...); auto: from name and content, and reported",
    )

    labels: list[Label] = Field(default=["energy", "forces"], min_length=1, description="labels that training uses")
    energy_key: str | None = Field(
        default=None, description="name of the energy in the file; null: detected and reported"
    )
    forces_key: str | None = Field(
        default=None, description="name of the forces in the file; null: detected and reported"
    )
    stress_key: str | None = Field(
        default=None, description="name of the stress or virial; null: detected and reported"
    )
    energy_unit: str | None = Field(
        default=None, description="eV, meV, hartree, Ry, kcal/mol, kJ/mol; null: as the file states, else the format's"
    )
    length_unit: str | None = Field(
        default=None, description="Å, bohr, nm; null: as the file states, else the format's"
    )
    forces_unit: str | None = Field(default=None, description="e.g. hartree/bohr; null: energy unit per length unit")
    stress_unit: str | None = Field(
        default=None,
        description="eV/Å³, GPa, kbar, bar, hartree/bohr³; null: as stated, else energy unit per length unit cubed",
    )
    forces_sign: Literal["forces", "gradient"] | None = Field(
        default=None, description="gradient: the file holds dE/dx, minus the forces; null: the format's"
    )
    stress_sign: Literal["tension", "compression"] | None = Field(
        default=None,
        description="tension: positive under tension, ASE's; compression: the opposite; null: the format's",
    )
    stress_order: str | None = Field(
        default=None, description="order of six components, e.g. 'xx yy zz yz xz xy' (ASE's); null: the format's"
    )
    group_key: str | None = Field(
        default=None,
        description="info key that names the trajectory of a frame, for block bootstrap; null: one file, one",
    )
    periodic: bool | None = Field(
        default=None,
        description="override what the file says: false removes cell and periodicity; null: as in the file",
    )

    isolated_atoms: str | dict[str, float] | None = Field(
        default=None, description="eV of free atoms: a JSON or structure file, or element -> eV; null: fitted or mean"
    )
    references: dict[str, str] = Field(
        default_factory=dict, description="further reference files: minimum, hessian, scans (name -> file)"
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="how test frames are held out")
    on_leak: Literal["refuse", "drop", "warn"] = Field(
        default="refuse", description="when a pool frame repeats a test frame: refuse; drop it from the pool; or warn"
    )
    leak_tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="Å; frames that can be superposed with a smaller rms displacement of atoms are the same",
    )
    max_net_force: float = Field(
        default=0.01, gt=0, description="eV/Å per frame; 'data validate' warns when a net force is larger"
    )

    downloads: list[Download] = Field(default_factory=list, description="files of kind download")
    collection: str = Field(default="", description="folder in the download cache; empty: the name")
    level_of_theory: str = Field(default="not stated", description="functional, basis and code behind the labels")
    licence: str = Field(default="not stated", description="under which the data may be used")
    citation: str = Field(default="", description="what to cite")
    homepage: str = Field(default="", description="where the set is described")
    reference_method: dict[str, Any] | None = Field(
        default=None,
        description="a reference code and its settings that repeat these labels, e.g. {code: pyscf, xc: pbe, "
        "basis: def2-svp}; used to label further frames and to time the reference; null: as the file's headers say "
        "(mlpbench data label writes it), else none can be run",
    )
    label_seconds: float | None = Field(
        default=None, gt=0, description="cost of one label, seconds per frame, if known"
    )
    label_noise: dict[str, float] | None = Field(
        default=None,
        description="errors of the labels themselves, metric -> value in its unit, e.g. {force_mae: 0.5} for meV/Å: "
        "the floor of learning curves; null: not known",
    )
    traps: list[str] = Field(default_factory=list, description="what has misled others; printed by 'data describe'")

    @field_validator("n_train")
    @classmethod
    def _some(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be greater than 0, or 'all'")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # An empty mapping in a YAML could not be overridden on Hydra's command line; null can.
        values = {k: {} if v is None and k in ("test_paths", "test_indices", "references") else v
                  for k, v in values.items()}  # fmt: skip
        if values.get("n_train") == "all":
            values["n_train"] = ALL
        variant, variants = values.get("variant"), values.get("variants") or []
        if variant is not None and variant not in variants:
            raise ValueError(f"variant '{variant}' is none of {', '.join(variants) or '(there are no variants)'}")
        if variant is not None:
            for key, value in (values.get("per_variant") or {}).get(variant, {}).items():
                values[key] = value if values.get(key) is None else values[key]
            kept = ("variants", "per_variant")
            values = {k: v if k in kept else _substitute(v, str(variant)) for k, v in values.items()}
        if not values.get("name") and isinstance(values.get("path"), str):
            values["name"] = PurePath(values["path"]).stem.replace("*", "")
        if values.get("kind") == "file" and not values.get("in_distribution"):
            values["in_distribution"] = None if values.get("test_paths") else "test"
        return values

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        if not self.name:
            raise ValueError("name is empty and cannot be taken from path; set dataset.name=...")
        if self.split.strategy == "key" and self.split.key is None:
            raise ValueError("split.strategy=key needs split.key=... (an info key of the file)")
        if self.split.strategy == "official" and not (self.test_path or self.test_paths or self.test_indices):
            raise ValueError("split.strategy=official needs test_path, test_paths or test_indices")
        tests = [*(["test"] if self.test_path else []), *self.test_paths, *self.test_indices]
        for name in tests:
            _check_split_name(name, tests)
        if self.valid_path is not None and self.valid_indices is not None:
            raise ValueError("name validation once: valid_path or valid_indices")
        if self.variants and self.variant is None:
            raise ValueError(f"variant is missing; choose one of {', '.join(self.variants)}")
        if self.kind == "download" and not self.downloads:
            raise ValueError("kind=download needs at least one entry in downloads")
        if self.stress_order is not None and sorted(map(_component, self.stress_order.split())) != sorted(
            ["xx", "yy", "zz", "yz", "xz", "xy"]
        ):
            raise ValueError(f"stress_order '{self.stress_order}' does not name each of xx yy zz yz xz xy once")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {self.labels} name one twice")
        return self


def _check_split_name(name: str, names: list[str]) -> None:
    """A test split becomes a file beside ``train.npz`` and ``valid.npz``, and its name a column."""
    if name in ("train", "valid"):
        raise ValueError(f"a test split cannot be called '{name}': that is what the potential is trained with")
    if not re.fullmatch(r"[\w][\w.+-]{0,59}", name) or name.startswith("md_"):
        raise ValueError(
            f"a test split cannot be called '{name}': use up to 60 letters, digits, '-', '_', '.' and '+' "
            "(names that begin with md_ are those of simulations)"
        )
    if names.count(name) > 1:
        raise ValueError(f"two test splits are called '{name}' (test_path is the split 'test')")


def _component(name: str) -> str:
    return "".join(sorted(name))


def _substitute(value: Any, variant: str) -> Any:
    """``{variant}`` filled in wherever text stands."""
    if isinstance(value, str):
        return value.replace("{variant}", variant)
    if isinstance(value, list):
        return [_substitute(item, variant) for item in value]
    if isinstance(value, dict):
        return {key: _substitute(item, variant) for key, item in value.items()}
    return value
