"""Turns a run's events into sentences for people."""

from collections.abc import Mapping

from rich.markup import escape

from actors.versions.lineage import FELL
from core.arrival_proof import COEFFICIENT_SLACK
from core.messages import Event

STYLES = {"promote": "green", "reject": "red", "hold": "yellow", "base": "cyan", "rolled back": "magenta"}


def _standing(detail: Mapping[str, object]) -> str:
    """Empty for events of older runs, which have no standing."""
    return f" ({detail['standing']})" if "standing" in detail else ""


def _signed(detail: Mapping[str, object]) -> str:
    return escape(f"by {detail['by']}: {detail['reason']}")


def _swallowed(arrived: float | None) -> str:
    if arrived is None or arrived > 1 - COEFFICIENT_SLACK:
        return ""
    return (
        f" [yellow](only {arrived:.0%} of its step is left in the engine's precision; model.engine_dtype=float32 keeps "
        "all, a larger rank or alpha more)[/]"
    )


def _kept(found: Mapping[str, float]) -> str:
    """One task of the event `other_tasks`."""
    change = f"{100 * found['before']:.1f} -> {100 * found['after']:.1f}%"
    lost = " [red](lost)[/]" if found["high"] < 0 else ""
    return f"{escape(str(found['task']))} {change} of {found['n']}{lost}"


def sentence(event: Event) -> str | None:
    """One event as a sentence with Rich markup; None for an event that people do not need."""
    d = event.detail
    match event.kind:
        case "drawn":
            return f"window {d['window']}: {d['prompts']} prompts, {d['examples']} examples to train on"
        case "empty":
            return f"window {d['window']} had no example to learn from, so it makes no version"
        case "voted":
            left_out = f", {d['left_out']} left out" if d["left_out"] else ""
            return f"people cast {d['votes']} votes{left_out}; {d['resettled']} prompts settled again"
        case "anchored":
            made = f"{d['anchors']} anchors made of the base's answers to {d['questions']} held-out questions"
            return f"{made}; [yellow]{escape(d['few'])}[/]" if d["few"] else made
        case "other_tasks":
            return f"v{d['version']} on tasks that are not learned: {'; '.join(map(_kept, d['tasks']))}"
        case "published":
            return f"v{d['version']} trained: loss {d.get('loss', 0):.3f}, {d.get('seconds', 0):.1f} s"
        case "proven":
            return f"v{d['version']} proven in every replica; collectors sample from it{_swallowed(d.get('arrived'))}"
        case "decided":
            style = STYLES.get(d["verdict"], "white")
            return f"v{d['version']} [{style}]{d['verdict']}[/]{_standing(d)}: {escape(d['reason'])}"
        case "crowned":
            return f"v{d['version']} is better{_standing(d)}: the new champion"
        case "rolled_back":
            return f"v{d['version']} [red]rolled back[/] {_signed(d)}; v{d['serve']} is served"
        case "promoted_by_hand":
            return f"v{d['version']} [green]promoted by hand[/] {_signed(d)}"
        case "serving_held":
            return f"[yellow]v{d['serve']} is held[/] {_signed(d)}"
        case "serving_released":
            return f"serving is no longer held; v{d['serve']} is served"
        case "alert":
            return f"[red]alert[/] {escape(d['reason'])}"
        case "rejected" if d["reason"] in FELL:
            return f"v{d['version']} [red]dropped[/]: {escape(d['reason'])}"
        case "proof_failed":
            return f"[red]v{d['version']} could not be proven[/]: {escape(d['why'])}"
        case "measured":
            return (
                f"v{d['version']} accuracy {100 * d['accuracy']:.1f}% ({100 * d['low']:.1f}-{100 * d['high']:.1f}, "
                f"{d['n']} questions, report only)"
            )
        case "paused":
            return f"[yellow]learning paused[/]: {escape(str(d['reason']))}"
        case "resumed":
            return "learning has resumed"
        case "hung":
            return f"[red]{d['part']} hangs[/]: {escape(d['why'])}"
        case "restarted":
            return f"[yellow]{d['part']} was restarted[/] in {d['seconds']:.0f} s: {escape(d['why'])}"
        case "swap_hung":
            return f"[red]a replica hangs[/]: {escape(d['why'])}"
        case "abandoned":
            return f"[yellow]training stopped[/]: {escape(str(d['why']))}"
        case "webhook_failed":
            return f"[red]{escape(d['url'])} did not take an event[/] ({d['of']}): {escape(d['why'])}"
        case "disk_full":
            return f"[yellow]the disk was full[/] for {d['seconds']:.0f} s; learning continues"
    return None
