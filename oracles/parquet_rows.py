"""Makes crates/distil/tests/fixtures/rows_*.parquet: rows of three shapes as other tools write them.

    pip install pyarrow==26.0.1
    python oracles/parquet_rows.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FIXTURES = Path(__file__).resolve().parent.parent / "crates/distil/tests/fixtures"


def main():
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Grüße"}]
    other = {
        "score": pa.array([0.5, None, 1.0]),
        "when": pa.array([0, 1, 2], pa.timestamp("us")),
    }
    table = pa.table(
        {
            "messages": [talk, None, None],
            "instruction": [None, "Add", None],
            "input": [None, "1+1", None],
            "output": pa.array([None, ["2", "two"], None], pa.list_(pa.string())),
            "text": [None, None, "plain"],
            **other,
        }
    )
    for codec in ["snappy", "gzip", "lz4", "none", "zstd"]:
        pq.write_table(table, FIXTURES / f"rows_{codec}.parquet", compression=codec)
    pq.write_table(pa.table(other), FIXTURES / "rows_unknown.parquet", compression="snappy")


if __name__ == "__main__":
    main()
