"""The command that a record keeps is one that can be typed again."""

from mlpbench import provenance


def test_the_command_is_what_a_user_types(monkeypatch):
    typed = ["-m", "study=first", "architecture=schnet,mace", "dataset.keys=[a, b]"]
    monkeypatch.setattr("sys.argv", ["mlpbench run", *typed, "hydra.mode=MULTIRUN"])
    assert provenance.command() == "mlpbench run -m study=first architecture=schnet,mace 'dataset.keys=[a, b]'"
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/mlpbench", "report", "first"])
    assert provenance.command() == "mlpbench report first"
