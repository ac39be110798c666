"""What a training cost."""

from __future__ import annotations

from mlpbench.metrics.metric import Metric

METRICS = [
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
