"""TensorBoard event files of a run that continues: what an interrupted run wrote after its checkpoint goes."""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from data.files import write_atomically

EVENT_FILES = "events.out.tfevents.*"
EVALUATION_TAGS = ("eval/", "curves/")


def drop_later_points(folder: Path, step: int, evaluated_step: int) -> None:
    """Removes the points after `step`, and those of evaluations after `evaluated_step`, from the curves in `folder`.

    TensorBoard itself only passes over points after a restart's first step: not over an evaluation that is repeated at
    the step of the checkpoint. A record that was cut off goes too.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # late: takes a second
    from tensorboard.summary.writer.record_writer import RecordWriter

    def stays(event: Event) -> bool:
        is_evaluation = any(value.tag.startswith(EVALUATION_TAGS) for value in event.summary.value)
        return event.step <= (evaluated_step if is_evaluation else step)

    for path in sorted(folder.glob(EVENT_FILES), reverse=True):
        records = [*RawEventFileLoader(str(path)).Load()]
        events = [Event.FromString(record) for record in records]
        kept = [record for record, event in zip(records, events, strict=True) if stays(event)]
        if len(kept) == len(records) and any(event.step > 0 for event in events):
            return  # files before this one were put right when it was begun

        def write(file, kept=kept) -> None:
            writer = RecordWriter(file)
            for record in kept:
                writer.write(record)

        if len(kept) < len(records):
            write_atomically(path, write)
