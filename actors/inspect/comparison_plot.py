"""Draws the accuracy of served versions over sampled tokens, a line a recipe and a band over its seeds."""

from collections.abc import Sequence
from pathlib import Path

from actors.inspect.comparison import Compared, label

Curve = Sequence[tuple[int, float]]


def together(curves: Sequence[Curve]) -> list[tuple[int, float, float, float]]:
    """Tokens with the mean, the lowest and the highest accuracy of all curves, wherever one of them changes."""
    filled = [curve for curve in curves if curve]
    band: list[tuple[int, float, float, float]] = []
    for tokens in sorted({tokens for curve in filled for tokens, _ in curve}):
        values = [at(curve, tokens) for curve in filled]
        band.append((tokens, sum(values) / len(values), min(values), max(values)))
    return band


def at(curve: Curve, tokens: int) -> float:
    """The accuracy that is served after so many tokens."""
    served = [accuracy for start, accuracy in curve if start <= tokens]
    return served[-1] if served else curve[0][1]


def draw(path: Path, found: Sequence[Compared]) -> None:
    """Write an SVG; the same runs give the same file."""
    import matplotlib  # imported here because the import takes a second

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(each.control_of or each.name for each in found))
    with matplotlib.rc_context({"svg.hashsalt": "ratchet"}):
        figure, axes = plt.subplots(figsize=(8, 4.5))
        for each in found:
            band = together([run.curve for run in each.runs.values()])
            if not band:
                continue
            tokens, mean, low, high = zip(*((t / 1e6, *rest) for t, *rest in band), strict=True)
            color = f"C{names.index(each.control_of or each.name)}"
            line = "-" if each.control_of is None else ":"
            axes.step(tokens, mean, where="post", color=color, linestyle=line, marker=".", label=label(each))
            axes.fill_between(tokens, low, high, step="post", color=color, alpha=0.12, linewidth=0)
        axes.set_xlabel("sampled tokens (millions)")
        axes.set_ylabel("accuracy of the served version")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)
