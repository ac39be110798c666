"""Speed of a potential, and of the reference method beside it."""

from __future__ import annotations

from mlpbench.metrics.metric import Metric

METRICS = [
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
    Metric("max_atoms", "largest system", "atoms", "higher", "speed",
           "Largest system computed within the memory and time limits of the scaling series; the limit is recorded."),
    Metric("reference_seconds_per_frame", "reference", "s", "lower", "speed",
           "Wall time of energy and forces of one frame with the reference method, median."),
    Metric("speedup_vs_reference", "speed-up", "×", "higher", "speed",
           "Reference seconds per frame over seconds per call of the potential, on the same frames."),
    Metric("breakeven_steps", "break-even", "MD steps", "lower", "speed",
           "MD steps after which labels and training are paid back: (labels × reference time + training time) / "
           "(reference time − time of the potential's MD step)."),
]  # fmt: skip
