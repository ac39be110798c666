"""Which frames to label next: ways to choose a batch from candidates, and the manifests that say what was chosen.

A study's rounds (:mod:`mlpbench.rounds`) ask a :class:`Acquisition` for the next batch, write its choice down as a
manifest, and train on it; nothing here trains, predicts or reads results.
"""

from mlpbench.acquisition.choosing import (
    NONE,
    Acquisition,
    Candidates,
    Choice,
    Options,
    find_acquisition,
    known_acquisitions,
)
from mlpbench.acquisition.manifest import Manifest, manifest_path, read_manifest, write_manifest

__all__ = [
    "NONE",
    "Acquisition",
    "Candidates",
    "Choice",
    "Manifest",
    "Options",
    "find_acquisition",
    "known_acquisitions",
    "manifest_path",
    "read_manifest",
    "write_manifest",
]
