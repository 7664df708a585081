"""Files with a JSON object a line, cut at a step."""

from engine.run.step_lines import StepLines, read_step_lines


def test_goes_on_after_the_step_and_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "curves.jsonl"
    first = StepLines(path, 0)
    for step in (10, 20, 30):
        first.append({"step": step, "loss": step / 8})
    path.write_text(path.read_text() + '{"step": 40, "lo')
    for damage in ("5\n", "{}\n", "\xff\n"):
        path.write_bytes(path.read_bytes() + damage.encode("latin-1"))
    again = StepLines(path, 20)
    assert [line["step"] for line in again.kept] == [10, 20]
    again.append({"step": 30, "loss": 0.1})
    assert read_step_lines(path) == [
        {"step": 10, "loss": 1.25},
        {"step": 20, "loss": 2.5},
        {"step": 30, "loss": 0.1},
    ]
