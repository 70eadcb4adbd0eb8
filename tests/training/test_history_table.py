from tests.training.test_champion import entry
from training.history_table import as_text


def test_every_entry_is_a_line_and_the_one_in_service_is_marked():
    facts = {"code": "a" * 40 + "+changes", "data_sha256": "b" * 64, "promoted_by": "me@here"}
    first, second, third = as_text([entry(1), entry(2, rolled_back_to=1, **facts)]).splitlines()
    assert first.split()[:3] == ["number", "promoted", "(UTC)"]
    assert second.split() == ["1", "2026-01-01", "00:00:00", "0.400", "0.900", "–", "–", "–", "runs/1"]
    assert third.startswith("→  2 (again 1)") and "aaaaaaaa+  bbbbbbbb  me@here  runs/2" in third
    assert len({line.index("runs/") for line in (second, third)}) == 1
