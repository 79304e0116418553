"""A picture of what a request's CPU time is spent on."""

import io

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def draw(sizes: dict[str, dict[str, float]]) -> str:
    """An SVG text: for each size a bar per part. sizes: number of items -> part -> ms."""
    parts = sorted(
        {part for one in sizes.values() for part in one}, key=lambda part: sizes[next(iter(sizes))].get(part, 0.0)
    )
    figure = Figure(figsize=(7.0, 0.35 * len(parts) + 1.0), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    height = 0.8 / len(sizes)
    for number, (name, spent) in enumerate(sizes.items()):
        places = [place + 0.4 - (number + 0.5) * height for place in range(len(parts))]
        total = sum(spent.values())
        label = f"{int(name):,} items: {total:.2f} ms"
        axes.barh(places, [spent.get(part, 0.0) for part in parts], height, label=label)
    axes.set_yticks(range(len(parts)), parts)
    axes.set_xlabel("CPU time of a request, ms")
    axes.legend(loc="lower right")
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "serving"}):  # texts as texts, and repeatable
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
