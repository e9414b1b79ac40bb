"""What counts as a change of chain code."""

from penstock.chains.watch import snapshot


def test_a_changed_a_new_and_a_gone_file_are_seen_and_what_is_no_code_is_not(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    chain = package / "chain.py"
    chain.write_text("a")
    before = snapshot([str(tmp_path)])
    assert {str(chain)} == before.keys()
    for name in ("__pycache__", ".venv", "node_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.py").write_text("x")
    (package / "notes.txt").write_text("x")
    assert before == snapshot([str(tmp_path)])
    chain.write_text("ab")
    assert before != snapshot([str(tmp_path)])
    chain.unlink()
    assert {} == snapshot([str(tmp_path), str(tmp_path / "nowhere")])
