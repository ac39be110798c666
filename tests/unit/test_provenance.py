"""The command that a record keeps is one that can be typed again."""

from mlpbench import records


def test_the_command_is_what_a_user_types(monkeypatch):
    typed = ["-m", "study=first", "architecture=schnet,mace", "dataset.keys=[a, b]"]
    monkeypatch.setattr("sys.argv", ["mlpbench run", *typed, "hydra.mode=MULTIRUN"])
    assert records.command() == "mlpbench run -m study=first architecture=schnet,mace 'dataset.keys=[a, b]'"
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/mlpbench", "report", "first"])
    assert records.command() == "mlpbench report first"


def test_a_command_is_stored_without_what_looks_like_a_secret(monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "hf_0123456789abcdef")
    typed = [
        "run", "+backend.mace.index=https://user:pa55@host/simple", "++architecture.native.api_key=abc",
        "++x.where=hf_0123456789abcdef", "++y.password=${oc.env:PW}", "training.lr=0.01",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["mlpbench", *typed])
    stored = records.command()
    assert "pa55" not in stored
    assert "abc" not in stored.replace("0123456789abcdef", "")
    assert "hf_0123" not in stored
    assert "$HUB_TOKEN" in stored
    assert "${oc.env:PW}" in stored
    assert "training.lr=0.01" in stored
