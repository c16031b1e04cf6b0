"""The known answers of docs/measurements/scene.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.measure import scene_answers
from tools.measure.scene_answers import QUESTIONS

SLOW = ("A1", "A2", "A3", "A4", "A6", "A8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak if name in SLOW else ()) for name in QUESTIONS]
)
@pytest.mark.timeout(1800)
def test_every_answer_is_right(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_DATA", str(data_dir))
    answers = list(QUESTIONS[name]())
    assert answers
    assert [str(answer) for answer in answers if not answer.is_right] == []


def test_a_wrong_answer_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = scene_answers.Answer("A0", "6 / 0", "5 / 0", is_right=False)
    monkeypatch.setattr(scene_answers, "QUESTIONS", {"A0": lambda: iter([wrong])})
    monkeypatch.setattr("sys.argv", ["scene_answers.py", "A0"])
    assert scene_answers.main() == 1
    assert "| A0 | 6 / 0 | 5 / 0 | **no** |" in capsys.readouterr().out
