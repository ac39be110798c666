"""Tables of the section on speed for runs at the size of production: engines, growing systems, cost of a run."""

from __future__ import annotations

import pandas as pd

from mlpbench.evaluators.production import ATOMS, Growth
from mlpbench.metrics import metric
from mlpbench.numbers import listing, number, plural
from mlpbench.report import facts
from mlpbench.report.costs import load_prices
from mlpbench.report.estimates import Estimate
from mlpbench.report.section import Block, Cell, Column, Details, Table, mean_cell
from mlpbench.report.timings import Way
from mlpbench.study.study import Study, rows_of, select, unique

NAMES = {"ase": "ASE", "torchsim": "torch-sim", "lammps": "LAMMPS", "ipi": "i-PI"}
UNPROVEN = "unproven: a LAMMPS of the user's own, which mlpbench's authors could not run"


def engine_tables(study: Study, dataset: str) -> list[Block]:
    """Molecular dynamics of the same potential in several engines, a table a machine; what could not run on demand."""
    table = select(study.speed.merge(study.table[["trial", "candidate"]], on="trial"), dataset=dataset)
    table = table[(table["engine"] != "") & table["candidate"].isin(study.lines(dataset))]
    if table.empty:
        return []
    table = table.assign(machine=[facts.hardware(row) for row in rows_of(table)])
    blocks: list[Block] = []
    for index, (machine, here) in enumerate(table.groupby("machine", sort=False)):
        done, missing = here[here["status"] == "done"], here[here["status"] != "done"]
        if len(done):
            blocks.append(_engines(study, dataset, str(machine), done, index))
        rows = [
            [
                Cell(row["candidate"]),
                Cell(_engine(row)),
                Cell(str(row["ranks"]), int(row["ranks"])),
                Cell(row["reason"]),
            ]
            for row in rows_of(missing.drop_duplicates(["candidate", "engine", "means", "ranks"]))
        ]
        if rows:
            columns = [Column("Potential", numeric=False), Column("engine", numeric=False), Column("processes"),
                       Column("why not", numeric=False)]  # fmt: skip
            caption = f"Engines that were asked for, and are not in the table, on {machine}."
            name = f"engines-missing-{dataset}-{index}"
            blocks.append(Details(f"Engines without a time ({len(rows)})", [Table(name, caption, columns, rows)]))
    return blocks


def _engine(row: dict[str, object] | pd.Series) -> str:
    means = str(row["means"])
    return f"{NAMES[str(row['engine'])]}, {means}" if means else NAMES[str(row["engine"])]


def _engines(study: Study, dataset: str, machine: str, done: pd.DataFrame, index: int) -> Table:
    rows = []
    keys = ["candidate", "engine", "means", "ranks", "n_atoms", "trial"]
    for _, part in done.groupby(keys, sort=False):
        head = part.iloc[0]
        known = {str(row["metric"]): row for row in rows_of(part)}
        notice = str(head["notice"] or "")
        unproven = UNPROVEN if "engine.lammps.command" in str(head["means"]) else ""
        note = "; ".join(filter(None, [unproven, notice]))
        rows.append([
            Cell(str(head["candidate"])),
            Cell(_engine(head), mark="warn" if note else "", note=note),
            Cell(str(head["ranks"]), int(head["ranks"])), Cell(number(head["n_atoms"]), float(head["n_atoms"])),
            *(mean_cell(_estimate(known.get(name))) for name in ("ms_per_md_step", "ns_per_day", "ms_per_call")),
            mean_cell(_estimate(known.get("engine_overhead"))),
            mean_cell(_estimate(known.get("engine_energy_difference"))),
        ])  # fmt: skip
    columns = [
        Column("Potential", numeric=False), Column("engine", numeric=False),
        Column("processes", note="of MPI, each with a part of the atoms"), Column("atoms"),
        *(Column(metric(name).symbol, metric(name).unit, metric(name).description)
          for name in ("ms_per_md_step", "ns_per_day")),
        Column("bare call", "ms", "energy and forces by the package's ASE calculator on the same system"),
        Column("overhead", "ms", metric("engine_overhead").description),
        Column("ΔE to ASE", "meV/atom", metric("engine_energy_difference").description),
    ]  # fmt: skip
    step = study.record[str(done["trial"].iloc[0])]["tasks"]["speed"]["values"]["timestep_fs"]
    caption = (
        f"The same potential in engines of molecular dynamics on {machine}, {dataset}: same start, a time step of "
        f"{number(step)} fs, a Langevin bath of 10/ps; medians with intervals. Before anything was timed, 20 steps of "
        "constant energy had to give the energies of ASE."
    )
    return Table(f"engines-{dataset}-{index}", caption, columns, rows, headers=2)


def _estimate(row: dict[str, object] | None) -> Estimate | None:
    if row is None:
        return None
    low, high = (float("nan") if row[end] is None else float(str(row[end])) for end in ("lower", "upper"))
    return Estimate(float(str(row["value"])), low, high, 1, "frames" if low == low else "none")


def production_blocks(study: Study, dataset: str, ran: list[Way]) -> list[Block]:
    """What growing systems say: where a machine is filled, memory, and the cost of a run; extrapolated cells marked."""
    prices, rows, sentences = load_prices(), [], []
    for way in ran:
        values = study.record[way.trials[0]]["tasks"]["speed"]["values"]
        own = way.deployment == "eager" and way.dtype == study.record[way.trials[0]]["config"]["dtype"] and not way.tf32
        series = Growth.of(values["scaling"]) if own else None
        if series is None or len(series.atoms) < 2:
            continue
        hours, far = series.run_hours(values["timestep_fs"]), series.seconds_at(ATOMS)[1]
        rate = prices.per_second(way.on_gpu, way.threads)
        star, note = (" (extrapolated)", f"from {number(series.atoms[-1])} atoms") if far else ("", "")
        memory = series.memory_per_atom_kb
        rows.append([
            Cell(way.candidate), Cell(way.machine), Cell(number(series.rate), series.rate),
            Cell("not reached", float("inf"), note=f"the rate still rises at {number(series.atoms[-1])} atoms")
            if series.plateau is None else Cell(number(series.plateau), series.plateau),
            Cell("–") if memory is None else Cell(number(memory), memory),
            Cell(number(series.atoms[-1]), series.atoms[-1], note=series.ended),
            Cell(number(hours) + star, hours, "", "warn" if far else "", note),
            Cell("–", note="no price for this hardware in conf/prices.yaml") if rate is None
            else Cell(number(3600 * hours * rate) + star, 3600 * hours * rate, "", "warn" if far else "", note),
        ])  # fmt: skip
        if series.plateau is not None:
            sentences.append(f"{way.candidate} at {plural(round(series.plateau), 'atom')}")
    if not rows:
        return []
    columns = [
        Column("Potential", numeric=False), Column("hardware", numeric=False),
        *(Column(metric(name).symbol, metric(name).unit, metric(name).description)
          for name in ("atom_steps_per_second", "plateau_atoms", "memory_per_atom")),
        Column("largest", "atoms", "that was computed; hover: what ended the series"),
        Column(metric("hours_per_ns").symbol, "h", metric("hours_per_ns").description),
        Column(metric("hours_per_ns").symbol, prices.currency, prices.source or "with the prices of conf/prices.yaml"),
    ]  # fmt: skip
    step = number(study.record[ran[0].trials[0]]["tasks"]["speed"]["values"]["timestep_fs"])
    caption = (
        f"Growing systems, {dataset}, eager, up to the limits of memory and time: rate, memory, and the cost of 1 ns "
        f"of 1,000 atoms at {step} fs. Marked cells are extrapolated with the rate of the largest size."
    )
    machines = unique([way.machine for way in ran])
    told = f" {listing(sentences)} reach the plateau of {listing(machines)}." if sentences else ""
    return [Table(f"production-{dataset}", caption + told, columns, rows, headers=2)]
