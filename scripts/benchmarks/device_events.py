"""What a profiler saw on a GPU."""

from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEventAvg


def device_events(averages: EventList) -> list[FunctionEventAvg]:
    """Kernels, copies and fills, by name; not the spans of optimizers and the like, which would count them again."""
    return [event for event in averages if event.device_type == DeviceType.CUDA and not event.is_user_annotation]


def busy_milliseconds(events: list[FunctionEventAvg]) -> float:
    """The time of all of them, one after the other."""
    return sum(event.self_device_time_total for event in events) / 1e3
