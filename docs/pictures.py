"""Pictures of docs/ that are drawn from result files, in the look of `irlhf plot`."""

import json
from pathlib import Path
from typing import Any

from irlhf.plot import style

_LOADS = {"score": "score", "sample": "sample, three a prompt", "killed": "sample, killed half way: the second run"}


def memory(result: Path) -> bytes:
    """Return the peak of resident memory, and the time for a row, along the number of rows."""
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    with style.look():
        figure, (peaks, times) = style.panels(2, height=3.8)
        handles = {}
        for (load, label), colour, marker in zip(_LOADS.items(), style.COLOURS, style.MARKERS, strict=False):
            sizes = sorted(int(size) for size in found[load] if size.isdigit())
            each = [found[load][str(size)] for size in sizes]
            drawn: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6, "linewidth": 2}
            (handles[label],) = peaks.plot(sizes, [one["peak_mib"] for one in each], **drawn)
            spent = [1e6 * one["seconds"] / size for one, size in zip(each, sizes, strict=True)]
            times.plot(sizes, spent, **drawn)
        peaks.set(title="peak memory", ylabel="MiB")
        times.set(title="time", ylabel="microseconds a row")
        for axis in (peaks, times):
            axis.set(xscale="log", ylim=(0, None), xlabel="rows")
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.minorticks_off()
        style.legend_under(figure, handles, columns=len(handles))
        return style.rendered(figure, "png")
