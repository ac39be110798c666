"""The registry of metrics: name, symbol, unit, direction and source of each, in one place.

A new metric is an entry in this list; a scorer (:mod:`mlpbench.evaluators`) makes its rows with :func:`metric_row`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from mlpbench.errors import UserError, close_match
from mlpbench.quantities import QUANTITIES, Quantity

HEADLINE = ("force_mae", "energy_mae")  # what a study is judged by: the first that its labels allow
MAIN_ERRORS = ("energy_mae", "force_mae", "stress_mae")


@dataclass(frozen=True)
class Metric:
    """One entry of the registry.

    Attributes:
        name: as in the long table, e.g. ``force_mae``.
        symbol: as a reader sees it, e.g. ``F MAE``.
        unit: as in the long table, e.g. ``meV/Å``; empty for a pure number.
        direction: which way is better.
        group: ``accuracy``, ``physics``, ``md``, ``speed``, ``cost``.
        description: one sentence that defines it.
        source: where the definition comes from.
    """

    name: str
    symbol: str
    unit: str
    direction: Literal["lower", "higher", "none"]
    group: str
    description: str
    source: str = ""


def force_mae_element(symbol: str) -> Metric:
    """The per-element force error, e.g. ``force_mae_O``."""
    return Metric(
        f"force_mae_{symbol}", f"F MAE on {symbol}", "meV/Å", "lower", "accuracy",
        f"Mean of |F_pred − F_ref| over the components of the {symbol} atoms.",
    )  # fmt: skip


_ENTRIES = [
    Metric("energy_mae", "E MAE", "meV/atom", "lower", "accuracy",
           "Mean over frames of |E_pred − E_ref| / N_atoms.", "metrics of MACE, NequIP, SchNetPack"),
    Metric("energy_rmse", "E RMSE", "meV/atom", "lower", "accuracy",
           "Root of the mean over frames of ((E_pred − E_ref) / N_atoms)²."),
    Metric("energy_r2", "E R²", "", "higher", "accuracy",
           "1 − Σ(Δe)² / Σ(e_ref − mean e_ref)², e the energy per atom less the baseline."),
    Metric("energy_mae_total", "E MAE, total", "meV", "lower", "accuracy",
           "Mean over frames of |E_pred − E_ref|, the whole frame.",
           "rMD17 tables (Christensen & von Lilienfeld 2020)"),
    Metric("energy_rmse_total", "E RMSE, total", "meV", "lower", "accuracy",
           "Root of the mean over frames of (E_pred − E_ref)².", "3BPA and AcAc tables (Kovács 2021; Batatia 2022)"),
    Metric("force_mae", "F MAE", "meV/Å", "lower", "accuracy",
           "Mean of |F_pred − F_ref| over all Cartesian components of all atoms."),
    Metric("force_rmse", "F RMSE", "meV/Å", "lower", "accuracy",
           "Root of the mean of (F_pred − F_ref)² over all components of all atoms."),
    Metric("force_r2", "F R²", "", "higher", "accuracy",
           "1 − Σ(ΔF)² / ΣF_ref² over all components (the mean force is zero)."),
    Metric("force_p95", "F 95 %", "meV/Å", "lower", "accuracy",
           "95th percentile of |F_pred − F_ref| over components."),
    Metric("force_p99", "F 99 %", "meV/Å", "lower", "accuracy",
           "99th percentile of |F_pred − F_ref| over components."),
    Metric("force_max", "F max", "meV/Å", "lower", "accuracy",
           "Largest |F_pred − F_ref| of any component."),
    Metric("force_angle", "F angle", "degree", "lower", "accuracy",
           "Mean angle between predicted and reference force vectors, atoms with |F_ref| > 1 meV/Å."),
    Metric("stress_mae", "σ MAE", "GPa", "lower", "accuracy",
           "Mean of |σ_pred − σ_ref| over the six Voigt components."),
    Metric("start_force_mae", "F MAE of the start, its data", "meV/Å", "lower", "accuracy",
           "Force MAE of the potential that the training started from, on the test frames of its own labels."),
    Metric("kept_force_mae", "F MAE, the start's data", "meV/Å", "lower", "accuracy",
           "Force MAE of the fine-tuned potential on the test frames of its start's labels."),
    Metric("forgetting", "forgetting", "", "lower", "accuracy",
           "Force MAE on the start's own test frames after fine-tuning, over that before it; part of it is that "
           "the two levels of theory differ."),
    Metric("frequency_mae", "ν MAE", "cm⁻¹", "lower", "physics",
           "Mean of |ν − ν_DFT| over the 3N−6 harmonic frequencies, each at its own relaxed minimum."),
    Metric("frequency_max", "ν max", "cm⁻¹", "lower", "physics",
           "Largest |ν − ν_DFT| over the 3N−6 harmonic frequencies."),
    Metric("imaginary_modes", "imaginary modes", "", "lower", "physics",
           "Imaginary frequencies (below 10i cm⁻¹) at the geometry relaxed from the DFT minimum, beyond those of DFT: "
           "above 0 it is a saddle, no minimum, and its frequencies are those of a saddle."),
    Metric("minimum_rmsd", "minimum RMSD", "Å", "lower", "physics",
           "RMSD of the relaxed geometry from the DFT minimum, best superposition, no atom exchanged."),
    Metric("scan_rmse_<name>", "scan <name>", "meV", "lower", "physics",
           "RMSE of the energy along the DFT scan <name>, each curve relative to the frame where DFT is lowest."),
    Metric("barrier_error_<name>", "barrier <name>", "meV", "none", "physics",
           "Highest energy along the scan <name> above the frame where DFT is lowest, less the same of DFT."),
    Metric("lattice_constant_error", "a₀ error", "%", "lower", "physics",
           "|a − a_ref| / a_ref of the cubic crystal, a where the energy is lowest."),
    Metric("elastic_mae", "C_ij MAE", "GPa", "lower", "physics",
           "Mean of |C − C_ref| over C11, C12 and C44, from stress differences at ±0.5 % strain, atoms relaxed."),
    Metric("elastic_error_<name>", "<name>", "GPa", "none", "physics",
           "Elastic constant <name> less the reference's."),
    Metric("force_consistency", "F = −∇E", "", "lower", "physics",
           "|F + ∇E| over |F|, ∇E by central differences of the energy, norms over all components, float64."),
    Metric("rotation_error", "rotation", "meV/Å", "lower", "physics",
           "Largest difference of a force component between F(R·x) and R·F(x), float64."),
    Metric("translation_error", "translation", "meV/Å", "lower", "physics",
           "Largest difference of a force component after a shift of all atoms, float64."),
    Metric("permutation_error", "permutation", "meV/Å", "lower", "physics",
           "Largest difference of a force component after a change of the order of the atoms, float64."),
    Metric("extensivity_error", "extensivity", "meV", "lower", "physics",
           "|E(two copies far apart) − 2·E(one)|, float64."),
    Metric("cutoff_jump", "cutoff jump", "meV/Å", "lower", "physics",
           "Largest change of a force component beyond what its slope explains, as an atom passes the cutoff."),
    Metric("md_survival", "survival", "", "higher", "md",
           "Kaplan–Meier share of the replicas that are sound at the planned length; wall-clock stops are censored.",
           "Kaplan & Meier 1958; tests after Fu et al. 2022"),
    Metric("md_stable_time", "stable time", "ps", "higher", "md",
           "Restricted mean: area under the survival curve up to the planned length; interval: area under its limits.",
           "Irwin 1949; limits: Fay, Brittain & Proschan 2013"),
    Metric("md_temperature_error", "temperature error", "%", "lower", "md",
           "|⟨T⟩ − T₀| / T₀ over the second half of each replica's sound frames."),
    Metric("nve_drift", "NVE drift", "meV/atom/ps", "lower", "md",
           "Root mean square over replicas of the slope of the total energy at constant energy, runs of 1 ps or more; "
           "the interval accounts for the fluctuation's autocorrelation, and reaches 0 where that explains the slope.",
           "Newey & West 1987 for the error of a slope"),
    Metric("nve_drift_ratio", "NVE drift ratio", "", "lower", "md",
           "Root mean square over replicas of (drift over the run) / std(kinetic energy); 1 is the limit, "
           "and nothing is decided where the interval holds it."),
    Metric("nve_order", "NVE order", "", "none", "md",
           "Slope of log(energy fluctuation) against log(time step); 2 for velocity Verlet on a smooth potential."),
    Metric("hr_mae", "h(r) error", "", "lower", "md",
           "∫|h − h_ref|dr of the distribution of all interatomic distances, 500 bins to 10 Å.", "Fu et al. 2022"),
    Metric("rdf_error", "RDF error", "%", "lower", "md",
           "100·∫|g_ref − g|dr / ∫|g_ref − 1|dr, mean over pairs of elements."),
    Metric("adf_error", "angle error", "%", "lower", "md",
           "Wasserstein-1 distance of the bond angles from the reference's, over that of sin θ."),
    Metric("vdos_error", "VDOS error", "%", "lower", "md",
           "Wasserstein-1 distance of the vibrational spectra over the reference's width, up to 99.9 % of its power."),
    Metric("diffusion", "diffusion", "Å²/ps", "none", "md",
           "Slope of MSD/6t at constant energy or under a thermostat that does not damp it, 8 or more blocks of 5 ps; "
           "of the periodic cell, the finite-size correction 2.837·kT/(6πηL) not added.", "Yeh & Hummer 2004"),
    Metric("own_trajectory_force_mae", "F MAE, own MD", "meV/Å", "lower", "md",
           "Force MAE on frames of the potential's own trajectory, labelled by the reference method."),
    Metric("own_trajectory_energy_mae", "E MAE, own MD", "meV/atom", "lower", "md",
           "Energy MAE per atom on frames of the potential's own trajectory, labelled by the reference method."),
    Metric("death_force_mae", "F MAE before death", "meV/Å", "lower", "md",
           "Force MAE on the last sound frame of replicas that died, labelled by the reference method."),
    Metric("death_energy_mae", "E MAE before death", "meV/atom", "lower", "md",
           "Energy MAE per atom on the last sound frame of replicas that died, labelled by the reference method."),
    Metric("us_per_atom", "time per atom", "µs", "lower", "speed",
           "Wall time of one energy-and-forces call of the package's own calculator, over atoms; "
           "neighbour list included, inputs changed at every call, median over blocks."),
    Metric("ms_per_call", "time per call", "ms", "lower", "speed",
           "The same call, not divided by atoms."),
    Metric("ms_neighbours", "neighbour list", "ms", "lower", "speed",
           "The part of one call before the forward pass: the package's neighbour list and the tensors made from it."),
    Metric("throughput", "throughput", "frames/s", "higher", "speed",
           "Frames per second, energies and forces, in the batch size that was fastest."),
    Metric("ms_per_md_step", "MD step", "ms", "lower", "speed",
           "Wall time of one velocity-Verlet step of one replica in ASE with the package's own calculator."),
    Metric("ns_per_day", "MD speed", "ns/day", "higher", "speed",
           "Simulated time per day of wall time at the stated time step, one replica."),
    Metric("timing_noise", "timing noise", "%", "lower", "speed",
           "95 % half-width of the log-ratio of two interleaved timings of the same thing (A/A), in the same run."),
    Metric("other_load", "other load", "cores", "lower", "speed",
           "CPU cores that other processes kept busy on average while this was timed."),
    Metric("peak_memory", "memory", "MB", "lower", "speed",
           "Largest resident memory of the worker up to the end of the timing; on a GPU its memory there (10⁶ bytes)."),
    Metric("prepare_seconds", "preparation", "s", "lower", "speed",
           "From the loaded weights to the first answer of a deployment: compilation, warm kernels; paid once."),
    Metric("path_energy_difference", "ΔE to eager", "meV/atom", "lower", "speed",
           "Largest difference of a deployment's energies from those of the eager path, over the timed frames."),
    Metric("path_force_difference", "ΔF to eager", "meV/Å", "lower", "speed",
           "Largest difference of a force component of a deployment from the eager path, over the timed frames."),
    Metric("atom_steps_per_second", "atoms·steps/s", "1/s", "higher", "speed",
           "Atoms times calls per second at the size where that is highest, of the growing systems."),
    Metric("plateau_atoms", "plateau", "atoms", "lower", "speed",
           "Smallest of the growing systems with 90 % of the highest rate; none where the rate rises to the end."),
    Metric("memory_per_atom", "memory per atom", "kB", "lower", "speed",
           "Slope of the largest memory over the growing systems (10³ bytes); without what the process takes anyway."),
    Metric("hours_per_ns", "1 ns of 1,000 atoms", "h", "lower", "speed",
           "Hours of 1 ns of 1,000 atoms with one call a step, from the growing systems; without the integrator."),
    Metric("engine_overhead", "overhead", "ms", "lower", "speed",
           "MD step of an engine less one bare call of the ASE calculator on the same system; below 0: the engine "
           "saves what the calculator does at every call, such as its neighbour list."),
    Metric("engine_energy_difference", "ΔE to ASE", "meV/atom", "lower", "speed",
           "Largest difference of the potential energy from ASE's along 20 steps of constant energy, same start."),
    Metric("max_atoms", "largest system", "atoms", "higher", "speed",
           "Largest system computed within the memory and time limits of the scaling series; the limit is recorded."),
    Metric("reference_seconds_per_frame", "reference", "s", "lower", "speed",
           "Wall time of energy and forces of one frame with the reference method, median."),
    Metric("threads", "threads", "", "none", "speed", "CPU threads that the potential was timed on."),
    Metric("reference_threads", "reference threads", "", "none", "speed",
           "CPU threads that the reference method was timed on, for the speed-up beside it."),
    Metric("speedup_vs_reference", "speed-up", "×", "higher", "speed",
           "Reference seconds per frame over seconds per call of the potential, on the same frames."),
    Metric("breakeven_steps", "break-even", "MD steps", "lower", "speed",
           "MD steps after which labels and training are paid back: (labels × reference time + training time) / "
           "(reference time − time of the potential's MD step)."),
    Metric("train_seconds", "training", "s", "lower", "cost", "Wall time of the training, validation included."),
    Metric("train_device_seconds", "training, device", "s", "lower", "cost",
           "Wall time of the training times the number of devices (or CPU threads) it held."),
    Metric("train_peak_memory", "training memory", "MB", "lower", "cost",
           "Largest resident memory of the worker process up to the end of training (10⁶ bytes)."),
    Metric("train_energy", "training energy", "Wh", "lower", "cost",
           "Energy that the GPU used during training, by its own counter (NVML); not known for CPUs."),
    Metric("n_parameters", "parameters", "", "none", "cost", "Trainable parameters."),
    Metric("best_epoch", "best epoch", "", "none", "cost", "Epoch of the checkpoint with the lowest validation loss."),
    Metric("best_step", "best step", "", "none", "cost", "Optimiser steps taken up to the end of that epoch."),
]  # fmt: skip


def _of_quantity(quantity: Quantity) -> list[Metric]:
    """The potential's own value of a scalar, and its error."""
    text = {
        "scalar": "potential less reference", "mae": "mean absolute difference",
        "rmse": "root mean square difference", "kendall": "agreement with the reference",
    }[quantity.kind]  # fmt: skip
    direction: Literal["lower", "higher", "none"] = (
        "none" if quantity.kind == "scalar" else "higher" if quantity.kind == "kendall" else "lower"
    )
    error = Metric(f"{quantity.name}_error", f"{quantity.symbol}, error", quantity.unit, direction, "physics",
                   f"{quantity.description} Here: {text}.", quantity.source)  # fmt: skip
    own = Metric(
        quantity.name, quantity.symbol, quantity.unit, "none", "physics", quantity.description, quantity.source
    )
    return [own, error] if quantity.kind == "scalar" else [error]


METRICS: dict[str, Metric] = {
    entry.name: entry for entry in (*_ENTRIES, *(m for q in QUANTITIES.values() for m in _of_quantity(q)))
}

# Families whose members depend on the data: force_mae_<element>, scan_rmse_<scan> ...
_FAMILIES = {"force_mae_": force_mae_element}


def metric(name: str) -> Metric:
    """The entry for ``name``, members of families included.

    Raises:
        UserError: there is none; the message has the close match.
    """
    if name in METRICS:
        return METRICS[name]
    for prefix, make in _FAMILIES.items():
        if name.startswith(prefix):
            return make(name.removeprefix(prefix))
    for known in METRICS:  # families registered as e.g. "scan_rmse_<name>"
        if known.endswith("_<name>") and name.startswith(known.removesuffix("<name>")):
            entry = METRICS[known]
            part = name.removeprefix(known.removesuffix("<name>"))
            return Metric(name, entry.symbol.replace("<name>", part), entry.unit, entry.direction, entry.group,
                          entry.description.replace("<name>", part), entry.source)  # fmt: skip
    raise UserError(f"there is no metric '{name}'", close_match(name, METRICS))


def metric_row(
    split: str, name: str, value: float, n: int = 1, lower: float | None = None, upper: float | None = None
) -> dict[str, Any]:
    """One row of the long table, with the registered unit of ``name``.

    Args:
        split: test split, or what stands for one (``md_500K``); empty where the metric belongs to none.
        name: of the metric.
        value: in its unit.
        n: what the interval rests on: frames, replicas, timed blocks.
        lower: lower end of the 95 % interval; None or not finite: there is none.
        upper: upper end, likewise.
    """

    def bound(end: float | None) -> float | None:
        """An end of the interval; None where it is not finite."""
        return None if end is None or not math.isfinite(end) else float(end)

    return {
        "split": split, "metric": name, "value": float(value), "unit": metric(name).unit,
        "lower": bound(lower), "upper": bound(upper), "n": n,
    }  # fmt: skip


def headline(present: Collection[str]) -> str:
    """The metric that decides: the force error, or the energy error where there are no forces.

    Args:
        present: names of the metrics that a study (or its validation frames) has.
    """
    return next((name for name in HEADLINE if name in present), HEADLINE[-1])


def error_word(name: str) -> str:
    """What a headline error is of: ``force`` or ``energy``."""
    return name.partition("_")[0]


def is_linear(name: str) -> bool:
    """Whether a metric is averaged as it is: a share or a coefficient, of which a ratio has no meaning."""
    return name.endswith(("survival", "_r2"))
