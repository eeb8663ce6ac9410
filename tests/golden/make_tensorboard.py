"""An event file made with TensorBoard's own protobufs and record writer: writes tensorboard.events beside this file.

Needs `pip install tensorboard`, nothing else.
"""
import pathlib

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

with open(pathlib.Path(__file__).with_name("tensorboard.events"), "wb") as file:
    writer = RecordWriter(file)
    writer.write(Event(wall_time=1700000000.25, file_version="brain.Event:2").SerializeToString())
    for step, scalars in [(1, {"train/loss": 3.5, "train/learning_rate": 5e-4}), (300, {"validation/loss": 0.125})]:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(scalars.items())]
        writer.write(Event(wall_time=1700000000.5 + step, step=step, summary=Summary(value=values)).SerializeToString())
    writer.flush()
