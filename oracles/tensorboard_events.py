"""An event file by TensorBoard's own writer and protocol buffers.

Writes crates/distil/tests/fixtures/events.out.tfevents.golden, which the test in
crates/distil/src/export/tensorboard.rs makes byte for byte. Field numbers, the order of fields, which
zeros are left out, framing and checksums are the reference's.

Run with tensorboard==2.21.0.
"""

import pathlib

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

FIXTURE = "crates/distil/tests/fixtures/events.out.tfevents.golden"


def text(tag, value):
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]
    )
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    return summary_pb2.Summary.Value(
        tag=tag,
        tensor=tensor_pb2.TensorProto(
            dtype="DT_STRING", tensor_shape=shape, string_val=[value.encode()]
        ),
        metadata=summary_pb2.SummaryMetadata(
            plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_TENSOR
        ),
    )


def scalar(tag, value):
    return summary_pb2.Summary.Value(tag=tag, simple_value=value)


def event(time, step, *values):
    return event_pb2.Event(
        wall_time=time, step=step, summary=summary_pb2.Summary(value=values)
    )


def main():
    events = [
        event_pb2.Event(
            wall_time=1.7e9,
            file_version="brain.Event:2",
            source_metadata=event_pb2.SourceMetadata(writer="distil"),
        ),
        event(1.7e9, 0, text("config", '    [method]\n    name = "kd"')),
        event(1.7e9, 0, scalar("eval/rouge_l", 0.0)),
        event(1.7e9 + 0.5, 1, scalar("train/loss", 2.25), scalar("phases/teacher", 0.1)),
        event(
            1.7e9 + 75.25,
            300,
            scalar("train/loss", float("inf")),
            scalar("train/rate", -1e-30),
        ),
        event(1.7e9 + 75.25, 300, text("samples", "é" * 100)),
    ]
    path = pathlib.Path(__file__).parent.parent / FIXTURE
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for one in events:
            writer.write(one.SerializeToString())
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
