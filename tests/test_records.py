"""Record tables: what goes in comes out, equal rows give equal bytes, other tables are refused by name."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iy import records
from iy.errors import UserError

VALUES = {
    pa.string(): st.text(max_size=20),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.list_(pa.float32()): st.lists(st.floats(width=32, allow_nan=False), max_size=4),
    pa.list_(pa.string()): st.lists(st.text(max_size=5), max_size=3),
}


def rows_of(schema):
    row = st.fixed_dictionaries({field.name: st.none() | VALUES[field.type] for field in schema})
    return st.lists(row, max_size=4)


@pytest.mark.parametrize("schema", [records.PHOTO, records.PAIR], ids=["photo", "pair"])
def test_rows_survive(schema, tmp_path):
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(rows_of(schema))
    def check(rows):
        records.write(tmp_path / "a.parquet", rows, schema)
        records.write(tmp_path / "b.parquet", [dict(reversed(row.items())) for row in rows], schema)
        assert records.read(tmp_path / "a.parquet", schema) == rows
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()

    check()


def test_missing_columns_are_null_and_unknown_ones_an_error(tmp_path):
    records.write(tmp_path / "a.parquet", [{"id": "x", "verdict": records.ACCEPTED}], records.PHOTO)
    [row] = records.read(tmp_path / "a.parquet", records.PHOTO)
    assert row["id"] == "x" and row["box"] is None and set(row) == set(records.PHOTO.names)
    with pytest.raises(AssertionError, match="colour"):
        records.write(tmp_path / "b.parquet", [{"colour": 1}], records.PHOTO)
    assert not (tmp_path / "b.parquet").exists()


@given(st.integers(0, 40), st.integers(0, 40), st.sets(st.integers(0, 36)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_some_rows_of_a_table_in_several_pieces_are_those_rows(tmp_path, start, more, numbers):
    rows = [{name: None for name in records.PHOTO.names} | {"id": str(k), "embedding": [float(k)]} for k in range(37)]
    path = tmp_path / "t.parquet"
    records.stream(path, [rows[:5], [], rows[5:20], rows[20:21], rows[21:]], records.PHOTO)
    assert records.read(path, records.PHOTO) == rows
    assert records.rows(path, records.PHOTO, start, start + more) == rows[start : start + more]
    assert records.picked(path, records.PHOTO, list(numbers)) == [rows[k] for k in sorted(numbers)]
    ids = [row for some in records.batches(path, records.PHOTO, ["id"], size=4) for row in some]
    assert ids == [{"id": row["id"]} for row in rows]
    some = records.read(
        path, records.PHOTO, ["id"], pc.field("id").isin(pa.array([str(k) for k in numbers], pa.string()))
    )
    assert some == [{"id": str(k)} for k in sorted(numbers)]


def test_rejected_rows_stay_but_are_not_accepted():
    rows = [
        {"id": "a", "verdict": records.ACCEPTED},
        {"id": "b", "verdict": records.REJECTED},
        {"id": "c", "verdict": None},
    ]
    assert [row["id"] for row in records.accepted(rows)] == ["a"]


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match="does not exist: run the stage"):
        records.read(path, records.PHOTO)
    records.write(path, [], records.PAIR)
    with pytest.raises(UserError, match="iy.record=pair, expected photo"):
        records.read(path, records.PHOTO)
    newer = records.PHOTO.with_metadata({"iy.record": "photo", "iy.version": "99"})
    records.write(path, [], newer)
    with pytest.raises(UserError, match="iy.version=99, expected 3"):
        records.read(path, records.PHOTO)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="not a readable parquet table"):
        records.read(path, records.PHOTO)
